"""What was sent: the operator's transactions and every attempt at them, stored before they are handed to a node."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from chain.errors import ChainError
from chain.fees import Offer
from chain.ledger.rows import AttemptRow, TransactionRow
from chain.types import Address, Attempt, Hash32


def transaction(session: Session, kind: str, epoch: int) -> TransactionRow | None:
    """Return the newest transaction of that kind for an epoch."""
    wanted = select(TransactionRow).where(TransactionRow.kind == kind, TransactionRow.epoch == epoch)
    return session.exec(wanted.order_by(col(TransactionRow.id).desc()).limit(1)).first()


def open_transactions(session: Session, sender: Address) -> list[TransactionRow]:
    """Return the transactions of `sender` whose end no finalized block has said yet, by nonce."""
    wanted = select(TransactionRow).where(
        TransactionRow.sender == sender, col(TransactionRow.status).in_(("stored", "sent", "mined"))
    )
    return list(session.exec(wanted.order_by(col(TransactionRow.nonce))))


def transaction_of(session: Session, sender: Address, nonce: int) -> TransactionRow | None:
    """Return the transaction of a sender that has this nonce; there is at most one."""
    wanted = select(TransactionRow).where(TransactionRow.sender == sender, TransactionRow.nonce == nonce)
    return session.exec(wanted).first()


def add_transaction(session: Session, row: TransactionRow) -> None:
    """Store a transaction; the caller commits before it is sent. A ChainError where another process was faster."""
    session.add(row)
    _flush(session, f"{row.kind} epoch {row.epoch}, or nonce {row.nonce} of {row.sender}")


def attempts(session: Session, row: TransactionRow) -> list[Attempt]:
    """Return all that was signed for a transaction, the newest and dearest last; there is at least one."""
    wanted = select(AttemptRow).where(AttemptRow.transaction_id == row.id).order_by(col(AttemptRow.id))
    first = Attempt(Hash32(row.hash), row.raw, row.stored_at)
    return [first, *(Attempt(Hash32(each.hash), each.raw, each.stored_at) for each in session.exec(wanted))]


def add_attempt(session: Session, row: TransactionRow, attempt: Attempt, offer: Offer) -> None:
    """Store an attempt; the caller commits before it is sent. A ChainError where another process was faster."""
    session.add(AttemptRow(transaction_id=row.id or 0, **attempt._asdict(), **offer._asdict()))
    _flush(session, f"attempt {attempt.hash} at {row.kind} epoch {row.epoch}")


def _flush(session: Session, what: str) -> None:
    try:
        session.flush()
    except IntegrityError:
        raise ChainError(
            f"{what} was stored by another process at this moment, and nothing was sent by this one: run one service "
            "with a poster's key on a database, then this again"
        ) from None
