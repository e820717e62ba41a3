"""Laws of earned against proven: the integers of the line, words whose numbers add up, the way on as the score has it."""

from __future__ import annotations

import re
from math import isqrt
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from chain.reason import HUNDREDTH
from chain.spec import div, pay
from chain.surplus import MOST, Surplus, in_words, next_payment
from chain.types import ONE, Params, WalletState

COMPARISON = 6 * ONE
NUMBERS = re.compile(r"-?\d+\.\d\d")
NEW = WalletState()
rules = st.builds(
    Params,
    z_num=st.integers(0, 5),
    z_den=st.integers(1, 3),
    c0=st.sampled_from([0, 1, 7, 12]),
)
amounts = st.integers(-9, 9) | st.integers(-60 * COMPARISON, 60 * COMPARISON)
variances = st.integers(0, 9) | st.integers(0, 10**10)
states = st.just(NEW) | st.builds(
    WalletState, pay_g=amounts, pay_v=variances, pay_hmax=st.just(0) | st.integers(0, 50 * COMPARISON)
)


def line_of(before: WalletState, delta_g: int, delta_v: int, params: Params) -> dict[str, Any]:
    """Return what the bundle says of a wallet, as the specification pays it."""
    g, v, h, w = pay(before, delta_g, delta_v, params)
    after = {"payG": g, "payV": v, "payHmax": max(before.pay_hmax, h)}
    return {k: str(x) for k, x in (after | {"h": h, "w": w, "deltaG": delta_g}).items()}


@given(states, amounts, variances, rules)
def test_what_chance_may_explain_is_z_standard_deviations_and_nothing_is_left_over(
    before: WalletState, delta_g: int, delta_v: int, params: Params
) -> None:
    line = line_of(before, delta_g, delta_v, params)
    found = Surplus.of(line, params)
    assert found.chance == div(isqrt(int(line["payV"])) * 1000 * params.z_num, params.z_den)
    assert found.earned - found.chance - found.entry == found.stands
    assert (found.earned, found.stands, found.proven) == tuple(int(line[n]) for n in ("payG", "h", "payHmax"))
    assert found.held_back == max(0, found.earned - found.proven)


@given(states, amounts, variances, rules)
def test_one_unit_more_than_what_is_missing_is_paid_and_what_is_missing_is_not(
    before: WalletState, delta_g: int, delta_v: int, params: Params
) -> None:
    found = Surplus.of(line := line_of(before, delta_g, delta_v, params), params)
    after = WalletState(0, 0, int(line["payG"]), int(line["payV"]), int(line["payHmax"]))
    assert pay(after, found.missing, 0, params)[3] == 0
    assert pay(after, found.missing + 1, 0, params)[3] == 1


@given(states, amounts, variances, rules)
def test_the_numbers_in_words_are_the_lines_own_and_add_up(
    before: WalletState, delta_g: int, delta_v: int, params: Params
) -> None:
    found = Surplus.of(line_of(before, delta_g, delta_v, params), params)
    said = in_words(found, params)
    told = [int(n.replace(".", "")) for n in NUMBERS.findall(said)]
    earned, chance, entry, stands = told[:4]
    assert earned - chance - entry == stands
    for exact, shown in ((found.earned, earned), (found.entry, entry), (found.stands, stands)):
        assert 0 <= exact - shown * HUNDREDTH < HUNDREDTH
    # What the three others were rounded down by may add up to two hundredths.
    assert chance >= 0
    assert -HUNDREDTH < chance * HUNDREDTH - found.chance < 2 * HUNDREDTH
    if len(told) > 4:
        assert 0 <= found.proven - told[4] * HUNDREDTH < HUNDREDTH
        assert told[5] == told[4] - stands


@given(states, amounts, variances, rules)
@example(WalletState(pay_g=9 * COMPARISON, pay_hmax=8 * COMPARISON), 0, 0, Params())
def test_what_is_said_to_be_proven_is_so_and_nothing_else(
    before: WalletState, delta_g: int, delta_v: int, params: Params
) -> None:
    found = Surplus.of(line := line_of(before, delta_g, delta_v, params), params)
    said = in_words(found, params)
    if int(line["w"]):
        assert said.endswith("are proven")
    assert said.endswith("are proven") == (found.stands == found.proven > 0)
    assert ("nothing is proven" in said) == (found.proven == 0)
    assert ("before more is paid" in said) == (found.proven > max(0, found.stands))


@given(states, amounts, variances, rules, st.integers(1, 6000))
def test_the_next_payment_comes_after_just_so_much_work_of_the_same_kind(
    before: WalletState, delta_g: int, delta_v: int, params: Params, comparisons: int
) -> None:
    line = line_of(before, delta_g, delta_v, params)
    g, v, proven = (int(line[n]) for n in ("payG", "payV", "payHmax"))
    more = next_payment(g, v, comparisons, proven, params)
    assume(more is not None)
    assert more is not None
    after = WalletState(0, 0, g, v, proven)

    def paid(work: int) -> int:
        total = comparisons + work
        return pay(after, g * total // comparisons - g, v * total // comparisons - v, params)[3]

    assert more >= 1
    assert paid(more) > 0
    assert more == 1 or paid(more - 1) == 0


@given(states, amounts, variances, rules, st.integers(0, 6000))
def test_who_has_no_surplus_is_promised_no_payment_and_who_has_one_is_unless_it_is_far_off(
    before: WalletState, delta_g: int, delta_v: int, params: Params, comparisons: int
) -> None:
    line = line_of(before, delta_g, delta_v, params)
    g, v, proven = (int(line[n]) for n in ("payG", "payV", "payHmax"))
    more = next_payment(g, v, comparisons, proven, params)
    if g <= 0 or not comparisons:
        assert more is None
    elif more is None:
        total = comparisons + 6 * MOST
        after = WalletState(0, 0, g, v, proven)
        assert pay(after, g * total // comparisons - g, v * total // comparisons - v, params)[3] == 0


@pytest.mark.parametrize(
    ("before", "delta_g", "delta_v", "words"),
    [
        (
            NEW, 142 * COMPARISON // 10, 4_550**2 * 36,
            "surplus is 14.20, twice its standard deviation is 9.10, and 2.00 are the price of entry: 3.10 are proven",
        ),
        (NEW, COMPARISON, 0, "that leaves -1.00, and nothing is proven until it is above 0"),
        (
            WalletState(pay_g=9 * COMPARISON, pay_hmax=7 * COMPARISON), -COMPARISON, 0,
            "that leaves 6.00, and 7.00 were proven before: 1.00 are missing before more is paid",
        ),
    ],
)  # fmt: skip
def test_each_standing_has_its_words(before: WalletState, delta_g: int, delta_v: int, words: str) -> None:
    params = Params()
    assert words in in_words(Surplus.of(line_of(before, delta_g, delta_v, params), params), params)
