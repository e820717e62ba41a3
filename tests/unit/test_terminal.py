"""Times are told to people in words that fit, and never too early."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.surplus import Surplus, in_words
from chain.types import ONE, Params
from service.terminal import show_date, show_score, show_span, show_time, show_wait, show_when


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (121, "3 min"),
        (119 * 60, "119 min"),
        (119 * 60 + 1, "2 h"),
        (47 * 3600, "47 h"),
        (47 * 3600 + 1, "2 days"),
        (604_800, "7 days"),
    ],
)
def test_a_wait_is_told_in_the_unit_that_fits(seconds: int, words: str) -> None:
    assert show_wait(seconds) == words


@given(st.integers(0, 10**8))
def test_who_waits_as_long_as_was_said_never_comes_too_early(seconds: int) -> None:
    amount, unit = show_wait(seconds).split()
    assert int(amount) * {"s": 1, "min": 60, "h": 3600, "days": 86_400}[unit] >= seconds


@given(st.integers(0, 4 * 10**9), st.integers(-(10**7), 10**7))
def test_a_date_is_told_with_how_long_that_is_from_now(timestamp: int, left: int) -> None:
    date, _, wait = show_when(timestamp, timestamp - left).partition(" (")
    assert date == show_date(timestamp)
    assert wait == (f"in {show_wait(left)})" if left >= 0 else f"{show_wait(-left)} ago)")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (600, "600 s (10 min)"),
        (601, "601 s (11 min)"),
        (604_800, "604800 s (7 days)"),
    ],
)
def test_a_length_of_time_is_told_to_the_second_and_in_the_unit_that_fits(seconds: int, words: str) -> None:
    assert show_span(seconds) == words


def test_a_time_of_day_is_that_of_this_machine() -> None:
    made = time.mktime((2030, 5, 6, 14, 5, 59, 0, 0, -1))
    assert show_time(int(made)) == "14:05"


@given(st.integers(-(10**13), 10**13) | st.integers(-9, 9))
def test_a_score_in_a_table_is_told_as_in_the_sentence_below_it(surplus: int) -> None:
    entry = Params().c0 * ONE
    said = in_words(Surplus(surplus, 0, entry, surplus - entry, 0), Params())
    assert said.startswith(f"its surplus is {show_score(surplus)}, ")
