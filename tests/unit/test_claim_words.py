"""What can be claimed later is told with when and how much, and what it takes to be paid again, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.contracts import Contract
from chain.types import Address
from service.cli.score import _history, _sentence, later_of
from service.cli.shared import Coin
from service.terminal import show_date, show_score

NOW = 1_900_000_000
DUSD = Coin(Contract("HapticToken", Address("0x" + "11" * 20)), "DUSD", 6)


def wallet(
    allotted: int, claimed: int, claimable: int, pending: int | None, left: int = 90
) -> dict[str, Any]:
    """Return a wallet as the service shows it, amounts in whole dollars."""
    waits = {"epoch": 3, "active_at": NOW + left, "claimable": str(10**6 * (pending or 0))}
    amounts = {"allotted": allotted, "claimed": claimed, "claimable": claimable}
    found: dict[str, Any] = {k: str(10**6 * v) for k, v in amounts.items()}
    return found | {"pending": None if pending is None else waits}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (wallet(7, 0, 0, 7), f"active at {show_date(NOW + 90)} (in 90 s), after its challenge window: then 7 DUSD"),
        (wallet(9, 2, 3, 7), "The root of epoch 3 becomes active at"),
        (wallet(7, 0, 0, 7, left=0), "The root of epoch 3 becomes active any moment now: then 7 DUSD can be"),
        (wallet(7, 2, 0, None), "5 DUSD more are allotted by a root that is not posted yet."),
        (wallet(7, 2, 1, 1), "4 DUSD more are allotted by a root that is not posted yet."),
        (wallet(7, 7, 0, None), ""),
        (wallet(7, 2, 5, 5), ""),
        (wallet(0, 0, 0, 0), ""),
        (wallet(0, 0, 0, None), ""),
    ],
)  # fmt: skip
def test_what_waits_for_a_root_is_told_with_its_time_and_amount(found: dict[str, Any], words: str) -> None:
    said = later_of(found, DUSD, NOW)
    assert words in said
    assert bool(said) == bool(words)


@given(st.integers(0, 9), st.integers(0, 9), st.none() | st.integers(0, 20), st.integers(0, 20))
def test_something_comes_later_exactly_where_more_was_allotted_than_can_be_claimed_now(
    claimed: int, claimable: int, pending: int | None, more: int
) -> None:
    pending = None if pending is None else min(pending, claimable + more)
    found = wallet(claimed + claimable + more, claimed, claimable, pending)
    assert bool(later_of(found, DUSD, NOW)) == bool(more)


@pytest.mark.parametrize(
    ("proven", "missing", "more", "words"),
    [
        (0, 7, None, "it is not paid again."),
        (5, 0, 1 / 6, "every epoch pays it."),
        (5, 1, 1 / 6, "it is paid again after about 1 comparison more."),
        (0, 0, 1 / 6, "it is paid again after about 1 comparison more."),
        (5, 9, 2345.6, "it is paid again after about 2,346 comparisons more."),
    ],
)
def test_who_is_paid_steadily_is_not_told_to_wait_for_one_comparison_more(
    proven: int, missing: int, more: float | None, words: str
) -> None:
    earned = {"words": "…", "proven": str(proven), "missing": str(missing), "next_payment": more}
    assert _sentence(earned) == f"Over all epochs …; going on like this, {words}"


@given(*[st.integers(0, 10**12)] * 4)
def test_a_row_of_the_history_adds_up_and_is_rounded_as_all_else_is(
    earned: int, chance: int, entry: int, proven: int
) -> None:
    units = {
        "surplus": earned,
        "chance": chance,
        "entry": entry,
        "stands": earned - chance - entry,
        "proven": proven,
    }
    point = {n: x / 6_000_000 for n, x in units.items()} | {"quality": 0.5, "low": 0.4, "high": 0.6}
    table = _history([point | {"epoch": 0, "place": 1, "allotted": "0"}], DUSD)
    told = {str(column.header): next(iter(column.cells)) for column in table.columns}
    assert [told[n] for n in ("surplus", "entry", "stands", "proven")] == [
        show_score(units[n]) for n in ("surplus", "entry", "stands", "proven")
    ]
    surplus, chance, entry, stands = (
        int(told[n].replace(".", "")) for n in ("surplus", "chance", "entry", "stands")
    )
    assert surplus - chance - entry == stands
