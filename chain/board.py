"""An epoch's tasks as hand-outs, skips and rankings leave them, one after the other: the replay of SPEC 1; pure.

The service keeps the same numbers in its database; both ask `chain.handout` how many judgements are wanted.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from typing import NamedTuple, TypeAlias

from chain.assignment import method_of, task_point
from chain.errors import VerifyError
from chain.feedback import Task, signs_of
from chain.handout import HandoutEntry, SkipEntry, skips_left, wanted
from chain.messages import Ranking
from chain.rules import SKIP_REASONS, Rules
from chain.types import Address, Hash32


class Arrival(NamedTuple):
    """A ranking came in."""

    position: int
    ranking: Ranking
    at: int
    """Block time, Unix seconds."""


Event: TypeAlias = HandoutEntry | SkipEntry | Arrival


@dataclass(slots=True)
class Tally:
    """What has come of a task so far."""

    votes: list[int]
    """Σ x of each of its pairs, in the order of `combinations` of its response hashes."""
    wanted: int
    """Judgements wanted by now."""
    done: int = 0
    live: int = 0
    """Wallets that hold it."""

    @property
    def taken(self) -> int:
        """Return how many judgements are given or under way."""
        return self.done + self.live


@dataclass(slots=True)
class _Lease:
    """A task in a wallet's hands, or what became of it."""

    expires_at: int
    live: bool = True
    done: bool = False
    signs: tuple[int, ...] = ()
    """What its last revision says of each pair."""


class Board:
    """An epoch's tasks as the events so far leave them; each event is checked, and must not come before the last."""

    def __init__(self, tasks: Mapping[Hash32, Task], rules: Rules, seed: bytes) -> None:
        self._tasks, self._rules, self._seed = tasks, rules, seed
        self.tallies: dict[Hash32, Tally] = {}
        self._leases: dict[tuple[Address, Hash32], _Lease] = {}
        self._held: dict[Address, Hash32] = {}
        self._ends: list[tuple[int, Address, Hash32]] = []
        self._turns: Counter[Address] = Counter()
        self._judged: Counter[Address] = Counter()
        self._skipped: Counter[Address] = Counter()
        self._barred: defaultdict[Address, set[Hash32]] = defaultdict(set)
        """What a wallet has judged, skipped or written the prompt of."""
        self._reserved: defaultdict[Address, list[Hash32]] = defaultdict(list)
        self._open: defaultdict[tuple[str, int], list[Hash32]] = defaultdict(list)
        """Tasks that more judgements are wanted of, ascending, by method and by how many are given or under way."""
        for name in sorted(tasks):
            task = tasks[name]
            pairs = len(task.responses) * (len(task.responses) - 1) // 2
            self.tallies[name] = Tally([0] * pairs, rules.overlap_min)
            if task.author:
                self._barred[Address(task.author)].add(name)
            for wallet in task.assignees:
                self._reserved[wallet].append(name)
            self._list(name)

    def _list(self, name: Hash32, *, off: bool = False) -> None:
        """Enter a task among the open ones, or take it off."""
        tally = self.tallies[name]
        if self._tasks[name].assignees or tally.taken >= tally.wanted:
            return
        for method in self._tasks[name].methods:
            names = self._open[method, tally.taken]
            if off:
                del names[bisect_left(names, name)]
            else:
                insort(names, name)

    def _count(self, name: Hash32, *, done: int = 0, live: int = 0, signs: Iterable[int] = ()) -> None:
        tally = self.tallies[name]
        self._list(name, off=True)
        tally.done, tally.live = tally.done + done, tally.live + live
        for place, sign in enumerate(signs):
            tally.votes[place] += sign
        tally.wanted = wanted(tally.done, tally.votes, self._rules)
        self._list(name)

    def _end(self, wallet: Address, task: Hash32, lease: _Lease) -> None:
        """Let a lease end, whatever for."""
        lease.live = False
        del self._held[wallet]
        self._count(task, live=-1)

    def expire(self, now: int) -> None:
        """Let all leases end whose time is over."""
        while self._ends and self._ends[0][0] <= now:
            expires_at, wallet, task = heappop(self._ends)
            lease = self._leases[wallet, task]
            if lease.live and lease.expires_at == expires_at:
                self._end(wallet, task, lease)

    def held(self, wallet: Address) -> Hash32 | None:
        """Return the task that a wallet holds; it is given that again when it asks."""
        return self._held.get(wallet)

    def skips_left(self, wallet: Address) -> int:
        """Return how many tasks a wallet may still give back."""
        return skips_left(self._judged[wallet], self._skipped[wallet], self._rules)

    def choose(self, wallet: Address) -> Hash32 | None:
        """Return the task that a wallet that holds none is given next, or None.

        Of the tasks that it may judge those with the fewest judgements; of these the first from a point that the
        seed draws for this wallet and turn, in the order of their names and round again.
        """
        method = method_of(self._seed, wallet, self._rules.methods)
        point = task_point(self._seed, wallet, self._turns[wallet])
        barred = self._barred[wallet]
        found = [
            (self.tallies[name].taken, name < point, name)
            for name in self._reserved.get(wallet, ())
            if name not in barred and method in self._tasks[name].methods
        ]
        for taken in range(self._rules.overlap_max):
            names = self._open.get((method, taken), [])
            start = bisect_left(names, point)
            around = (names[i] for i in chain(range(start, len(names)), range(start)))
            first = next((name for name in around if name not in barred), None)
            if first is not None:
                found.append((taken, first < point, first))
                break
        return min(found)[2] if found else None

    def hand_out(self, entry: HandoutEntry) -> None:
        """Record a hand-out; VerifyError where the rule gives another task, or none."""
        self.expire(entry.at)
        held, task = self.held(entry.wallet), self._tasks.get(entry.task)
        if held is not None:
            raise VerifyError(f"the wallet holds {held} until {self._leases[entry.wallet, held].expires_at}")
        if task is not None and task.author == entry.wallet:
            raise VerifyError(f"the wallet is the author of the prompt of {entry.task}")
        expected = self.choose(entry.wallet)
        if entry.task != expected:
            raise VerifyError(f"it gave {entry.task}, the rule gives {expected or 'none'}")
        lease = _Lease(entry.at + self._rules.lease_s)
        self._leases[entry.wallet, entry.task] = lease
        self._held[entry.wallet] = entry.task
        self._turns[entry.wallet] += 1
        heappush(self._ends, (lease.expires_at, entry.wallet, entry.task))
        self._count(entry.task, live=1)

    def skip(self, entry: SkipEntry) -> None:
        """Record a skip; VerifyError where the wallet does not hold the task or has no skip left."""
        self.expire(entry.at)
        if self.held(entry.wallet) != entry.task:
            raise VerifyError(f"the wallet does not hold {entry.task}")
        if entry.reason not in SKIP_REASONS:
            raise VerifyError(f"reason {entry.reason!r} is not one of {', '.join(SKIP_REASONS)}")
        if not self.skips_left(entry.wallet):
            raise VerifyError(f"the wallet has skipped {self._skipped[entry.wallet]} tasks and has none left")
        self._end(entry.wallet, entry.task, self._leases[entry.wallet, entry.task])
        self._skipped[entry.wallet] += 1
        self._barred[entry.wallet].add(entry.task)

    def rank(self, arrival: Arrival) -> None:
        """Record a ranking; VerifyError where the wallet was not handed the task, or no longer held it."""
        ranking = arrival.ranking
        self.expire(arrival.at)
        lease = self._leases.get((ranking.wallet, ranking.task))
        if lease is None:
            raise VerifyError(f"task {ranking.task} was not handed to the wallet")
        if not lease.done and not lease.live:
            raise VerifyError(
                f"task {ranking.task} was the wallet's until {lease.expires_at} or until it was skipped"
            )
        signs, first = signs_of(ranking), not lease.done
        if first:
            self._end(ranking.wallet, ranking.task, lease)
            self._judged[ranking.wallet] += 1
            self._barred[ranking.wallet].add(ranking.task)
        before = lease.signs or (0,) * len(signs)
        self._count(ranking.task, done=int(first), signs=[s - b for s, b in zip(signs, before, strict=True)])
        lease.done, lease.signs = True, signs

    def take(self, event: Event) -> None:
        """Record an event of any kind; VerifyError where it could not be."""
        match event:
            case HandoutEntry():
                self.hand_out(event)
            case SkipEntry():
                self.skip(event)
            case Arrival():
                self.rank(event)


def _said(event: Event) -> str:
    match event:
        case HandoutEntry():
            return f"hand-out {event.number} of {event.wallet}"
        case SkipEntry():
            return f"skip {event.number} of {event.wallet}"
        case Arrival():
            return f"ranking at position {event.position} by {event.ranking.wallet}"


def in_order(
    handouts: Iterable[HandoutEntry], skips: Iterable[SkipEntry], rankings: Sequence[Arrival]
) -> Iterator[Event]:
    """Yield an epoch's log in its order; VerifyError where it has a gap, or an entry has no place in it.

    Each list is in the order of its numbers or positions.
    """
    done = 0
    numbered: list[HandoutEntry | SkipEntry] = sorted((*handouts, *skips), key=lambda e: e.number)
    for place, entry in enumerate(numbered):
        if entry.number != place:
            raise VerifyError(f"{_said(entry)}: expected number {place}; one is missing or added")
        if not done <= entry.after <= len(rankings):
            raise VerifyError(
                f"{_said(entry)}: it is after {entry.after} rankings, expected {done} to {len(rankings)}"
            )
        yield from rankings[done : entry.after]
        done = entry.after
        yield entry
    yield from rankings[done:]


def replay(board: Board, events: Iterable[Event]) -> Board:
    """Return the board after these events; VerifyError names the first that the rule does not give."""
    now = 0
    for event in events:
        if event.at < now:
            raise VerifyError(f"{_said(event)}: it came at {event.at}, after what came at {now}")
        now = event.at
        try:
            board.take(event)
        except VerifyError as error:
            raise VerifyError(f"{_said(event)}: {error}") from error
    return board
