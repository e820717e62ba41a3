"""Laws of what is imported: every vote counts once, gold is what nobody doubts, and all of it is read again."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.feedback import dense_ranks
from chain.rules import SIZES, Rules
from service import imports
from service.arena import file_gold
from service.imports import Tally
from service.judged import Judged, merged, read, signs_of
from service.pool import file_tasks
from trainer.preferences import read_snapshot, write_snapshot

DATA = Path(os.environ.get("HAPTIC_DATA") or Path(__file__).parents[3] / "shared" / "data")
"""Judgements of real people, which are no part of the project."""


@st.composite
def records(draw: st.DrawFn) -> list[Judged]:
    """Return few prompts with few texts, so that all of it comes again, also empty and doubled texts."""
    found = []
    for number in range(draw(st.integers(0, 6))):
        texts = tuple(draw(st.lists(st.sampled_from(["a", "b", "c", " "]), min_size=2, max_size=4)))
        order = st.lists(st.integers(1, 3), min_size=len(texts), max_size=len(texts)).map(dense_ranks)
        people = st.dictionaries(st.sampled_from([f"{number} {n}" for n in range(3)]), order.map(signs_of))
        found.append(Judged(draw(st.sampled_from("pq")), texts, texts, draw(people), line=number))
    return found


@given(records())
def test_a_preference_is_the_plain_share_of_all_votes_on_its_pair(found: list[Judged]) -> None:
    votes: Counter[tuple[str, str, str]] = Counter()
    people: Counter[tuple[str, frozenset[str]]] = Counter()
    for one in found:
        for ranks in one.ranks.values():
            for (a, x), (b, y) in combinations(zip(one.texts, ranks, strict=True), 2):
                people[one.prompt, frozenset((a, b))] += 1
                votes[one.prompt, a, b] += 2 * (x < y) + (x == y)
                votes[one.prompt, b, a] += 2 * (y < x) + (x == y)
    expected = {
        (p, a, b): (n * 1_000_000 // (2 * people[p, frozenset((a, b))]), people[p, frozenset((a, b))])
        for (p, a, b), n in votes.items()
        if n > people[p, frozenset((a, b))] and a.strip() and b.strip() and a != b
    }
    made = list(imports.preferences(found, Tally()))
    assert {(r.prompt, r.chosen, r.rejected): (r.confidence_ppm, r.judgements) for r in made} == expected
    assert len(made) == len(expected)


@given(records())
def test_it_does_not_matter_whether_people_share_a_line(found: list[Judged]) -> None:
    split = [replace(one, signs={who: s}) for one in found for who, s in one.signs.items()]
    both = [
        {(r.prompt, r.chosen, r.rejected, r.confidence_ppm) for r in imports.preferences(x, Tally())}
        for x in (found, split)
    ]
    assert both[0] == both[1]


@given(records(), st.integers(1, 3))
def test_gold_is_what_enough_people_ranked_and_nobody_otherwise(found: list[Judged], enough: int) -> None:
    said: dict[tuple[str, frozenset[str]], list[dict[str, int]]] = {}
    for one in found:
        orders = said.setdefault((one.prompt, frozenset(one.texts)), [])
        if len(set(one.texts)) == len(one.texts):
            orders += [dict(zip(one.texts, r, strict=True)) for r in one.ranks.values()]
    made = {
        (r["prompt"], frozenset(r["responses"])): dict(zip(r["responses"], r["ranks"], strict=True))
        for r in imports.gold(found, Tally(), enough)
    }
    for key, orders in said.items():
        clear = len(orders) >= enough and all(o == orders[0] for o in orders)
        fit = len(key[1]) in SIZES and " " not in key[1]
        assert (key in made) == (clear and fit and len(set(orders[0].values())) > 1)
        assert made.get(key) in (None, *orders)


@given(records())
def test_every_record_is_a_task_repeats_another_or_is_left_out_with_a_reason(found: list[Judged]) -> None:
    tally = Tally()
    made = list(imports.tasks(found, tally))
    assert len(found) == tally.records == len(made) + tally.repeated + sum(tally.left_out.values())
    assert tally.made == len(made)
    assert len({(r["prompt"], frozenset(r["responses"])) for r in made}) == len(made)


@given(records())
def test_every_pair_is_a_preference_or_left_out_and_so_is_a_record_without_a_verdict(
    found: list[Judged],
) -> None:
    tally, whole = Tally(), merged(found)
    made = list(imports.preferences(found, tally))
    pairs = {
        (one.prompt, *sorted((one.texts[i], one.texts[j])))
        for one in whole for signs in one.signs.values() for i, j in signs
    }  # fmt: skip
    silent = sum(not any(one.signs.values()) for one in whole)
    assert tally.left_out["it says nothing of which response is better"] == silent
    assert tally.made == len(made)
    assert tally.made + sum(tally.left_out.values()) == len(pairs) + silent


def _file(folder: Path, rows: object) -> Path:
    path = folder / "made.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))  # type: ignore[attr-defined]
    return path


@given(found=records())
def test_what_is_made_is_read_by_the_trainer_and_by_the_service(
    tmp_path_factory: pytest.TempPathFactory, found: list[Judged]
) -> None:
    folder = tmp_path_factory.mktemp("made")
    if rows := list(imports.preferences(found, Tally())):
        assert read_snapshot(folder / "d.jsonl", write_snapshot(folder / "d.jsonl", rows)) == rows
    tasks = list(imports.tasks(found, Tally()))
    asked = file_tasks(_file(folder, tasks), Rules(), 99, set())
    assert [(p.task.prompt, set(p.task.responses)) for p in asked] == [
        (t["prompt"], set(t["responses"])) for t in tasks
    ]
    gold = list(imports.gold(found, Tally(), 1))
    known = file_gold(_file(folder, gold), Rules(), 99, lambda _: set())
    assert [dict(zip(p.task.responses, p.gold_ranks, strict=True)) for p in known] == [
        dict(zip(g["responses"], g["ranks"], strict=True)) for g in gold
    ]


@pytest.mark.parametrize(
    ("name", "lines", "bad", "preferences", "gold"),
    [
        ("squality_rankings", 80, 0, 240, 37),
        ("llmfao_judgements", 1712, 0, 1119, 155),
        ("qa_feedback", 350, 0, 1820, 0),
        ("hh_harmless", 1611, 4, 1605, 0),
    ],
)
def test_the_judgements_of_real_people_are_read(
    name: str, lines: int, bad: int, preferences: int, gold: int
) -> None:
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here; HAPTIC_DATA says where judgements of real people are")
    wrong: list[Exception] = []
    found = list(read(path, bad=wrong.append))
    assert (len(found) + len(wrong), len(wrong)) == (lines, bad)
    assert len(list(imports.preferences(found, Tally()))) == preferences
    assert len(list(imports.gold(found, Tally(), 3))) == gold
