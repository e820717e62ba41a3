"""Laws that no crowd may break, held by a small one that goes through the attack bench's own code."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from chain.assignment import method_of
from chain.feedback import check_ranking
from chain.hashing import keccak256
from chain.rules import METHODS
from tests.bench.score import __main__ as bench
from tests.bench.score import attacks, real, tables
from tests.bench.score import crowd as c
from tests.bench.score.items import Answers, hand_out, items_of
from tests.bench.score.season import Season, play
from tests.bench.score.tally import Tally

WALLETS, TASKS, EPOCHS = 120, 480, 4


def season(people: c.Population, gold: float | None = None) -> Tally:
    return Tally(Season(people, TASKS, EPOCHS, gold))


def crowd(shares: tuple[tuple[c.Kind, float], ...]) -> c.Population:
    return c.of_shares(1, WALLETS, shares)


@pytest.fixture(scope="module")
def benign() -> Tally:
    return season(crowd(c.BENIGN))


@pytest.fixture(scope="module")
def hostile() -> Tally:
    return season(crowd(c.with_hostile(c.ADVERSARY, 0.1)))


@pytest.mark.parametrize("parts", [2, 5, 20])
def test_skilled_people_who_split_their_wallets_earn_less_by_the_same_answers(
    benign: Tally, parts: int
) -> None:
    people = benign.season.crowd
    for kind in ("expert", "average"):
        some = people.people(kind)[::4]
        split = season(replace(people, splits=tuple((n, parts) for n in some)))
        assert split.of_people(some) < benign.of_people(some) * 0.9
        assert sum(split.judged.values()) == sum(benign.judged.values())


def test_people_who_click_earn_next_to_nothing(benign: Tally, hostile: Tally) -> None:
    for tally in (benign, hostile):
        assert tally.per_work("random clicker") < 0.1
        assert tally.per_work("expert") > 1 > tally.per_work("poor") > tally.per_work("random clicker")


def test_adversaries_earn_nothing_and_labels_stay_far_above_the_majoritys(hostile: Tally) -> None:
    assert hostile.per_work("adversary") == 0
    assert hostile.right["HapticScore"] > hostile.right["majority"] + 0.05


def test_a_ring_of_a_fifth_that_shares_a_wrong_key_earns_nothing_with_a_little_gold() -> None:
    tally = season(crowd(c.with_hostile(c.RING, 0.2)), 0.02)
    assert tally.per_work(c.RING.name) <= 0.1
    assert tally.right["HapticScore"] > tally.right["majority"] + 0.1


def test_who_only_picks_the_longer_earns_next_to_nothing() -> None:
    tally = season(crowd(c.with_hostile(c.PICKS_LONGER, 0.1)))
    assert tally.per_work(c.PICKS_LONGER.name) <= 0.05


@pytest.mark.parametrize("kind", [c.CLICKER, c.AVERAGE])
def test_one_whale_with_most_of_the_stake_and_little_work_takes_little_of_the_pool(kind: c.Kind) -> None:
    people = c.one_whale(kind, 1, WALLETS)
    name, tally = people.kinds[-1].name, season(people)
    assert tally.share_of_stake(name) > 0.75
    assert tally.share_of_work(name) < 0.01
    assert tally.share(name) <= 0.03
    assert tally.share(name, "stake·qual·count") > 0.5


def test_every_ranking_of_the_crowd_is_one_that_a_service_takes_in() -> None:
    people = crowd(c.everybody(2))
    for epoch in range(2):
        shown = {
            n: t.hashes for i in items_of(1, epoch, TASKS) for n, t in zip(i.names, i.tasks, strict=True)
        }
        secret = keccak256(f"1 {epoch}".encode())
        methods = {mine[0]: method_of(secret, mine[0], METHODS) for mine in people.wallets}
        rankings = list(Answers(people, TASKS, 5).of(epoch, 0.05))
        assert len(rankings) == 5 * TASKS
        assert {r.method for r in rankings} == set(METHODS)
        for ranking in rankings:
            check_ranking(ranking, methods[ranking.wallet], shown[ranking.task])


def test_a_task_goes_to_as_many_different_people_as_the_overlap_says_and_whales_work_little() -> None:
    people = crowd(c.everybody(2))
    methods = [METHODS[n % 4] for n in range(WALLETS)]
    given = hand_out(people, methods, items_of(1, 0, TASKS), 5, np.random.default_rng(1))
    assert sum(len(rows) for rows in given) == TASKS
    assert all(len(set(task)) == 5 for rows in given for task in rows.tolist())
    done = np.bincount(np.concatenate([rows.reshape(-1) for rows in given]), minlength=WALLETS)
    assert max(done[people.people("lazy whale")]) < min(done[people.people("average")])


def test_the_same_seed_plays_the_same_season_to_the_last_unit() -> None:
    seasons = (play(Season(crowd(c.BENIGN), 60, 2)) for _ in range(2))
    for first, second in zip(*seasons, strict=True):
        assert first.result == second.result
        assert first.paid == second.paid


FIGURES = {
    attacks.PAY: {
        "expert": 2.0, "average": 1.0, "poor": 0.2, **{k.name: 0.01 for k in tables.HOSTILE},
    },
    attacks.SPLITS: {"expert": 0.8, "average": 0.8},
    attacks.WHALES: {"lazy whale": 0.0, "expert whale": 0.01, "one whale: random clicker": 0.0},
    attacks.RING_PAY: {"ring of 20%": 0.01},
    attacks.LABELS: {"benign": 0.04, "10 % adversaries": 0.09},
}  # fmt: skip
COLUMN = {attacks.SPLITS: "over 2", attacks.RING_PAY: "gold 2%", attacks.LABELS: "over majority"}
BREAKS = [
    (attacks.PAY, "average", 2.5), (attacks.PAY, "poor", 1.1), (attacks.PAY, "poor", 0.005),
    (attacks.PAY, "lazy whale", 0.06), (attacks.SPLITS, "average", 1.01), (attacks.WHALES, "lazy whale", 0.04),
    (attacks.RING_PAY, "ring of 20%", 0.2), (attacks.LABELS, "benign", 0.02), (attacks.LABELS, "10 % adversaries", 0.07),
]  # fmt: skip


def _tables(*changes: tuple[str, str, float]) -> tables.Tables:
    found = tables.Tables()
    for change in ((), changes):
        figures = {(t, row): v for t, rows in FIGURES.items() for row, v in rows.items()}
        figures |= {(t, row): v for t, row, v in change}
        found.add(attacks.Figure(t, row, COLUMN.get(t, "HapticScore"), v) for (t, row), v in figures.items())
    return found


@pytest.mark.parametrize(("table", "row", "value"), BREAKS)
def test_a_bar_that_one_seed_breaks_is_broken(table: str, row: str, value: float) -> None:
    assert all(bar.held for bar in tables.bars(_tables()))
    assert not all(bar.held for bar in tables.bars(_tables((table, row, value))))


@pytest.mark.parametrize(("change", "code"), [((), 0), ((BREAKS[0],), 1)])
def test_the_bench_ends_with_1_when_a_bar_is_broken(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: tuple[tuple[str, str, float], ...],
    code: int,
) -> None:
    found = _tables(*change)
    figures = [
        attacks.Figure(table, row, column, value)
        for table, rows in found.found.items()
        for row, columns in rows.items()
        for column, values in columns.items()
        for value in values
    ]
    monkeypatch.setattr(attacks.Bench, "all", lambda _: iter(figures))
    monkeypatch.setenv("HAPTIC_DATA", "/nowhere")
    assert bench.main(["--small"]) == code
    printed = capsys.readouterr().out
    assert ("NO" in printed) == bool(code)
    assert "left out, /nowhere/squality_rankings.jsonl is not there" in printed


def test_judgements_of_people_are_read_the_right_way_round(tmp_path: Path) -> None:
    lines = []
    for n in range(30):
        responses = [{"text": f"{n} good"}, {"text": f"{n} bad"}][:: 1 if n % 2 else -1]
        better = "left" if n % 2 else "right"
        said = [{"annotator": f"p{i}", "winner": "tie" if (i + n) % 7 == 0 else better} for i in range(4)]
        lines.append({
            "task": str(n), "prompt": "?", "responses": responses, "judgements": said, "ai_verdicts": {"gpt4": better}
        })  # fmt: skip
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    people = real.read(path)
    assert real.agreement(people) == (1.0, pytest.approx(len(people.found.keys) * 4, rel=0.3))
    for count, found in (real.left_out(people), real.with_gpt4(people)):
        assert count > 25
        assert {right for right, _, _ in found.values()} == {1.0}


def test_a_ranking_of_three_by_people_keeps_its_order(tmp_path: Path) -> None:
    row = {
        "task": "a", "prompt": "?", "responses": [{"text": t} for t in ("best", "worst", "middle")],
        "rankings": [{"annotator": "p", "ranks": [1, 5, 3]}],
    }  # fmt: skip
    path = tmp_path / "people.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    people = real.read(path)
    (ranking,), (task,) = people.rankings, people.tasks.values()
    placed = dict(zip(task.responses, ranking.ranks, strict=True))
    assert [placed[t] for t in ("best", "middle", "worst")] == [1, 2, 3]
    assert all(a < b for a, b in pairwise(sorted(ranking.shown)))
    check_ranking(ranking, "ranking", task.hashes)
