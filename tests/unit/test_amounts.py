"""An amount that a person types is exactly the units that are sent, or it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.shared import AmountError, parse_amount, show_amount

amounts = st.integers(1, 2**96 - 1) | st.integers(1, 10**7)
decimals = st.sampled_from([0, 1, 6, 18])


@given(amounts, decimals)
def test_what_is_shown_is_read_back_to_the_last_unit(units: int, places: int) -> None:
    assert parse_amount(show_amount(units, places).replace(",", ""), places) == units


@given(amounts, decimals, st.integers(0, 18))
def test_zeros_after_the_last_digit_change_nothing(units: int, places: int, zeros: int) -> None:
    whole, _, part = show_amount(units, places).replace(",", "").partition(".")
    padded = f"{whole}.{part.ljust(min(len(part) + zeros, places), '0')}"
    assert parse_amount(padded, places) == units


@given(st.text(max_size=8), decimals)
def test_whatever_is_typed_is_an_amount_in_range_or_refused(text: str, places: int) -> None:
    try:
        units = parse_amount(text, places)
    except AmountError:
        return
    assert 0 < units < 2**96
    assert parse_amount(show_amount(units, places).replace(",", ""), places) == units


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "0",
        "0.0",
        "-1",
        "+1",
        "1e3",
        "1,5",
        "1.2.3",
        "0x10",
        "1.0000001",
        "²",
        "\u0661",
        "nan",
        "inf",
        "79228162514264337593543950336",
    ],
)
def test_what_is_no_amount_of_six_decimals_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(AmountError) as caught:
        parse_amount(text, 6)
    assert text in str(caught.value)


def test_the_largest_amount_is_what_the_contracts_hold() -> None:
    assert parse_amount("79228162514264337593543950335", 0) == 2**96 - 1
    with pytest.raises(AmountError, match="uint96"):
        parse_amount("79228162514264337593543950336", 0)
