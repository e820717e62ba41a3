"""What is judged in a simulated epoch, by whom, and what each says: from random numbers to `Ranking` messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain as one_after_another
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from chain.assignment import method_of
from chain.feedback import Task, summary_of
from chain.hashing import keccak256
from chain.messages import Ranking
from chain.rules import METHODS
from chain.types import Hash32
from tests.bench.score.crowd import Floats, Population
from tests.worlds import NO_COMMENT

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SIZES_DRAWN: Final = ((2, 0.4), (3, 0.2), (4, 0.2), (6, 0.2))
"""Share of tasks by number of responses; who is asked for pairs only gets work enough."""
TASTE: Final = 0.25
"""Correlation of length and quality: the longer of two is better 58 times in a hundred."""
TIE: Final = 0.15
"""Difference in standard deviations below which two responses are called equal."""
ALL_BAD: Final = 0.01
"""Share of judgements that say "all bad"."""


@dataclass(frozen=True, slots=True)
class Items:
    """The tasks of one size of an epoch; rows of each array are tasks, columns its responses by hash."""

    size: int
    tasks: tuple[Task, ...]
    names: tuple[Hash32, ...]
    quality: Floats
    length: Floats
    model: Floats
    key: Floats


_summary = lru_cache(None)(summary_of)


@lru_cache(12)
def items_of(seed: int, epoch: int, tasks: int) -> tuple[Items, ...]:
    """Return an epoch's tasks, the same for every crowd."""
    luck = np.random.default_rng([seed, epoch, 1])
    return tuple(
        _items(size, max(1, round(tasks * share)), luck, f"{seed}.{epoch}") for size, share in SIZES_DRAWN
    )


@lru_cache(12)
def qualities(seed: int, epoch: int, tasks: int) -> dict[tuple[Hash32, Hash32], float]:
    """Return the quality of each response by its task and hash."""
    return {
        (name, response): value
        for items in items_of(seed, epoch, tasks)
        for name, task, row in zip(items.names, items.tasks, items.quality.tolist(), strict=True)
        for response, value in zip(task.hashes, row, strict=True)
    }


def is_gold(items: Items, share: float) -> Bools:
    """Return which tasks are gold: evenly among the others, like which they look, so their place says nothing."""
    place = np.arange(len(items.tasks))
    gold: Bools = np.floor((place + 1) * share + 1e-9) > np.floor(place * share + 1e-9)
    return gold


def gold_of(items: Items, share: float) -> dict[Hash32, tuple[int, ...]]:
    """Return the right ranks of the gold tasks."""
    ranks = np.argsort(np.argsort(-items.quality, axis=1), axis=1) + 1
    return {items.names[t]: tuple(ranks[t].tolist()) for t in np.flatnonzero(is_gold(items, share)).tolist()}


def _items(size: int, count: int, luck: np.random.Generator, series: str) -> Items:
    shape = count, size
    models = luck.normal(0, 0.5, 8)
    model = np.array([luck.choice(models, size, replace=False) for _ in range(count)])
    quality = model + luck.normal(0, np.sqrt(0.75), shape)
    length = TASTE * quality + np.sqrt(1 - TASTE**2) * luck.normal(size=shape)
    key = luck.normal(size=shape)
    letters = np.maximum(24, 120 * np.exp(0.5 * length)).astype(int)
    tasks = []
    methods = [m for m in METHODS if m != ("best_worst" if size == 2 else "pairwise")]
    for t in range(count):
        texts = [f"{series}.{size}.{t}.{i} ".ljust(letters[t, i], "x") for i in range(size)]
        task = Task.of(f"question {series}.{size}.{t}", texts, methods)
        tasks.append(task)
        places = [texts.index(r) for r in task.responses]
        for column in (model, quality, length, key):
            column[t] = column[t, places]
    return Items(size, tuple(tasks), tuple(t.hash() for t in tasks), quality, length, model, key)


def hand_out(
    crowd: Population, methods: Sequence[str], items: Sequence[Items], overlap: int, luck: np.random.Generator
) -> list[Ints]:
    """Return who judges each task of each size: `overlap` different people, by method and effort, else at random."""
    effort = np.array([k.effort for k in crowd.kinds])
    total = overlap * sum(len(i.tasks) for i in items)
    wanted = effort * total / effort.sum()
    quota = np.floor(wanted + luck.random(len(wanted))).astype(int)
    slots = {m: np.repeat(np.arange(len(quota)), np.where(np.array(methods) == m, quota, 0)) for m in METHODS}
    free = luck.permutation(np.concatenate([slots["ranking"], slots["likert"]]))
    pairs, more = (
        overlap * sum(len(i.tasks) for i in items if (i.size == 2) == two) for two in (True, False)
    )
    taken = max(0, pairs - len(slots["pairwise"]))
    small = _exactly(pairs, np.concatenate([slots["pairwise"], free[:taken]]), luck).reshape(-1, overlap)
    large = _exactly(more, np.concatenate([slots["best_worst"], free[taken:]]), luck).reshape(-1, overlap)
    given, large = [_different(small, luck)], _different(large, luck)
    for i in items[1:]:
        given.append(large[: len(i.tasks)])
        large = large[len(i.tasks) :]
    return given


def _exactly(count: int, people: Ints, luck: np.random.Generator) -> Ints:
    """Return so many of these people in random order, some of them once more where there are too few."""
    short = max(0, count - len(people))
    return luck.permutation(np.concatenate([people, luck.choice(people, short)]))[:count]


def _different(rows: Ints, luck: np.random.Generator) -> Ints:
    """Exchange people between tasks until nobody has one twice."""
    for _ in range(1000):
        order = np.argsort(rows, axis=1, kind="stable")
        ranked = np.take_along_axis(rows, order, axis=1)
        again = np.zeros(rows.shape, dtype=bool)
        np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
        twice = np.flatnonzero(again)
        if not len(twice):
            return rows
        flat = rows.reshape(-1)
        for a, b in zip(twice, luck.integers(0, len(flat), len(twice)), strict=True):
            flat[a], flat[b] = flat[b], flat[a]
    raise SystemExit("too few people for this overlap: some would have to judge a task twice")


class Answers:
    """What a crowd says, epoch by epoch; remembers what copies of old answers need."""

    def __init__(self, crowd: Population, tasks: int, overlap: int) -> None:
        self.crowd, self.tasks, self.overlap = crowd, tasks, overlap
        self._old: dict[int, Floats] = {}

    def of(self, epoch: int, gold: float) -> Iterator[Ranking]:
        """Yield the epoch's rankings, as its service would have accepted them, in an epoch with so much gold."""
        crowd, items = self.crowd, items_of(self.crowd.seed, epoch, self.tasks)
        secret = keccak256(f"{crowd.seed} {epoch}".encode())
        methods = [method_of(secret, mine[0], METHODS) for mine in crowd.wallets]
        luck = np.random.default_rng([crowd.seed, epoch, 2])
        given = hand_out(crowd, methods, items, self.overlap, luck)
        return one_after_another.from_iterable(
            self._rankings(epoch, i, is_gold(i, gold), who, methods, luck)
            for i, who in zip(items, given, strict=True)
        )

    def _rankings(
        self,
        epoch: int,
        items: Items,
        gold: Bools,
        who: Ints,
        methods: Sequence[str],
        luck: np.random.Generator,
    ) -> Iterator[Ranking]:
        task, person = np.repeat(np.arange(len(who)), self.overlap), who.reshape(-1)
        view = self._view(epoch, items, task, person, luck)
        leaked = np.array([k.knows_gold for k in self.crowd.kinds])[person] & gold[task]
        view[leaked] = items.quality[task[leaked]]
        by_method = _said(view)
        bad, part = luck.random(len(task)) < ALL_BAD, luck.random(len(task))
        for j, (t, c) in enumerate(zip(task.tolist(), person.tolist(), strict=True)):
            mine, method = self.crowd.wallets[c], methods[c]
            ranks, flag = by_method[method][j], ""
            marks = by_method["marks"][j] if method == "likert" else ()
            if bad[j]:
                ranks, marks, flag = (1,) * items.size, (), "all_bad"
            yield Ranking(
                mine[int(part[j] * len(mine))], epoch, items.names[t], method, _summary(ranks),
                items.tasks[t].hashes, ranks, marks, flag, NO_COMMENT, 0, 0,
            )  # fmt: skip

    def _view(self, epoch: int, items: Items, task: Ints, person: Ints, luck: np.random.Generator) -> Floats:
        """Return how good each judgement's person takes each response to be, in standard deviations."""
        kinds = self.crowd.kinds
        turned = np.array([k.turns is not None and epoch >= k.turns for k in kinds])

        def weight(name: str) -> Floats:
            values = np.array([getattr(k, name) for k in kinds], dtype=float)
            return np.where(turned, 0.0, values)[person, None]

        noise = np.where(turned, 1.0, self.crowd.noise)[person, None]
        view, size = noise * luck.normal(size=(len(task), items.size)), noise**2
        for name, column in (
            ("truth", items.quality),
            ("length", items.length),
            ("model", items.model),
            ("key", items.key),
        ):
            view += weight(name) * column[task]
            size = size + weight(name) ** 2
        view /= np.sqrt(size)
        self._copy(view, items.size, task, person, luck)
        return view

    def _copy(self, view: Floats, size: int, task: Ints, person: Ints, luck: np.random.Generator) -> None:
        """Let those who copy say what others said: in place."""
        kinds = self.crowd.kinds
        copies = np.array([k.copies for k in kinds])[person]
        leads = np.array([k.name == "copied confederate" for k in kinds])[person]
        first: dict[int, int] = {}
        group = np.flatnonzero(leads | (copies == "confederates"))
        for j in sorted(group.tolist(), key=lambda j: (not leads[j], j)):
            source = first.setdefault(int(task[j]), j)
            if not leads[j]:
                view[j] = view[source]
        stale = np.flatnonzero(copies == "stale")
        if len(stale) and size in self._old:
            view[stale] = luck.choice(self._old[size], len(stale))
        if "stale" in {k.copies for k in kinds}:
            self._old[size] = view[np.array([k.name == "expert" for k in kinds])[person]].copy()


def _said(view: Floats) -> dict[str, Any]:
    """Return what each row of views becomes by each method: dense ranks, and the marks of Likert's."""
    order = np.argsort(-view, axis=1, kind="stable")
    ranked = np.take_along_axis(view, order, axis=1)
    steps = np.ones(view.shape, dtype=int)
    steps[:, 1:] = ranked[:, :-1] - ranked[:, 1:] >= TIE
    full = _back(np.cumsum(steps, axis=1), order)
    ends = np.full(view.shape, 2)
    ends[:, 0], ends[:, -1] = 1, 3
    marks = np.clip(np.rint(4 + 1.5 * view), 1, 7).astype(int)
    order = np.argsort(-marks, axis=1, kind="stable")
    ranked = np.take_along_axis(marks, order, axis=1)
    steps[:, 1:] = ranked[:, :-1] != ranked[:, 1:]
    likert = _back(np.cumsum(steps, axis=1), order)
    ranking = _tuples(full)
    return {
        "pairwise": ranking, "ranking": ranking, "likert": _tuples(likert), "marks": _tuples(marks),
        "best_worst": _tuples(_back(ends, np.argsort(-view, axis=1, kind="stable"))),
    }  # fmt: skip


def _back(ranks: Ints, order: Ints) -> Ints:
    """Return the ranks, given by place, in the order of the responses."""
    found = np.empty_like(ranks)
    np.put_along_axis(found, order, ranks, axis=1)
    return found


def _tuples(rows: Ints) -> list[tuple[int, ...]]:
    return [tuple(row) for row in rows.tolist()]
