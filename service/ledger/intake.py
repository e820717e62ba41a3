"""What taking many rankings in at once asks of the database: a statement for all of them, not one for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import TextClause, Update, bindparam, func, insert, select, text, update
from sqlmodel import Session as Db
from sqlmodel import SQLModel, col

from chain.feedback import Task
from chain.messages import Ranking, Receipt, Session
from chain.types import Address, Hash32
from service.ledger.tables import LeaseRow, RankingRow, SessionRow, TallyRow, TaskRow

Place = tuple[str, str]
"""A wallet and a task."""


@dataclass(slots=True)
class Lease:
    """A task in a wallet's hands, of LeaseRow."""

    epoch: int
    wallet: str
    task: str
    expires_at: int
    live: bool
    done: bool
    skipped: bool


@dataclass(slots=True)
class Tally:
    """What has come of a task so far, of TallyRow."""

    epoch: int
    task: str
    taken: int
    done: int
    wanted: int
    votes: list[int]


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


_HELD = "WITH held(wallet, task) AS (VALUES {}) "
_LEASES = """SELECT lease.wallet, lease.task, expires_at, live, done, skipped FROM held CROSS JOIN lease
WHERE lease.epoch = :epoch AND lease.wallet = held.wallet AND lease.task = held.task"""
_REVISIONS = """SELECT ranking.wallet, ranking.task, max(ranking.revision) FROM held CROSS JOIN ranking
WHERE ranking.epoch = :epoch AND ranking.wallet = held.wallet AND ranking.task = held.task
GROUP BY ranking.wallet, ranking.task"""


@lru_cache(32)
def _of_places(wanted: str, size: int) -> TextClause:
    """Return a statement about so many places; made once, because to make one takes longer than to run it."""
    return text(_HELD.format(", ".join(f"(:w{i}, :t{i})" for i in range(size))) + wanted)


def _asked(wanted: str, epoch: int, places: Collection[Place]) -> tuple[TextClause, dict[str, object]]:
    """Return a statement about these places and its parameters.

    As a join, from the places on: else SQLite holds every row of the epoch against a list of pairs. The last place
    stands there as often as it takes to a power of two, so that there are few statements.
    """
    listed = list(places)
    listed += listed[-1:] * ((1 << (len(listed) - 1).bit_length()) - len(listed))
    given: dict[str, object] = {"epoch": epoch}
    for i, (wallet, task) in enumerate(listed):
        given[f"w{i}"], given[f"t{i}"] = wallet, task
    return _of_places(wanted, len(listed)), given


def leases(db: Db, epoch: int, places: Collection[Place]) -> dict[Place, Lease]:
    """Return the leases of these wallets on these tasks, live or not; there is at least one place."""
    found = db.execute(*_asked(_LEASES, epoch, places))
    # SQLite has no booleans of its own.
    return {(w, t): Lease(epoch, w, t, expires_at, *map(bool, said)) for w, t, expires_at, *said in found}


def revisions(db: Db, epoch: int, places: Collection[Place]) -> dict[Place, int]:
    """Return the last revision of each of these rankings that there is; there is at least one place."""
    return {(w, t): revision for w, t, revision in db.execute(*_asked(_REVISIONS, epoch, places))}


def tallies(db: Db, epoch: int, names: Collection[str]) -> dict[str, Tally]:
    """Return what has come of these tasks so far."""
    of = TallyRow.__table__.c  # type: ignore[attr-defined]  # SQLModel does not tell of it
    wanted = select(of.epoch, of.task, of.taken, of.done, of.wanted, of.votes)
    found = db.execute(wanted.where(of.epoch == epoch, of.task.in_(names)))
    return {row[1]: Tally(*row) for row in found}


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


def _update(table: type[SQLModel], *columns: str) -> Update:
    """Return the statement that sets these columns of many rows by wallet (of a lease) and task."""
    of = table.__table__.c  # type: ignore[attr-defined]  # as above
    names = [c for c in ("epoch", "wallet", "task") if c in of]
    return (
        update(table)
        .where(*(of[name] == bindparam(f"of_{name}") for name in names))
        .values({name: bindparam(name) for name in columns})
    )


_END = _update(LeaseRow, "live", "done")
_COUNT = _update(TallyRow, "taken", "done", "wanted", "votes")


def finish(db: Db, leases: Iterable[Lease], tallies: Iterable[Tally]) -> None:
    """Store what became of leases and tallies."""
    ended = [
        {"of_epoch": x.epoch, "of_wallet": x.wallet, "of_task": x.task, "live": x.live, "done": x.done}
        for x in leases
    ]
    counted = [
        {"of_epoch": x.epoch, "of_task": x.task, "taken": x.taken, "done": x.done, "wanted": x.wanted, "votes": x.votes}
        for x in tallies
    ]  # fmt: skip
    for statement, rows in ((_END, ended), (_COUNT, counted)):
        if rows:
            db.connection().execute(statement, rows)
