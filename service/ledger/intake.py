"""What taking many rankings in at once asks of the database: a statement for all of them, not one for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select, tuple_
from sqlmodel import Session as Db
from sqlmodel import col
from sqlmodel import select as sql

from chain.feedback import Task
from chain.messages import Ranking, Receipt, Session
from chain.types import Address, Hash32
from service.ledger.tables import LeaseRow, RankingRow, SessionRow, TallyRow, TaskRow

Place = tuple[str, str]
"""A wallet and a task."""


@dataclass(frozen=True, slots=True)
class NewRanking:
    """A ranking that was accepted and is not stored yet."""

    receipt: Receipt
    signer: Address
    ranking: Ranking
    signature: str
    comment: str
    proof: str
    """The service's signature on the receipt."""
    block: int = 0
    """At which the wallet's code accepted the signature; 0 where a key gave it."""

    def row(self) -> dict[str, object]:
        """Return it by the columns of RankingRow."""
        r, receipt = self.ranking, self.receipt
        return {
            "epoch": r.epoch, "position": receipt.position, "digest": receipt.digest_of, "wallet": r.wallet,
            "signer": self.signer, "task": r.task, "revision": r.revision, "message": r.to_json(),
            "signature": self.signature, "comment": self.comment, "received_at": receipt.received_at,
            "receipt": self.proof, "block": self.block or None,
        }  # fmt: skip


def leases(db: Db, epoch: int, places: Collection[Place]) -> Sequence[LeaseRow]:
    """Return the leases of these wallets on these tasks, live or not."""
    held = tuple_(col(LeaseRow.wallet), col(LeaseRow.task)).in_(places)
    return db.exec(sql(LeaseRow).where(LeaseRow.epoch == epoch, held)).all()


def tallies(db: Db, epoch: int, names: Collection[str]) -> Sequence[TallyRow]:
    """Return what has come of these tasks so far."""
    return db.exec(sql(TallyRow).where(TallyRow.epoch == epoch, col(TallyRow.task).in_(names))).all()


def revisions(db: Db, epoch: int, places: Collection[Place]) -> dict[Place, int]:
    """Return the last revision of each of these rankings that there is."""
    wallet, task = col(RankingRow.wallet), col(RankingRow.task)
    mine = (col(RankingRow.epoch) == epoch, tuple_(wallet, task).in_(places))
    newest = select(wallet, task, func.max(RankingRow.revision)).where(*mine).group_by(wallet, task)
    return {(w, t): revision for w, t, revision in db.execute(newest)}


def tasks(db: Db, epoch: int, names: Collection[str]) -> dict[Hash32, Task]:
    """Return these tasks of an epoch by hash."""
    mine = (col(TaskRow.epoch) == epoch, col(TaskRow.task).in_(names))
    wanted = select(col(TaskRow.task), col(TaskRow.prompt), col(TaskRow.responses), col(TaskRow.methods))
    found = db.execute(wanted.where(*mine))
    return {Hash32(name): Task(p, tuple(r), tuple(m)) for name, p, r, m in found}


def sessions(db: Db, epoch: int, wallets: Collection[str]) -> dict[Address, list[Session]]:
    """Return the sessions that these wallets signed for an epoch."""
    mine = (col(SessionRow.epoch) == epoch, col(SessionRow.wallet).in_(wallets))
    found: dict[Address, list[Session]] = {}
    for message in db.execute(select(col(SessionRow.message)).where(*mine)).scalars():
        session = Session.parse(message)
        found.setdefault(session.wallet, []).append(session)
    return found


def signed_since(db: Db, epoch: int, position: int) -> Counter[tuple[Address, Address]]:
    """Return how many rankings from a position on each key signed in each wallet's name."""
    wallet, signer = col(RankingRow.wallet), col(RankingRow.signer)
    later = (col(RankingRow.epoch) == epoch, col(RankingRow.position) >= position)
    found = db.execute(select(wallet, signer, func.count()).where(*later).group_by(wallet, signer))
    return Counter({(Address(w), Address(s)): count for w, s, count in found})


def append(db: Db, new: Sequence[NewRanking]) -> None:
    """Store rankings."""
    if new:
        db.connection().execute(insert(RankingRow), [item.row() for item in new])
