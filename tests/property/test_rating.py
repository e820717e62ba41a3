"""Ratings: the maximum of the likelihood, equal to a library's, finite for the undefeated, with honest intervals."""

from __future__ import annotations

import math
import random

import evalica
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import RatingError
from trainer.rating import Rating, Result, rate

NAMES = ["a", "b", "c", "d"]
pairs = st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True)
results = st.lists(
    st.builds(
        lambda pair, weight, tie: Result(pair[0], pair[1], weight, tie),
        pairs,
        st.integers(1, 5).map(float),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


def strengths(rated: list[Rating]) -> dict[str, float]:
    return {rating.name: rating.strength for rating in rated}


@given(results)
def test_at_the_estimate_everyone_won_as_often_as_expected(drawn: list[Result]) -> None:
    prior = 0.5
    found = strengths(rate(drawn, prior=prior))
    for name, strength in found.items():
        won, expected = prior, 2 * prior / (1 + math.exp(-strength))
        for result in drawn:
            if name in {result.winner, result.loser}:
                rival = result.loser if name == result.winner else result.winner
                expected += result.weight / (1 + math.exp(found[rival] - strength))
                won += result.weight * (0.5 if result.tie else float(name == result.winner))
        assert won == pytest.approx(expected, abs=1e-6)


@given(results, st.lists(st.sampled_from([1.0, 1e3, 1e6]), min_size=20, max_size=20))
def test_it_is_so_though_games_are_many_and_the_prior_is_nothing_beside_them(
    drawn: list[Result], weights: list[float]
) -> None:
    many = [Result(r.winner, r.loser, w, r.tie) for r, w in zip(drawn, weights, strict=False)]
    found = strengths(rate(many))
    for name, strength in found.items():
        won, expected = 0.5, 1 / (1 + math.exp(-strength))
        for result in many:
            if name in {result.winner, result.loser}:
                rival = result.loser if name == result.winner else result.winner
                expected += result.weight / (1 + math.exp(found[rival] - strength))
                won += result.weight * (0.5 if result.tie else float(name == result.winner))
        assert won == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(results, st.randoms(use_true_random=False))
def test_the_order_of_results_and_the_way_they_are_summed_change_nothing(
    drawn: list[Result], shuffle: random.Random
) -> None:
    ones = [Result(r.winner, r.loser, 1.0, r.tie) for r in drawn for _ in range(int(r.weight))]
    shuffle.shuffle(ones)
    assert strengths(rate(ones)) == pytest.approx(strengths(rate(drawn)), abs=1e-7)


@given(results)
def test_turning_every_result_round_turns_every_strength_round(drawn: list[Result]) -> None:
    turned = strengths(rate([Result(r.loser, r.winner, r.weight, r.tie) for r in drawn]))
    assert turned == pytest.approx({name: -s for name, s in strengths(rate(drawn)).items()}, abs=1e-7)


@given(results)
def test_a_tie_is_half_a_win_for_each(drawn: list[Result]) -> None:
    halves = [
        half
        for r in drawn
        for half in (
            (Result(r.winner, r.loser, r.weight / 2), Result(r.loser, r.winner, r.weight / 2))
            if r.tie
            else (r,)
        )
    ]
    assert strengths(rate(halves)) == pytest.approx(strengths(rate(drawn)), abs=1e-7)


@given(results, pairs)
def test_one_more_win_never_lowers_the_winner_nor_raises_the_loser(
    drawn: list[Result], pair: list[str]
) -> None:
    known = [*drawn, Result(pair[0], pair[1], 1e-9)]
    before, after = strengths(rate(known)), strengths(rate([*known, Result(pair[0], pair[1])]))
    assert after[pair[0]] >= before[pair[0]] - 1e-7
    assert after[pair[1]] <= before[pair[1]] + 1e-7


@given(st.lists(st.integers(1, 9), min_size=12, max_size=12))
def test_without_prior_it_is_the_maximum_likelihood_that_evalica_finds(counts: list[int]) -> None:
    duels = [(a, b) for a in NAMES for b in NAMES if a != b]
    ours = rate([Result(a, b, float(n)) for (a, b), n in zip(duels, counts, strict=True)], prior=0)
    theirs = evalica.bradley_terry(
        [a for a, _ in duels],
        [b for _, b in duels],
        [evalica.Winner.X] * len(duels),
        weights=[float(n) for n in counts],
        tolerance=1e-12,
        limit=100_000,
    ).scores
    logs = {name: math.log(theirs[name]) for name in NAMES}
    mean = sum(logs.values()) / len(logs)
    assert strengths(ours) == pytest.approx({name: s - mean for name, s in logs.items()}, abs=1e-5)


def test_two_models_by_hand() -> None:
    # 3 wins to 1 without prior: odds 3, strengths ±½·log 3; information 4·¾·¼ on the difference.
    best, worst = rate([Result("a", "b", 3.0), Result("b", "a", 1.0)], prior=0)
    assert (best.name, worst.name) == ("a", "b")
    assert best.strength == pytest.approx(0.5 * math.log(3))
    # The difference has variance 1/0.75, each strength (half of it) a quarter of that.
    assert best.high - best.strength == pytest.approx(1.959964 * math.sqrt(1 / 0.75 / 4), rel=1e-6)
    assert best.comparisons == 4.0


def test_the_undefeated_stay_finite_and_more_evidence_narrows_the_interval() -> None:
    few = rate([Result("a", "b", 2.0)])[0]
    many = rate([Result("a", "b", 200.0)])[0]
    assert 0 < few.strength < many.strength < 10
    even = [rate([Result("a", "b", n), Result("b", "a", n)])[0] for n in (5.0, 500.0)]
    assert even[1].high - even[1].low < even[0].high - even[0].low
    assert all(rating.low < rating.strength < rating.high for rating in (few, many, *even))


def test_without_prior_the_undefeated_and_the_unconnected_are_refused() -> None:
    with pytest.raises(RatingError, match="prior above 0"):
        rate([Result("a", "b")], prior=0)
    both_ways = [Result("a", "b"), Result("b", "a"), Result("c", "d"), Result("d", "c")]
    with pytest.raises(RatingError, match="prior above 0"):
        rate(both_ways, prior=0)
    assert strengths(rate(both_ways)) == pytest.approx(dict.fromkeys("abcd", 0.0), abs=1e-9)


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    truth, draw, inside = {"a": 0.8, "b": 0.0, "c": -0.8}, random.Random(1), 0
    for _ in range(200):
        drawn = []
        for one, other in (("a", "b"), ("b", "c"), ("a", "c")) * 60:
            won = draw.random() < 1 / (1 + math.exp(truth[other] - truth[one]))
            drawn.append(Result(one, other) if won else Result(other, one))
        inside += sum(r.low <= truth[r.name] <= r.high for r in rate(drawn, prior=0))
    assert 0.92 <= inside / 600 <= 0.98


@pytest.mark.parametrize("result", [Result("a", "a"), Result("a", "b", 0.0), Result("a", "b", math.nan)])
def test_a_result_that_is_no_comparison_is_refused(result: Result) -> None:
    with pytest.raises(RatingError, match="is no comparison"):
        rate([result])


def test_nothing_compared_is_nothing_rated() -> None:
    assert rate([]) == []
