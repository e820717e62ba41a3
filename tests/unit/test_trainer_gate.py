"""The gate: how seldom it lets a coin through and how seldom it holds a better policy back, summed exactly."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import ConfigError
from trainer.gate import ALPHA, Decision, decide, luck

COUNTS = st.integers(0, 300)


def promoted(needed: int, share: Fraction) -> Fraction:
    """Return the exact probability that a candidate judged better with this probability is promoted."""
    return sum(
        (
            comb(needed, won) * share**won * (1 - share) ** (needed - won)
            for won in range(needed + 1)
            if decide(won, needed - won, needed) == "promoted"
        ),
        Fraction(0),
    )


@pytest.mark.parametrize("needed", [1, 5, 6, 7, 40, 199, 200, 801])
def test_a_coin_is_promoted_in_at_most_alpha_of_all_cases(needed: int) -> None:
    assert promoted(needed, Fraction(1, 2)) <= ALPHA


@pytest.mark.parametrize(
    ("needed", "share", "least"),
    [
        (200, "0.628", 0.94), (200, "0.7", 0.999), (800, "0.55", 0.79), (800, "0.58", 0.99),
        (100, "0.6", 0.46), (200, "0.6", 0.78), (200, "0.65", 0.98), (400, "0.6", 0.97),
    ],
)  # fmt: skip
def test_a_better_policy_is_promoted_as_often_as_the_gate_says(needed: int, share: str, least: float) -> None:
    assert promoted(needed, Fraction(share)) >= least


def test_a_worse_policy_is_hardly_ever_promoted() -> None:
    assert promoted(800, Fraction("0.45")) < 1e-6


@given(COUNTS, COUNTS)
def test_luck_is_the_tail_of_the_binomial_and_the_two_sides_are_treated_alike(won: int, lost: int) -> None:
    n = won + lost
    tail = Fraction(sum(comb(n, k) for k in range(won, n + 1)), 2**n)
    assert luck(won, lost) == pytest.approx(float(tail), rel=1e-12)
    both = luck(won, lost) + luck(
        lost, won
    )  # the two tails together are everything, and share what was counted
    assert both == pytest.approx(1 + comb(n, won) / 2**n, rel=1e-12)
    assert {decide(won, lost, 0), decide(lost, won, 0)} != {"promoted"}


@given(COUNTS, COUNTS, st.integers(0, 600))
def test_more_wins_never_unmake_a_promotion_and_more_losses_never_make_one(
    won: int, lost: int, needed: int
) -> None:
    order: dict[Decision, int] = {"waiting": 0, "rolled back": 0, "promoted": 1}
    now = order[decide(won, lost, needed)]
    assert order[decide(won + 1, lost, needed)] >= now
    if won + lost >= needed:
        assert order[decide(won, lost + 1, needed)] <= now


@given(COUNTS, COUNTS, st.integers(0, 600))
def test_nothing_is_decided_before_as_many_were_judged_as_are_needed_and_all_then(
    won: int, lost: int, needed: int
) -> None:
    assert (decide(won, lost, needed) == "waiting") == (won + lost < needed)


@pytest.mark.parametrize(("won", "lost"), [(-1, 5), (5, -1)])
def test_a_count_that_is_negative_is_refused_by_its_value(won: int, lost: int) -> None:
    with pytest.raises(ConfigError, match=rf"{won} won and {lost} lost"):
        decide(won, lost, 1)
