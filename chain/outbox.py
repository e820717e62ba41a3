"""What an operator sends: stored before it is sent, sent again, replaced when fees rise, followed until it is final."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from sqlmodel import Session

from chain import ledger
from chain.attempts import LONGEST_POLL_S, POLL_S, Sight, hand_over, look, push, sign
from chain.errors import ChainError, RpcError
from chain.ledger import TransactionRow
from chain.rpc import Rpc
from chain.signer import Payer, Signer, signer_of
from chain.transactions import price
from chain.types import Address, Attempt, Hash32
from chain.wire import Receipt

ENDED: Final = frozenset({"final", "failed", "lost"})
"""What does not change any more, because a finalized block says so."""


class TransactionKey(NamedTuple):
    """What a stored transaction is for: there is never a second one for the same."""

    kind: str
    """post or activate; open, close, abandon or amend."""
    epoch: int
    about: Hash32
    """keccak256 of what it says; while one is on its way, no other for this kind and epoch is sent."""


def send(
    rpc: Rpc,
    session: Session,
    account: Payer,
    to: Address,
    data: bytes,
    value: int = 0,
    *,
    key: TransactionKey,
) -> TransactionRow:
    """Send a transaction at most once for `key` and return its row; commits `session`.

    Nonce and signed bytes are committed before the node gets them: after a crash in between, the same bytes
    are sent again. Another transaction for the same is made only where the earlier one came to nothing for good:
    a finalized block says that it was reverted, or that its nonce was used elsewhere. A ChainError where one that
    is about something else may still be on its way.
    """
    signer = signer_of(account)
    known = ledger.transaction(session, key.kind, key.epoch)
    turn = 0
    if known is not None:
        turn = known.turn + 1
        seen = settle(rpc, session, signer, known, key.about)
        if known.status in {"stored", "sent"} or (known.status == "final" and known.about == key.about):
            return known
        if known.status == "mined" and known.about == key.about:
            if seen.receipt is not None and not seen.receipt.ok:
                raise ChainError(
                    f"{seen.receipt.transaction_hash}, to {key.kind} epoch {key.epoch}, was reverted in block "
                    f"{seen.receipt.block}, which is not final yet: another one is made once it is; run this again then"
                )
            return known
    follow(rpc, session, signer)
    priced = price(rpc, signer.address, to, data, value, max_fee=signer.max_fee)
    nonce = _free_nonce(rpc, session, signer)
    signed = sign(signer, priced.numbered(nonce))
    row = TransactionRow(
        **key._asdict(), turn=turn, sender=signer.address, nonce=nonce, hash=signed.hash, raw=signed.raw,
        status="stored", stored_at=rpc.block("latest").number,
    )  # fmt: skip
    ledger.add_transaction(session, row)
    session.commit()
    settle(rpc, session, signer, row)
    return row


def bring(
    rpc: Rpc,
    session: Session,
    account: Payer,
    row: TransactionRow,
    about: Hash32 | None = None,
    timeout_s: float = 120.0,
) -> Receipt | None:
    """Wait until a stored transaction is in a block, sending and replacing it as that takes; commits `session`.

    None where it never will be: its nonce went to another one. An RpcError when time is up, a ChainError as for
    `settle`.
    """
    deadline, pause = time.monotonic() + timeout_s, POLL_S
    seen = settle(rpc, session, account, row, about)
    while seen.receipt is None and row.status not in ENDED:
        if time.monotonic() > deadline:
            newest = ledger.attempts(session, row)[-1].hash
            why = f"nonce {row.nonce} was used by another one, in a block not final yet" if seen.used else ""
            raise RpcError(
                f"{newest} is in no block after {timeout_s:g} s{why and f' ({why})'}: wait and run this again"
            )
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_POLL_S)
        seen = settle(rpc, session, account, row, about, pushed_at=seen.head)
    return seen.receipt


def follow(rpc: Rpc, session: Session, account: Payer) -> None:
    """Settle all transactions of the account whose end is not final, the oldest first; commits `session`."""
    signer = signer_of(account)
    for row in ledger.open_transactions(session, signer.address):
        settle(rpc, session, signer, row)


def settle(
    rpc: Rpc,
    session: Session,
    account: Payer,
    row: TransactionRow,
    about: Hash32 | None = None,
    *,
    pushed_at: int = -1,
) -> Sight:
    """Find out what became of a stored transaction; one in no block is sent (again); commits `session`.

    It is replaced by the same with higher fees where it was overtaken. Nothing is sent while the head is still the
    block `pushed_at`. A ChainError, and nothing sent, where it is open and is not `about` what is wanted now; also
    where the account cannot pay for it, or a limit on fees is reached.
    """
    attempts = ledger.attempts(session, row)
    seen = look(rpc, Address(row.sender), row.nonce, attempts)
    if row.status in ENDED:
        return seen
    if seen.status is None:
        if about is not None and row.about != about:
            raise ChainError(
                f"{row.hash}, to {row.kind} epoch {row.epoch}, was signed before with other contents and may be "
                "on its way: nothing was sent; find out which of the two is right"
            )
        if not seen.used and seen.head != pushed_at:
            dearer = push(rpc, signer_of(account), attempts, seen)
            if dearer is not None:
                attempt = Attempt(dearer.hash, dearer.raw, seen.head)
                ledger.add_attempt(session, row, attempt, dearer.content.offer)
                session.commit()
                hand_over(rpc, dearer.raw)
    row.status = seen.status or "sent"
    session.add(row)
    session.commit()
    return seen


def _free_nonce(rpc: Rpc, session: Session, signer: Signer) -> int:
    """Return the nonce that follows all that is stored and all that the node knows of."""
    nonce = rpc.nonce(signer.address, "pending")
    # A reorg gave a nonce back that a mined transaction had: that one goes first, as it was.
    while (held := ledger.transaction_of(session, signer.address, nonce)) is not None:
        settle(rpc, session, signer, held)
        if (following := rpc.nonce(signer.address, "pending")) == nonce:
            raise ChainError(
                f"{held.hash} has nonce {nonce} and is in no block any more: wait and run this again"
            )
        nonce = following
    return nonce
