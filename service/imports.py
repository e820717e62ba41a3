"""Feedback from elsewhere turned into what is of use here: comparisons to train on, tasks to ask, gold.

No wallet signed it, nobody staked on it and nobody can check who said it: it never earns a score.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from chain.rules import SIZES
from service.judged import Judged, merged
from trainer.preferences import ONE_PPM, Comparison

Target: TypeAlias = Literal["preferences", "tasks", "gold"]
NO_EPOCH: Final = 0
"""Epoch of a comparison that no epoch judged: the trainer's format wants one, and weighs none by it."""


@dataclass(slots=True)
class Tally:
    """What became of the records of a file."""

    records: int = 0
    repeated: int = 0
    """Records of a prompt with responses that an earlier one has: they count as one."""
    made: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """How many records gave nothing, by the reason; of comparisons also how many pairs."""


def preferences(found: Iterable[Judged], tally: Tally) -> Iterator[Comparison]:
    """Yield a comparison per pair of responses that more people put one way than the other.

    The confidence is the plain share of the votes, a tie being half a vote for each side: nothing is known of
    these people, so all count alike, and one person alone is taken at his word. A pair comes once, whatever number
    of lines it is in.
    """
    votes: dict[tuple[str, str, str], Counter[int]] = defaultdict(Counter)
    for one in _merged(found, tally):
        if not any(one.signs.values()):
            tally.left_out["it says nothing of which response is better"] += 1
        for signs in one.signs.values():
            for (i, j), sign in signs.items():
                a, b = one.texts[i], one.texts[j]
                if a < b:
                    votes[one.prompt, a, b][sign] += 1
                else:
                    votes[one.prompt, b, a][-sign] += 1
    for (prompt, a, b), said in votes.items():
        ties, first, second = said[0], said[1], said[-1]
        if reason := _unfit_pair(prompt, a, b, first - second):
            tally.left_out[reason] += 1
            continue
        most, people = max(first, second), ties + first + second
        better, worse = (a, b) if first > second else (b, a)
        share = (2 * most + ties) * ONE_PPM // (2 * people)
        tally.made += 1
        yield Comparison(prompt, better, worse, share, people, NO_EPOCH)


def _unfit_pair(prompt: str, a: str, b: str, lead: int) -> str:
    if not (prompt.strip() and a.strip() and b.strip()):
        return "a text is empty"
    if a == b:
        return "both responses are the same"
    return "" if lead else "as many votes for the one as for the other"


def tasks(found: Iterable[Judged], tally: Tally) -> Iterator[Mapping[str, Any]]:
    """Yield a task per prompt and set of responses, whatever was said of them: that is to be asked anew."""
    for one in _merged(found, tally):
        if reason := _unfit_task(one):
            tally.left_out[reason] += 1
            continue
        tally.made += 1
        yield _task(one)


def gold(found: Iterable[Judged], tally: Tally, min_people: int) -> Iterator[Mapping[str, Any]]:
    """Yield the tasks whose ranks at least so many people gave, all of them the same in every rank.

    One who says otherwise is enough to leave a task out: gold decides what an answer is worth, so it must be beyond
    doubt. So is one whose pairs contradict each other, or leave some out.
    """
    for one in _merged(found, tally):
        ranks = one.ranks
        if reason := _unfit_task(one) or _unfit_gold(one, ranks, min_people):
            tally.left_out[reason] += 1
            continue
        tally.made += 1
        yield _task(one) | {"ranks": list(next(iter(ranks.values())))}


def _unfit_task(one: Judged) -> str:
    if len(one.texts) not in SIZES:
        return f"number of responses {len(one.texts)}, not one of {', '.join(map(str, SIZES))}"
    if len(set(one.texts)) < len(one.texts):
        return "two responses are the same"
    return "" if one.prompt.strip() and all(t.strip() for t in one.texts) else "a text is empty"


def _unfit_gold(one: Judged, ranks: Mapping[str, tuple[int, ...]], min_people: int) -> str:
    if len(one.signs) < min_people:
        return f"fewer than {min_people} people judged it"
    if len(ranks) < len(one.signs):
        return "what somebody said of its pairs is no order"
    if len(set(ranks.values())) > 1:
        return "people disagree"
    return "" if max(next(iter(ranks.values()))) > 1 else "all responses are as good"


def _task(one: Judged) -> dict[str, Any]:
    """Return a task as HAPTIC_TASKS_FILE and HAPTIC_GOLD_FILE have it."""
    row: dict[str, Any] = {"prompt": one.prompt, "responses": list(one.texts)}
    if any(one.systems):
        row["origins"] = list(one.systems)
    return row | ({"author": one.author} if one.author else {})


def _merged(found: Iterable[Judged], tally: Tally) -> list[Judged]:
    records = list(found)
    whole = merged(records)
    tally.records, tally.repeated = len(records), len(records) - len(whole)
    return whole
