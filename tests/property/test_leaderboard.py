"""Laws of the leaderboard: bounds hold the truth, luck and volume lift nobody, pages are one order."""

from __future__ import annotations

from itertools import pairwise
from math import fsum
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.leaderboard import LEAST, SIXTH, SQUARE, WINDOWS, Board, Boards, Merit, interval

surpluses = st.lists(st.floats(-1, 1), max_size=60)


def bounds(drawn: list[float]) -> tuple[float, float, float]:
    return interval(fsum(drawn), fsum(x * x for x in drawn), len(drawn))


def merit_of(name: str, drawn: list[float], epochs: int = 1) -> Merit:
    """Return judgements of a comparison each as the database adds them up."""
    squares = fsum(x * x for x in drawn)
    return Merit(name, epochs, 6 * len(drawn), SIXTH * fsum(drawn), SQUARE * squares)


@given(surpluses)
def test_the_quality_that_was_seen_is_within_its_bounds(drawn: list[float]) -> None:
    quality, low, high = bounds(drawn)
    assert low <= quality <= high or quality == pytest.approx(high) or quality == pytest.approx(low)


@given(surpluses)
def test_who_is_mirrored_has_mirrored_bounds(drawn: list[float]) -> None:
    quality, low, high = bounds(drawn)
    assert bounds([-x for x in drawn]) == pytest.approx((-quality, -high, -low))


@pytest.mark.parametrize("skill", [0.5, 0.65, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 5, 20, 200])
def test_ninety_five_of_a_hundred_intervals_hold_the_true_quality(skill: float, count: int) -> None:
    luck, held = Random(f"{skill} {count}"), 0
    for _ in range(1000):
        _, low, high = bounds([1 if luck.random() < skill else -1 for _ in range(count)])
        held += low <= 2 * skill - 1 <= high
    # Of 1,000, twice the deviation of 950 is 14.
    assert held >= 936, held


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_no_volume_of_guesses_has_a_lower_bound_above_nothing(count: int, size: float) -> None:
    assert interval(0, count * size, count).low < 0


@given(surpluses.filter(bool), st.integers(2, 50))
def test_more_of_the_same_good_work_is_more_certain_and_never_better_than_it_is(
    drawn: list[float], times: int
) -> None:
    assume(fsum(drawn) > 0)
    less, more = bounds(drawn), bounds(drawn * times)
    assert more[0] == pytest.approx(less[0])
    assert less[1] < more[1] < more[0]


def test_a_lucky_handful_stands_behind_proven_work_and_mere_volume_behind_skill() -> None:
    handful, skilled = bounds([1.0] * 5), bounds([1.0] * 80 + [-1.0] * 20)
    assert handful[0] > skilled[0]
    assert handful[1] < skilled[1]
    volume = bounds(([1.0] * 13 + [-1.0] * 7) * 500)
    assert bounds([1.0] * 19 + [-1.0])[1] > volume[1]


wallets = st.lists(
    st.tuples(st.sampled_from([1, LEAST - 1, LEAST, LEAST + 1, 40]), st.sampled_from([-0.5, 0.0, 0.5, 1.0])),
    max_size=12,
)


@given(wallets, st.integers(1, 5))
def test_pages_are_the_whole_order_of_those_who_compared_enough(
    drawn: list[tuple[int, float]], limit: int
) -> None:
    found = [merit_of(f"0x{i:02d}", [size] * count, i + 1) for i, (count, size) in enumerate(drawn)]
    board, told = Board(reversed(found)), []
    while page := list(board.page(len(told), limit)):
        told += page
    assert [place for place, _ in told] == list(range(1, len(board) + 1))
    assert sorted(m for _, m in told) == [m for m in found if m.comparisons >= 6 * LEAST]
    for (_, a), (_, b) in pairwise(told):
        assert a.interval.low > b.interval.low or (a.interval.low == b.interval.low and a.wallet < b.wallet)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from(WINDOWS)), max_size=100))
def test_whatever_is_asked_no_leaderboard_is_put_together_again_before_the_next_close(
    asked: list[tuple[int, bool, int]],
) -> None:
    """Each that may be asked for was, after each close: every window, of the last epoch and of the one before."""
    boards, closed = Boards(), 0
    made: list[int] = []

    def read() -> list[Merit]:
        made.append(closed)
        return []

    for later, before, window in [(0, False, 0), *asked]:
        if later == 0:
            closed += 1
            for last in (closed - 1, closed):
                for first in WINDOWS:
                    boards.find(f"0x{last}", first, list)
        boards.find(f"0x{closed - before}", window, read)
    assert not made


def test_a_leaderboard_is_put_together_once_for_each_close_and_window() -> None:
    boards, read = Boards(), []

    def merits() -> list[Merit]:
        read.append(1)
        return [merit_of("0xaa", [1.0] * 20 * len(read))]

    first = boards.find("0x1", 0, merits)
    assert boards.find("0x1", 0, merits) is first
    assert boards.find("0x1", 1, merits) is not first
    assert boards.find("0x2", 0, merits) is not first
    assert len(read) == 3
