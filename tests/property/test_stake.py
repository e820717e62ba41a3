"""Laws of time-weighted stake: the fold is the integral, second by second, wherever the interval is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.errors import ChainError
from chain.stake import Change, StakeAccount, fold, mean_stake, stake_seconds
from chain.types import Address, Wei

ALICE, BOB, CAROL = (Address("0x" + 40 * digit) for digit in "abc")
END = 30


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    steps = st.tuples(st.sampled_from([ALICE, BOB]), st.integers(0, 4), st.integers(0, 5))
    drawn = draw(st.lists(steps, max_size=10))
    times = itertools.accumulate(dt for _, _, dt in drawn)
    return [Change(account, Wei(staked), t) for (account, staked, _), t in zip(drawn, times, strict=True)]


def stake_during(changes: list[Change], account: Address, second: int) -> int:
    return next(
        (c.staked_after for c in reversed(changes) if c.account == account and c.timestamp <= second), 0
    )


def seconds(changes: list[Change], account: Address, at: int) -> int:
    return stake_seconds(fold(changes, at).get(account), at)


@given(histories(), st.integers(0, 60))
@settings(deadline=None)
def test_the_fold_is_the_sum_of_stake_over_every_second(changes: list[Change], at: int) -> None:
    for account in (ALICE, BOB, CAROL):
        assert seconds(changes, account, at) == sum(stake_during(changes, account, t) for t in range(at))


@given(histories(), st.integers(0, END), st.integers(0, END))
@settings(deadline=None)
def test_an_interval_cut_in_two_adds_up(changes: list[Change], cut: int, rest: int) -> None:
    standing = [Change(a, s.staked, cut) for a, s in fold(changes, cut).items()]
    after = standing + [c for c in changes if c.timestamp > cut]
    for account in (ALICE, BOB):
        whole = seconds(changes, account, cut + rest)
        assert whole == seconds(changes, account, cut) + seconds(after, account, cut + rest)


@given(histories(), st.integers(0, END))
@settings(deadline=None)
def test_a_change_in_the_last_second_adds_nothing_to_what_came_before(changes: list[Change], at: int) -> None:
    earlier = [c for c in changes if c.timestamp < at]
    for account in (ALICE, BOB):
        assert seconds(changes, account, at) == seconds(earlier, account, at)


@given(histories(), st.integers(0, END), st.integers(1, END))
@settings(deadline=None)
def test_the_mean_lies_between_the_lowest_and_the_highest_stake(
    changes: list[Change], start: int, length: int
) -> None:
    held = [stake_during(changes, ALICE, t) for t in range(start, start + length)]
    mean = mean_stake(seconds(changes, ALICE, start), seconds(changes, ALICE, start + length), length)
    assert min(held) <= mean <= max(held)
    assert mean * length <= sum(held) < (mean + 1) * length


def test_the_slot_is_the_one_that_the_vault_stores() -> None:
    changes = [
        Change(ALICE, Wei(5), 10),
        Change(BOB, Wei(1), 12),
        Change(ALICE, Wei(2), 14),
        Change(ALICE, Wei(9), 20),
    ]
    assert fold(changes, 19) == {ALICE: StakeAccount(Wei(2), 14, 20), BOB: StakeAccount(Wei(1), 12, 0)}
    assert seconds(changes, ALICE, 19) == 20 + 2 * 5


def test_who_never_staked_has_no_stake_seconds() -> None:
    assert stake_seconds(None, 10**9) == 0


def test_a_time_before_the_last_change_is_refused_as_by_the_vault() -> None:
    with pytest.raises(ChainError, match="at 13 are gone: the account changed at 14"):
        stake_seconds(StakeAccount(Wei(2), 14, 20), 13)


def test_events_out_of_order_are_refused() -> None:
    with pytest.raises(ChainError, match=r"timestamp=9.* comes after a change at 10"):
        fold([Change(ALICE, Wei(5), 10), Change(BOB, Wei(5), 9)], 20)


@pytest.mark.parametrize(("start", "end", "length"), [(5, 4, 10), (4, 5, 0), (4, 5, -1)])
def test_stake_seconds_that_fall_or_an_empty_interval_have_no_mean(start: int, end: int, length: int) -> None:
    with pytest.raises(ChainError, match=rf"{start} to {end} in {length} s"):
        mean_stake(start, end, length)
