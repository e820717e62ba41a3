"""Random stories of an epoch: wallets ask, rank, revise, skip and dawdle; the same story can be told to any keeper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import Protocol

from hypothesis import strategies as st

from chain.assignment import display_order, method_of
from chain.board import Arrival, Board, Event
from chain.canonical import text_hash
from chain.errors import HapticError
from chain.feedback import Task, summary_of
from chain.handout import HandoutEntry, SkipEntry
from chain.hashing import keccak256
from chain.messages import Ranking
from chain.rules import METHODS, SKIP_REASONS, Rules
from chain.types import Address, Hash32

SEED = b"a seed for stories".ljust(32)
WALLETS = tuple(Address("0x" + f"{n:02x}" * 20) for n in range(1, 6))
BEGIN = 1000
Step = tuple[str, int, int, int]
"""What happens, to whom, how many seconds later, and the luck of it."""
steps = st.tuples(
    st.sampled_from(["ask", "ask", "ask", "rank", "rank", "rank", "revise", "skip"]),
    st.integers(0, len(WALLETS) - 1),
    st.sampled_from([0, 0, 1, 7, 30]),
    st.integers(0, 2**16),
)
tellings = st.lists(steps, min_size=5, max_size=80)
rulebooks = st.builds(
    lambda least, more, most, methods: Rules(
        overlap_min=least, overlap=least + more, overlap_max=least + more + most, lease_s=40,
        methods=tuple(sorted(methods)), skips_free=1, judged_per_skip=2,
    ),
    st.integers(1, 2), st.integers(0, 1), st.integers(0, 2), st.sets(st.sampled_from(METHODS), min_size=1),
)  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[Hash32, Task], Rules]:
    """Return some tasks, a few of them by or for certain wallets, and rules."""
    rules = draw(rulebooks)
    tasks: dict[Hash32, Task] = {}
    for n in range(draw(st.integers(1, 6))):
        size = draw(st.sampled_from([2, 2, 3, 4]))
        unfit = "best_worst" if size == 2 else "pairwise"
        author = draw(st.sampled_from(["", "", "", WALLETS[0]]))
        chosen = draw(st.sampled_from([(), (), (), WALLETS[:3], WALLETS[3:4]]))
        methods = [m for m in METHODS if m != unfit]
        task = Task.of(f"prompt {n}", [f"text {i}" for i in range(size)], methods, author, chosen)
        tasks[task.hash()] = task
    return tasks, rules


class Keeper(Protocol):
    """Who hands out tasks and writes the log."""

    def ask(self, wallet: Address, at: int) -> Hash32 | None: ...

    def skip(self, wallet: Address, task: Hash32, reason: str, at: int) -> None: ...

    def rank(self, ranking: Ranking, at: int) -> None: ...


@dataclass
class BoardKeeper:
    """The keeper that the rule alone makes."""

    board: Board
    handouts: list[HandoutEntry] = field(default_factory=list)
    skips: list[SkipEntry] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)

    def ask(self, wallet: Address, at: int) -> Hash32 | None:
        self.board.expire(at)
        if (held := self.board.held(wallet)) is not None:
            return held
        name = self.board.choose(wallet)
        if name is not None:
            self.handouts.append(HandoutEntry(self._number, wallet, name, at, len(self.arrivals)))
            self.board.hand_out(self.handouts[-1])
        return name

    def skip(self, wallet: Address, task: Hash32, reason: str, at: int) -> None:
        entry = SkipEntry(self._number, wallet, task, reason, at, len(self.arrivals))
        self.board.skip(entry)
        self.skips.append(entry)

    def rank(self, ranking: Ranking, at: int) -> None:
        arrival = Arrival(len(self.arrivals), ranking, at)
        self.board.rank(arrival)
        self.arrivals.append(arrival)

    @property
    def _number(self) -> int:
        return len(self.handouts) + len(self.skips)


def tell(
    telling: Sequence[Step], keeper: Keeper, tasks: Mapping[Hash32, Task], rules: Rules, begin: int = BEGIN
) -> list[str]:
    """Tell a story and return what became of each step; what the keeper refuses is a turn of the story too."""
    now, given, said = begin, dict.fromkeys(WALLETS, Hash32("")), []
    revisions: dict[tuple[Address, Hash32], int] = {}
    for kind, who, later, luck in telling:
        now, wallet = now + later, WALLETS[who]
        task = given[wallet]
        if kind == "ask":
            name = keeper.ask(wallet, now)
            given[wallet] = name or task
            said.append(name or "none")
            continue
        if not task:
            continue
        revision = revisions.get((wallet, task), -1) + 1
        if (kind == "rank") != (revision == 0) and kind != "skip":
            continue
        try:
            if kind == "skip":
                keeper.skip(wallet, task, SKIP_REASONS[luck % len(SKIP_REASONS)], now)
            else:
                keeper.rank(ranking_of(wallet, tasks[task], rules, revision, luck), now)
                revisions[wallet, task] = revision
            said.append(kind)
        except HapticError:
            said.append("refused")
    return said


def ranking_of(wallet: Address, task: Task, rules: Rules, revision: int, luck: int) -> Ranking:
    """Return what a wallet says of a task; most agree, some tie, some flag."""
    draw = Random(luck)  # a story, not a secret
    name = task.hash()
    shown = display_order(SEED, wallet, name, task.hashes)
    places = {h: i for i, h in enumerate(sorted(shown))}
    ranks = [places[h] + 1 for h in shown]
    mood = draw.random()
    if mood < 0.3:
        draw.shuffle(ranks)
    flag = "broken" if mood > 0.9 else ""
    if mood > 0.8:
        ranks = [1] * len(ranks)
    method = method_of(SEED, wallet, rules.methods)
    return Ranking(
        wallet, 0, name, method, summary_of(ranks), shown, tuple(ranks), (), flag, text_hash(""), revision, BEGIN
    )  # fmt: skip


@dataclass
class Reading:
    """SPEC 1 read aloud: what is so when an event comes, all of it counted anew from the events before."""

    tasks: Mapping[Hash32, Task]
    rules: Rules
    before: Sequence[Event]
    now: int

    def of(self, wallet: Address, task: Hash32) -> list[Event]:
        """Return what happened between a wallet and a task."""
        return [e for e in self.before if _key(e) == (wallet, task)]

    def state(self, wallet: Address, task: Hash32) -> str:
        """Return what a task is to a wallet: nothing, held, over, done or skipped."""
        known = self.of(wallet, task)
        for kind, word in ((Arrival, "done"), (SkipEntry, "skipped")):
            if any(isinstance(e, kind) for e in known):
                return word
        if not known:
            return ""
        return "held" if known[-1].at + self.rules.lease_s > self.now else "over"

    def count(self, wallet: Address, word: str) -> int:
        return sum(self.state(wallet, t) == word for t in self.tasks)

    def target(self, name: Hash32, done: Sequence[Address]) -> int:
        """Return how many judgements are wanted of a task that these wallets have judged."""
        last = [[e.ranking for e in self.of(w, name) if isinstance(e, Arrival)][-1] for w in done]
        pairs = list(combinations(self.tasks[name].hashes, 2))
        agreed = sum(abs(sum(_says(ranking, a, b) for ranking in last)) for a, b in pairs)
        if len(done) < self.rules.overlap_min or agreed == len(pairs) * len(done):
            return self.rules.overlap_min
        return self.rules.overlap if 2 * agreed >= len(pairs) * len(done) else self.rules.overlap_max

    def choice(self, wallet: Address) -> Hash32 | None:
        """Return the task that the rule gives a wallet."""
        found = []
        turn = sum(isinstance(e, HandoutEntry) and e.wallet == wallet for e in self.before)
        draw = SEED + b"task" + bytes.fromhex(wallet[2:]) + turn.to_bytes(32, "big")
        point = "0x" + keccak256(draw).hex()
        for name, task in self.tasks.items():
            others = [w for w in WALLETS if self.of(w, name)]
            done = [w for w in others if self.state(w, name) == "done"]
            taken = len(done) + sum(self.state(w, name) == "held" for w in others)
            open_to = wallet in task.assignees if task.assignees else taken < self.target(name, done)
            fits = method_of(SEED, wallet, self.rules.methods) in task.methods and task.author != wallet
            if open_to and fits and self.state(wallet, name) in {"", "over"}:
                found.append((taken, name < point, name))
        return min(found)[2] if found else None

    def allows(self, event: Event) -> bool:
        """Say whether this may be what happens next."""
        wallet, task = _key(event)
        if isinstance(event, Arrival):
            return self.state(wallet, task) in {"held", "done"}
        if isinstance(event, SkipEntry):
            earned = self.rules.skips_free + self.count(wallet, "done") // self.rules.judged_per_skip
            return self.state(wallet, task) == "held" and self.count(wallet, "skipped") < earned
        return not self.count(wallet, "held") and self.choice(wallet) == task


def _key(event: Event) -> tuple[Address, Hash32]:
    if isinstance(event, Arrival):
        return event.ranking.wallet, event.ranking.task
    return event.wallet, event.task


def _says(ranking: Ranking, a: Hash32, b: Hash32) -> int:
    """Return +1 if a ranking puts a before b, -1 if after, 0 if neither."""
    rank = dict(zip(ranking.shown, ranking.ranks, strict=True))
    return 0 if ranking.flag else (rank[a] < rank[b]) - (rank[a] > rank[b])


def is_honest(tasks: Mapping[Hash32, Task], rules: Rules, events: Sequence[Event]) -> bool:
    """Say whether each event of a log may follow those before it."""
    times = [e.at for e in events]
    return times == sorted(times) and all(
        Reading(tasks, rules, events[:i], e.at).allows(e) for i, e in enumerate(events)
    )
