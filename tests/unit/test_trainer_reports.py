"""What is said of a model: shares, duels in both orders, calibration, length, and how far its reward can be trusted."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from statistics import mean

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from tests.toys import PROMPTS, judge, labelled, tuned
from trainer import duel, overoptimisation, reward
from trainer.config import EvaluateConfig
from trainer.evaluate import Models, distinct, judged
from trainer.model import Ensemble
from trainer.reward_report import (
    Bin,
    Pair,
    calibration_error,
    length_correlation,
    metrics,
    reliability,
)
from trainer.shares import wilson

TEXTS = st.lists(st.tuples(*[st.sampled_from(["", "awful", "good tea", "superb tea"])] * 3), max_size=12)
VERDICTS = st.sampled_from([0.0, 0.5, 1.0])
PAIRS = st.lists(
    st.builds(
        Pair,
        st.floats(-30, 30) | st.just(0.0),
        st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
        st.tuples(st.integers(0, 9), st.integers(0, 9)),
    ),
    max_size=60,
)


def test_wilson_intervals_are_those_of_the_tables() -> None:
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)


# --- duels ----------------------------------------------------------------------------------------------------


@drawn(TEXTS)
def test_a_symmetric_judge_has_no_position_bias_and_both_sides_share_the_wins(
    rows: list[tuple[str, ...]],
) -> None:
    prompts, ours, theirs = ([row[n] for row in rows] for n in range(3))
    found = duel.win_rate(duel.by_gold, prompts, ours, theirs, "x")
    other = duel.win_rate(duel.by_gold, prompts, theirs, ours, "x")
    assert found["x_position_bias"] == 0
    assert found["x"] + other["x"] == pytest.approx(1 if rows else 0)
    assert found["x_n"] == len(rows)


@pytest.mark.parametrize("place", [0.0, 1.0])
def test_a_judge_who_always_takes_one_place_is_all_bias_and_gives_a_half(place: float) -> None:
    found = duel.win_rate(lambda *_: place, ["?"] * 9, ["a"] * 9, ["b"] * 9, "x")
    assert found["x"] == 0.5
    assert found["x_position_bias"] == 1.0
    assert found["x_position_bias_low"] > 0.6


@drawn(st.lists(st.tuples(VERDICTS, VERDICTS), min_size=1, max_size=9))
def test_whatever_a_judge_says_the_first_place_wins_nothing(verdicts: list[tuple[float, float]]) -> None:
    """Verdicts of a judge by place: turned round, the same judge gives our rival what it gave us."""
    said = {(str(n), first): v[not first] for n, v in enumerate(verdicts) for first in (True, False)}
    numbers = [str(n) for n in range(len(verdicts))]
    mine, its = ["a"] * len(numbers), ["b"] * len(numbers)

    def ask(prompt: str, first: str, _second: str) -> float:
        return said[prompt, first == "a"]

    found, other = duel.win_rate(ask, numbers, mine, its, "x"), duel.win_rate(ask, numbers, its, mine, "x")
    assert found["x"] + other["x"] == pytest.approx(1)
    assert found["x_position_bias"] == other["x_position_bias"] == mean(abs(a + b - 1) for a, b in verdicts)


def test_a_win_rate_counts_ties_as_half() -> None:
    found = duel.win_rate(duel.by_gold, ["?"] * 4, ["good", "bad", "?", ""], ["bad", "good", "?", ""], "x")
    assert found["x"] == 0.5
    assert found["x_n"] == 4.0
    assert found["x_low"] < 0.5 < found["x_high"]


# --- the reward model -----------------------------------------------------------------------------------------


def pair(log_odds: float, *, words: tuple[int, int] = (3, 3)) -> Pair:
    return Pair(log_odds, (log_odds, 0.0), words)


def test_a_model_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    sure = math.log(0.75 / 0.25)
    honest = [pair(sure)] * 75 + [pair(-sure)] * 25
    assert calibration_error(honest) == pytest.approx(0, abs=1e-9)
    assert reliability(honest) == [
        Bin(0.75, pytest.approx(0.8), 100, pytest.approx(0.75), 0.75, *wilson(75, 100))
    ]
    boastful = [pair(math.log(0.96 / 0.04))] * 75 + [pair(-math.log(0.96 / 0.04))] * 25
    assert calibration_error(boastful) == pytest.approx(0.21)


@drawn(PAIRS)
def test_every_pair_is_in_one_bin_and_no_confidence_is_below_a_half(pairs: list[Pair]) -> None:
    bins = reliability(pairs)
    assert sum(row.n for row in bins) == len(pairs)
    assert all(row.low - 1e-9 <= row.predicted <= row.high + 1e-9 for row in bins)
    assert all(row.agreed_low <= row.agreed + 1e-9 and row.agreed - 1e-9 <= row.agreed_high for row in bins)
    assert 0 <= calibration_error(pairs) <= 1
    right = sum(row.n * row.agreed for row in bins)
    assert metrics(pairs)["reward_accuracy"] == pytest.approx(right / max(len(pairs), 1))


@drawn(PAIRS)
def test_a_label_turned_round_turns_what_is_said_of_it(pairs: list[Pair]) -> None:
    turned = [Pair(-p.log_odds, p.scores[::-1], p.words[::-1]) for p in pairs]
    found, other = metrics(pairs), metrics(turned)
    differ = sum(p.words[0] != p.words[1] for p in pairs)
    for name, same in (("labels_prefer_longer", False), ("reward_prefers_longer", True)):
        assert found[f"{name}_n"] == differ
        if differ:
            assert other[name] == pytest.approx(found[name] if same else 1 - found[name])
    assert other["reward_length_correlation"] == pytest.approx(found["reward_length_correlation"], abs=1e-9)
    if found["reward_accuracy_longer_n"]:
        assert found["reward_accuracy_longer"] == pytest.approx(1 - other["reward_accuracy_shorter"])


def test_a_model_that_counts_words_is_caught() -> None:
    labels = [(5, 2)] * 3 + [(2, 5)] * 6 + [(4, 4)]
    counting = [Pair(float(good - bad), (float(good), float(bad)), (good, bad)) for good, bad in labels]
    found = metrics(counting)
    assert found["labels_prefer_longer"] == pytest.approx(1 / 3)
    assert found["reward_prefers_longer"] == 1.0
    assert (found["reward_accuracy_longer"], found["reward_accuracy_shorter"]) == (1.0, 0.0)
    assert found["reward_length_correlation"] == pytest.approx(1.0)
    assert length_correlation([Pair(1.0, (1.0, 0.0), (3, 3))]) == 0.0


def test_odds_are_the_reward_models_own_whatever_its_scores_were_divided_by() -> None:
    single, rows = judge(), labelled(900_000)[:6]
    members = Ensemble([judge(), judge()], pessimism=1.0)
    before = [p.log_odds for p in judged(Models(tuned(), tuned(), tuned(), single), rows)]
    for member in (single, *members.scorers):
        member.scale *= 10
    for model in (single, members):
        found = judged(Models(tuned(), tuned(), tuned(), model), rows)
        assert [p.log_odds for p in found] == pytest.approx(before, rel=1e-3)
    assert [p.scores[0] for p in found] == pytest.approx(
        reward.score_texts(members, tuned(), [r.prompt for r in rows], [r.chosen for r in rows]).tolist()
    )


# --- over-optimisation, diversity -----------------------------------------------------------------------------


@drawn(st.lists(st.floats(-3, 3), min_size=1, max_size=9), st.data())
def test_the_best_of_n_is_the_mean_over_all_subsets(values: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(values)))
    expected = mean(values[max(places)] for places in combinations(range(len(values)), n))
    assert overoptimisation.expected_best(values, n) == pytest.approx(expected, abs=1e-9)


def test_the_reward_of_the_best_of_more_never_falls_and_costs_more_divergence() -> None:
    config = EvaluateConfig(curve_prompts=8, curve_samples=20)
    points = overoptimisation.curve(config, tuned(), judge(), PROMPTS, 3)
    assert [point.n for point in points] == [1, 2, 4, 8, 16]
    assert points[0].kl == 0
    for fewer, more in pairwise(points):
        assert more.reward > fewer.reward
        assert more.kl > fewer.kl
    assert all(-1 <= point.gold <= 1 for point in points)
    assert overoptimisation.curve(config, tuned(), judge(), PROMPTS, 3) == points
    assert overoptimisation.curve(EvaluateConfig(curve_samples=0), tuned(), judge(), PROMPTS, 3) == []


def test_distinct_runs_of_words_are_counted_over_all_texts() -> None:
    assert distinct(["a b a", "a b c"], 1) == 0.5
    assert distinct(["a b a", "a b c"], 2) == 0.75
    assert distinct(["same text"] * 4, 2) == 0.25
    assert distinct(["", "one"], 2) == 0.0
