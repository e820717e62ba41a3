"""What each event must follow from, by the balances it carries: a log that was lost shows; pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from chain.errors import MissingLogError
from chain.events import (
    Activated,
    Claimed,
    Event,
    Funded,
    Mark,
    Posted,
    ReportEvent,
    Staked,
    StakeEvent,
    UnstakeCancelled,
    UnstakeRequested,
)
from chain.tree import commitment_of
from chain.types import Address, Hash32, Wei

ZERO = Wei(0)
NO_HASH = Hash32("0x" + "00" * 32)


@dataclass(slots=True)
class Totals:
    """What all accounts have together; the contracts tell the same: a missing event shows without asking for each."""

    staked: Wei = ZERO
    pending: Wei = ZERO
    stake_seconds: int = 0
    """Integral of `staked` over time up to `at`, wei·s."""
    at: int = 0
    """Unix seconds of the last change."""
    claimed: Wei = ZERO
    """Paid out in all."""

    def stake_seconds_at(self, time: int) -> int:
        """Return the integral up to `time`, which is not before `at`."""
        return self.stake_seconds + self.staked * (time - self.at)


@dataclass(slots=True)
class Last:
    """The balances that the events so far left behind; an account that is absent never had an event."""

    stakes: dict[Address, tuple[Wei, Wei]] = field(default_factory=dict)
    """(staked, pending) by account."""
    claimed: dict[Address, Wei] = field(default_factory=dict)
    """Paid out in all, by account."""
    funded: Wei = ZERO
    waiting: Posted | None = None
    """The report that is neither rejected nor active."""
    paying: Posted | None = None
    """The report that claims are paid by."""
    totals: Totals = field(default_factory=Totals)
    changed: set[Address] = field(default_factory=set)
    """Accounts with an event since somebody emptied it."""


def follow(last: Last, event: Event) -> None:
    """Take `event` into `last`; a MissingLogError, naming account and block, where it does not follow."""
    if isinstance(event, StakeEvent):
        _stake(last, event)
        last.changed.add(event.account)
    elif isinstance(event, Funded):
        _same(event, "the total funded", last.funded + event.amount, event.total_funded)
        last.funded = event.total_funded
    elif isinstance(event, Claimed):
        paid = last.claimed.get(event.account, ZERO)
        _same(event, f"what {event.account} was paid", paid + event.amount, event.cumulative)
        last.claimed[event.account] = event.cumulative
        last.totals.claimed = Wei(last.totals.claimed + event.amount)
        last.changed.add(event.account)
    else:
        _report(last, event)


def standing(last: Last) -> dict[str, object]:
    """Return what the distributor's views must answer, by their names, if no report was hidden or made up."""
    paying, waiting = last.paying, last.waiting
    nothing = (0, NO_HASH, 0, 0, 0)
    return {
        "active": (0, 0, 0) if paying is None else (paying.epoch + 1, paying.sum, paying.depth),
        "activeCommitment": NO_HASH if paying is None else commitment_of(paying.root, paying.sum),
        "pending": nothing
        if waiting is None
        else (waiting.epoch, waiting.root, waiting.sum, waiting.depth, waiting.active_at),
    }


def _stake(last: Last, event: StakeEvent) -> None:
    before = last.stakes.get(event.account, (ZERO, ZERO))
    if isinstance(event, Staked):
        expected, found = (before[0] + event.amount, int(before[1])), (event.staked, before[1])
    elif isinstance(event, UnstakeRequested):
        expected = before[0] - event.amount, before[1] + event.amount
        found = event.staked, event.pending
    elif isinstance(event, UnstakeCancelled):
        expected = before[0] + event.amount, before[1] - event.amount
        found = event.staked, event.pending
    else:
        expected, found = (int(before[0]), before[1] - event.amount), (before[0], event.pending)
    if expected != found:
        raise _missing(event, f"(stake, pending) of {event.account}", expected, found)
    last.stakes[event.account] = found
    totals = last.totals
    totals.stake_seconds, totals.at = totals.stake_seconds_at(event.timestamp), event.timestamp
    totals.staked = Wei(totals.staked + found[0] - before[0])
    totals.pending = Wei(totals.pending + found[1] - before[1])


def _report(last: Last, event: ReportEvent) -> None:
    waiting = last.waiting
    if isinstance(event, Posted):
        after = 0 if last.paying is None else last.paying.epoch + 1
        _same(event, "the epoch to be posted", after, event.epoch)
        _same(event, "the number of pending roots", int(waiting is not None), 0)
        last.waiting = event
        return
    pending = (None, "none") if waiting is None else (waiting.epoch, waiting.root)
    _same(event, "the pending (epoch, root)", pending, (event.epoch, event.root))
    last.waiting = None
    if isinstance(event, Activated) and waiting is not None:
        _same(event, f"the sum of root {event.root}", waiting.sum, event.sum)
        last.paying = waiting


def _same(event: Mark, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise _missing(event, what, expected, found)


def _missing(event: Mark, what: str, expected: object, found: object) -> MissingLogError:
    return MissingLogError(
        f"{type(event).__name__} in block {event.block} (log {event.log_index}): by those before it, "
        f"{what} should be {expected}, but is {found}. A log is missing: the node drops some, so use another one"
    )
