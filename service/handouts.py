"""Hands out tasks, takes them back and counts what comes of them: the rule of `chain.handout`, kept in the database.

`chain.board` keeps the same numbers in memory and replays the log that is written here; a test holds one to the other.
All of it happens under the epoch's lock, one event after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlmodel import Session as Db

from chain.assignment import display_order, method_of, task_point
from chain.feedback import Task, signs_of
from chain.handout import HandoutEntry, SkipEntry, skips_left, wanted
from chain.messages import Ranking
from chain.rules import SKIP_REASONS, Rules
from chain.types import Address, Hash32
from service.arena import task_of
from service.errors import BadRequestError, ConflictError, ExpiredError, NotFoundError, RejectedError
from service.ledger import queries
from service.ledger.tables import EpochRow, HandoutRow, LeaseRow, SkipRow, TallyRow


class Held(Protocol):
    """A lease, be it a row or what intake read of one."""

    live: bool
    done: bool
    skipped: bool
    expires_at: int


class Counted(Protocol):
    """A task's tally, in the same way."""

    taken: int
    done: int
    wanted: int
    votes: list[int]


L = TypeVar("L", bound=Held)


@dataclass(frozen=True, slots=True)
class Handed:
    """A task as one wallet sees it."""

    entry: HandoutEntry
    prompt: str
    method: str
    shown: tuple[str, ...]
    """Texts in the order of this wallet's screen."""
    expires_at: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A task that was given back, and how many more may be."""

    entry: SkipEntry
    left: int


def tally_of(epoch: int, task: Task, rules: Rules) -> TallyRow:
    """Return the tally of a task that nobody has seen yet."""
    pairs = len(task.responses) * (len(task.responses) - 1) // 2
    return TallyRow(
        epoch=epoch, task=task.hash(), methods=_listed(task.methods), author=task.author,
        assignees=_listed(task.assignees), wanted=rules.overlap_min, votes=[0] * pairs,
    )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    """Return names as a text in which each can be found between commas; nothing where there are none."""
    return "".join(f",{n}" for n in names) + "," if names else ""


def moment(row: EpochRow, now: int) -> int:
    """Return the block time of the next entry of an epoch's log, which never goes back.

    A clock may be half a second behind the block that opened the epoch, and one replica's behind another's.
    """
    return max(now, row.committed_at or 0, row.last_at)


def later(row: EpochRow, now: int) -> int:
    """Return the same, and let the row remember it."""
    row.last_at = moment(row, now)
    return row.last_at


def next_task(db: Db, seed: bytes, rules: Rules, row: EpochRow, wallet: Address, now: int) -> Handed:
    """Hand the wallet the task it holds, or the next that the rule gives it; NotFoundError when there is none.

    `row` is the open epoch, locked; the wallet has the stake that is asked for.
    """
    method, epoch = method_of(seed, wallet, rules.methods), row.epoch
    held = queries.live_lease(db, epoch, wallet, max(now, row.last_at))
    if held is not None:
        return _hand(db, seed, held, method)
    now = later(row, now)
    _expire(db, epoch, now)
    turn = queries.handout_count(db, epoch, wallet)
    name = queries.next_open(db, epoch, wallet, method, task_point(seed, wallet, turn))
    if name is None:
        raise NotFoundError(
            f"no task for {wallet} in epoch {epoch}: all that fit its method, {method}, have enough judgements"
        )
    entry = HandoutRow(
        epoch=epoch, number=row.entries, wallet=wallet, task=name, at=now,
        after=queries.next_position(db, epoch),
    )  # fmt: skip
    row.entries += 1
    lease = queries.lease_row(db, epoch, wallet, name)
    if lease is None:
        lease = LeaseRow(epoch=epoch, wallet=wallet, task=name, expires_at=0)
    lease.number, lease.expires_at, lease.live = entry.number, now + rules.lease_s, True
    queries.tally_row(db, epoch, name).taken += 1
    queries.add(db, entry, lease)
    return _hand(db, seed, lease, method)


def _hand(db: Db, seed: bytes, lease: LeaseRow, method: str) -> Handed:
    row = queries.task_row(db, lease.epoch, lease.task)
    if row is None:
        raise NotFoundError(
            f"task {lease.task} of epoch {lease.epoch} is gone; restore the database from a backup"
        )
    task = task_of(row)
    texts = dict(zip(task.hashes, task.responses, strict=True))
    shown = display_order(seed, Address(lease.wallet), Hash32(row.task), task.hashes)
    entry = handout_entry(queries.handout_row(db, lease.epoch, lease.number))
    return Handed(entry, row.prompt, method, tuple(texts[h] for h in shown), lease.expires_at)


def _expire(db: Db, epoch: int, now: int) -> None:
    """Let all leases end whose time is over."""
    for lease in queries.overdue_leases(db, epoch, now):
        _end(lease, queries.tally_row(db, epoch, lease.task))


def _end(lease: Held, tally: Counted) -> None:
    """Let a lease end, whatever for."""
    if lease.live:
        tally.taken -= 1
    lease.live = False


def check_held(lease: L | None, wallet: str, task: str, now: int) -> L:
    """Return the lease of a task that a wallet judges or gives back; an error where it is not its to judge."""
    if lease is None:
        raise RejectedError(f"task {task} was not handed to {wallet}; ask for one at /v1/tasks/next")
    if lease.skipped:
        raise RejectedError(f"task {task} was skipped by {wallet}; ask for another")
    if not lease.done and (not lease.live or lease.expires_at <= now):
        raise ExpiredError(f"the task was yours until {lease.expires_at}, now is {now}; ask for another")
    return lease


def count(rules: Rules, lease: Held, tally: Counted, ranking: Ranking, before: Ranking | None) -> None:
    """Count a ranking that was accepted; `before` is the revision that it replaces."""
    _end(lease, tally)
    signs = signs_of(ranking)
    old = signs_of(before) if before else (0,) * len(signs)
    tally.votes = [v + s - o for v, s, o in zip(tally.votes, signs, old, strict=True)]
    if not lease.done:
        tally.taken, tally.done = tally.taken + 1, tally.done + 1
    tally.wanted = wanted(tally.done, tally.votes, rules)
    lease.done = True


def skip(
    db: Db, rules: Rules, row: EpochRow, wallet: Address, task: Hash32, reason: str, now: int
) -> Skipped:
    """Give a task back unjudged, for good; asking again answers the same. ConflictError beyond the budget.

    `row` is the open epoch, locked.
    """
    if reason not in SKIP_REASONS:
        raise BadRequestError(f"reason {reason!r} is not one of {', '.join(SKIP_REASONS)}")
    left = left_of(db, rules, row.epoch, wallet)
    known = queries.skip_row(db, row.epoch, wallet, task)
    if known is not None:
        return Skipped(skip_entry(known), left)
    lease = check_held(queries.lease_row(db, row.epoch, wallet, task), wallet, task, max(now, row.last_at))
    if lease.done:
        raise ConflictError(f"task {task} was judged by {wallet}; a judged task can be revised, not skipped")
    if not left:
        raise ConflictError(
            f"no skip is left: {rules.skips_free} are free in an epoch, and each {rules.judged_per_skip} judged tasks "
            "allow one more; rank the task, or let its time pass"
        )
    now = later(row, now)
    entry = SkipRow(
        epoch=row.epoch, number=row.entries, wallet=wallet, task=task, reason=reason, at=now,
        after=queries.next_position(db, row.epoch),
    )  # fmt: skip
    row.entries += 1
    _end(lease, queries.tally_row(db, row.epoch, task))
    lease.skipped = True
    queries.add(db, entry)
    return Skipped(skip_entry(entry), left - 1)


def left_of(db: Db, rules: Rules, epoch: int, wallet: str) -> int:
    """Return how many tasks a wallet may still give back in an epoch."""
    judged, skipped = queries.judged_count(db, epoch, wallet), queries.skip_count(db, epoch, wallet)
    return skips_left(judged, skipped, rules)


def handout_entry(row: HandoutRow) -> HandoutEntry:
    """Return a stored hand-out as the record that is published."""
    return HandoutEntry(row.number, Address(row.wallet), Hash32(row.task), row.at, row.after)


def skip_entry(row: SkipRow) -> SkipEntry:
    """Return a stored skip as the record that is published."""
    return SkipEntry(row.number, Address(row.wallet), Hash32(row.task), row.reason, row.at, row.after)
