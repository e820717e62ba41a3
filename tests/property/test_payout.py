"""Laws of the division of money: nothing made, nothing lost, and totals that only grow."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain import payout, spec
from chain.errors import PayoutError
from chain.payout import UINT96_MAX, accumulate, allocate
from chain.types import Address, Wei

A, B, C = (Address("0x" + 40 * digit) for digit in "abc")
accounts = st.integers(1, 8).map(lambda i: Address(f"0x{i:040x}"))
amounts = (st.integers(0, 20) | st.integers(0, 10**27)).map(Wei)
weights_of = st.dictionaries(accounts, st.integers(0, 5) | st.integers(0, 10**20), max_size=8)
shares_of = st.dictionaries(accounts, amounts, max_size=5)


@given(amounts, weights_of)
@settings(deadline=None)
def test_shares_and_carry_are_the_amount_to_the_last_unit(amount: Wei, weights: dict[Address, int]) -> None:
    found = allocate(amount, weights)
    assert sum(found.shares.values()) + found.carry == amount
    assert found.carry == (0 if any(weights.values()) else amount)
    assert found == spec.allocate(amount, weights)


@given(amounts, weights_of)
@settings(deadline=None)
def test_every_share_is_the_exact_one_rounded_down_or_up(amount: Wei, weights: dict[Address, int]) -> None:
    total, shares = sum(weights.values()), allocate(amount, weights).shares
    assert list(shares) == sorted(weights)
    for account, weight in weights.items():
        assert abs(shares[account] * total - amount * weight) < max(total, 1)


@given(amounts, weights_of)
@settings(deadline=None)
def test_more_weight_never_gets_less_and_equal_weight_favours_the_lower_address(
    amount: Wei, weights: dict[Address, int]
) -> None:
    shares = allocate(amount, weights).shares
    ranked = sorted(weights, key=lambda a: (-weights[a], a))
    assert [shares[a] for a in ranked] == sorted(shares.values(), reverse=True)


@given(amounts, weights_of, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_weights_does_not_matter(
    amount: Wei, weights: dict[Address, int], luck: random.Random
) -> None:
    shuffled = dict(luck.sample(list(weights.items()), len(weights)))
    assert list(allocate(amount, shuffled).shares.items()) == list(allocate(amount, weights).shares.items())


@given(weights_of, st.integers(1, 10**6))
@settings(deadline=None)
def test_an_amount_that_divides_evenly_is_divided_evenly(weights: dict[Address, int], unit: int) -> None:
    found = allocate(Wei(sum(weights.values()) * unit), weights)
    assert found.shares == {a: w * unit for a, w in weights.items()}


@pytest.mark.parametrize("module", [payout, spec])
def test_the_units_left_over_go_to_the_largest_remainders_first(module: Any) -> None:
    assert module.allocate(Wei(10), {C: 5, A: 1, B: 1}).shares == {A: 2, B: 1, C: 7}
    assert module.allocate(Wei(1), {C: 1, B: 1}).shares == {B: 1, C: 0}
    assert module.allocate(Wei(3), {C: 3, B: 2, A: 0}).shares == {A: 0, B: 1, C: 2}


def test_negative_amounts_and_weights_are_refused_by_name() -> None:
    with pytest.raises(PayoutError, match="cannot divide -1"):
        allocate(Wei(-1), {A: 1})
    with pytest.raises(PayoutError, match=f"{B} has the negative weight -2"):
        allocate(Wei(1), {A: 3, B: -2})


def test_money_that_does_not_add_up_is_never_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payout, "_largest_remainder", lambda *_: {A: 6, B: 5})
    with pytest.raises(PayoutError, match="shares 11 and carry 0 are not the 10 to divide"):
        allocate(Wei(10), {A: 1, B: 1})


@given(shares_of, st.lists(shares_of, max_size=4))
@settings(deadline=None)
def test_totals_never_fall_and_grow_by_the_shares(
    previous: dict[Address, Wei], pools: list[dict[Address, Wei]]
) -> None:
    totals = accumulate(previous, pools)
    assert list(totals) == sorted(totals)
    assert all(totals.get(a, 0) >= v for a, v in previous.items())
    assert sum(totals.values()) == sum(previous.values()) + sum(sum(p.values()) for p in pools)
    assert all(totals.values())


@given(shares_of, st.lists(shares_of, max_size=4))
@settings(deadline=None)
def test_pools_may_be_added_at_once_or_one_by_one(
    previous: dict[Address, Wei], pools: list[dict[Address, Wei]]
) -> None:
    step = accumulate(previous, [])
    for pool in pools:
        step = accumulate(step, [pool])
    assert step == accumulate(previous, pools)


def test_a_total_fills_uint96_and_no_more() -> None:
    assert accumulate({A: Wei(UINT96_MAX - 1)}, [{A: Wei(1)}]) == {A: UINT96_MAX}
    with pytest.raises(PayoutError, match=f"{A} would have {2**96} in all"):
        accumulate({A: Wei(UINT96_MAX)}, [{A: Wei(1)}])


def test_a_negative_share_is_refused_by_name() -> None:
    with pytest.raises(PayoutError, match=f"{B} has the negative share -1"):
        accumulate({B: Wei(5)}, [{B: Wei(-1)}])
