"""What is offered per gas is enough, rises so that pools take it, and stays below the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import ChainError
from chain.fees import (
    GWEI,
    UNLIMITED,
    Offer,
    first_offer,
    is_overtaken,
    next_offer,
    raised,
    shortage,
    show_coin,
    show_gwei,
)
from chain.types import Wei

FEES = st.one_of(st.integers(0, 20), st.integers(0, 10**12)).map(Wei)


@st.composite
def _offers(draw: st.DrawFn) -> Offer:
    tip = draw(FEES)
    return Offer(Wei(tip + draw(FEES)), tip)


@given(FEES, FEES)
def test_the_first_offer_is_taken_by_the_next_block_and_after_its_base_fee_doubled(
    base: Wei, tip: Wei
) -> None:
    offer = first_offer(base, tip)
    assert not is_overtaken(offer, base, tip)
    assert not is_overtaken(offer, Wei(2 * base), tip)


@given(_offers(), FEES, FEES)
def test_what_replaces_an_offer_is_an_eighth_higher_in_both_fees_and_is_taken_now(
    last: Offer, base: Wei, tip: Wei
) -> None:
    offer = next_offer(last, base, tip)
    for before, after in zip(last, offer, strict=True):
        assert 8 * after >= 9 * before
        assert after > before
    assert not is_overtaken(offer, base, tip)
    assert offer.tip <= offer.max_fee


@given(FEES)
def test_a_raise_is_the_least_that_is_an_eighth_and_more(fee: Wei) -> None:
    less = raised(fee) - 1
    assert less <= fee or 8 * less < 9 * fee


@given(_offers(), FEES, FEES)
def test_an_offer_is_overtaken_when_the_next_block_takes_none_or_is_left_less_than_the_usual_tip(
    offer: Offer, base: Wei, tip: Wei
) -> None:
    left = min(offer.tip, offer.max_fee - base)
    assert is_overtaken(offer, base, tip) == (left < tip)


@given(st.one_of(st.none(), _offers()), FEES, FEES, st.integers(-3, 3) | st.integers(0, 10**6))
def test_no_offer_is_above_the_limit_and_there_is_one_wherever_the_limit_allows_it(
    last: Offer | None, base: Wei, tip: Wei, slack: int
) -> None:
    least = base + tip
    if last is not None:
        least = max(raised(last.max_fee), base + max(raised(last.tip), tip))
    limit = Wei(max(0, least + slack))
    if least > limit:
        with pytest.raises(ChainError, match=r"HAPTIC_MAX_FEE_GWEI"):
            first_offer(base, tip, limit) if last is None else next_offer(last, base, tip, limit)
    else:
        offer = first_offer(base, tip, limit) if last is None else next_offer(last, base, tip, limit)
        assert least <= offer.max_fee <= limit
        assert not is_overtaken(offer, base, tip)


@given(st.integers(0, UNLIMITED))
def test_an_amount_is_shown_exactly(wei: int) -> None:
    eth, unit, _, _ = show_coin(wei).split()
    whole, _, part = eth.partition(".")
    assert unit == "ETH"
    assert int(whole) * 10**18 + int(part.ljust(18, "0") or 0) == wei
    assert not part.endswith("0")


def test_what_is_missing_is_said_in_both_units() -> None:
    assert show_coin(1_500_000_000_000_000_000) == "1.5 ETH (1500000000000000000 wei)"
    assert show_gwei(61 * GWEI // 2) == "30.5 gwei"
    assert str(shortage("0xab", 5, 10**18)).startswith(
        "0xab has 0.000000000000000005 ETH (5 wei), but its transaction may need 1 ETH (1000000000000000000 wei): "
        "0.999999999999999995 ETH (999999999999999995 wei) are missing"
    )
