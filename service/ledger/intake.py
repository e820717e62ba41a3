"""What taking many rankings in at once asks of the database: a statement for all of them, not one for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import CursorResult, func, select
from sqlmodel import Session as Db
from sqlmodel import col

from chain.feedback import Task
from chain.messages import Ranking, Receipt, Session
from chain.types import Address, Hash32
from service.ledger.tables import RankingRow, SessionRow, TallyRow, TaskRow

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

    def row(self) -> tuple[object, ...]:
        """Return it by the columns of RankingRow, in their order."""
        r, receipt = self.ranking, self.receipt
        return (
            r.epoch, receipt.position, receipt.digest_of, r.wallet, self.signer, r.task, r.revision,
            _json(r.to_json()), self.signature, self.comment, receipt.received_at, self.proof, self.block or None,
        )  # fmt: skip


# Statements of the hot path go past SQLAlchemy's compiler, which would take longer than the database does. The revision
# is looked up where there is one: a lease is done from its first accepted ranking on. From `held` on, as a cross join:
# else SQLite holds every row of the epoch against a list of pairs.
_LEASES = """WITH held(wallet, task) AS (VALUES {})
SELECT lease.wallet, lease.task, expires_at, live, done, skipped, CASE WHEN done THEN (
    SELECT max(revision) FROM ranking
    WHERE ranking.epoch = lease.epoch AND ranking.wallet = lease.wallet AND ranking.task = lease.task
) END
FROM held CROSS JOIN lease WHERE lease.epoch = ? AND lease.wallet = held.wallet AND lease.task = held.task"""
_COLUMNS = (
    "epoch", "position", "digest", "wallet", "signer", "task", "revision", "message", "signature", "comment",
    "received_at", "receipt", "block",
)  # fmt: skip
_APPEND = f"INSERT INTO ranking ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_END = "UPDATE lease SET live = ?, done = ? WHERE epoch = ? AND wallet = ? AND task = ?"
_COUNT = "UPDATE tally SET taken = ?, done = ?, wanted = ?, votes = ? WHERE epoch = ? AND task = ?"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _run(db: Db, statement: str, given: Sequence[object]) -> CursorResult[Any]:
    """Run a statement whose holes are question marks, once or for each of a list of rows."""
    connection = db.connection()
    if connection.dialect.name == "postgresql":
        statement = statement.replace("?", "%s")
    return connection.exec_driver_sql(statement, given)


@lru_cache(32)
def _leases_of(size: int) -> str:
    """Return the statement about so many places; made once, so that the drivers know it again."""
    return _LEASES.format(", ".join(["(?, ?)"] * size))


def leases(db: Db, epoch: int, places: Collection[Place]) -> dict[Place, tuple[Lease, int]]:
    """Return the leases of these wallets on these tasks, live or not, each with the last revision of its ranking.

    The revision is -1 where nothing was ranked; there is at least one place.
    """
    listed = list(places)
    # The last stands there as often as it takes to a power of two, so that there are few statements.
    listed += listed[-1:] * ((1 << (len(listed) - 1).bit_length()) - len(listed))
    given = (*(part for place in listed for part in place), epoch)
    found: Iterable[Any] = _run(db, _leases_of(len(listed)), given)
    # SQLite has no booleans of its own.
    return {
        (w, t): (
            Lease(epoch, w, t, ends, bool(live), bool(done), bool(skipped)),
            -1 if last is None else last,
        )
        for w, t, ends, live, done, skipped, last in found
    }


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
        _run(db, _APPEND, [item.row() for item in new])


def finish(db: Db, leases: Iterable[Lease], tallies: Iterable[Tally]) -> None:
    """Store what became of leases and tallies."""
    ended = [(x.live, x.done, x.epoch, x.wallet, x.task) for x in leases]
    counted = [(x.taken, x.done, x.wanted, _json(x.votes), x.epoch, x.task) for x in tallies]
    for statement, rows in ((_END, ended), (_COUNT, counted)):
        if rows:
            _run(db, statement, rows)
