"""Laws of the reason: who scored nothing is told every cause of it, who scored is told nothing, numbers are true."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chain.reason import why_zero
from chain.spec import haptic_score, pay
from chain.types import ONE, Params, Ratio, WalletState

COMPARISON = 6 * ONE
NUMBERS = re.compile(r"-?\d+\.\d\d")
V1, NEW = Params(), WalletState()


def row(
    before: WalletState = NEW, *, delta_g: int = 0, delta_v: int = 0, stake: int = 10**20,
    comparisons: int = 6, d: int = 6 * ONE,
) -> dict[str, Any]:  # fmt: skip
    """Return the bundle's row of a wallet, as the specification pays and scores it."""
    _, _, h, w = pay(before, delta_g, delta_v, V1)
    score = haptic_score(w, stake, Ratio(V1.lambda0_num, V1.lambda0_den), V1)
    return {
        "comparisons": comparisons, "d": str(d), "deltaG": str(delta_g), "h": str(h), "w": str(w),
        "payHmax": str(max(before.pay_hmax, h)), "stake": str(stake), "score": str(score),
    }  # fmt: skip


states = st.builds(
    WalletState,
    pay_g=st.integers(-50 * COMPARISON, 50 * COMPARISON),
    pay_v=st.integers(0, 10**10),
    pay_hmax=st.just(0) | st.integers(0, 50 * COMPARISON),
)
rows = st.builds(
    row,
    states,
    delta_g=st.integers(-9, 9) | st.integers(-60 * COMPARISON, 60 * COMPARISON),
    delta_v=st.integers(0, 10**10),
    stake=st.sampled_from([0, 1, 10**20]),
    comparisons=st.integers(0, 60),
    d=st.integers(0, 9),
)


@given(rows)
def test_who_scored_nothing_is_told_why_and_who_scored_is_told_nothing(wallet: dict[str, Any]) -> None:
    assert bool(why_zero(wallet)) == (wallet["score"] == "0")


@given(rows)
def test_stake_is_named_exactly_where_none_stood_or_it_was_too_little(wallet: dict[str, Any]) -> None:
    said = why_zero(wallet)
    assert ("no stake stood behind it" in said) == (wallet["stake"] == "0")
    too_little = wallet["w"] != "0" and wallet["stake"] != "0" and wallet["score"] == "0"
    assert ("too little to count: 1 of" in said) == too_little


@given(rows)
def test_exactly_one_cause_is_named_where_nothing_was_proven(wallet: dict[str, Any]) -> None:
    said = why_zero(wallet)
    named = [
        x
        for x in ("nothing was compared", "nothing says whether", "not proven yet", "proved nothing new")
        if x in said
    ]
    assert len(named) == (wallet["w"] == "0")
    if named:
        compared, known = bool(wallet["comparisons"]), wallet["d"] != "0"
        assert ("nothing was compared" in said) == (not compared)
        assert ("nothing says whether" in said) == (compared and not known)
        assert ("coin" in said) == (compared and known and int(wallet["deltaG"]) <= 0)


@given(rows)
def test_a_number_that_is_told_is_true_to_a_hundredth_and_never_reached_early(wallet: dict[str, Any]) -> None:
    numbers = NUMBERS.findall(why_zero(wallet))
    assume(numbers)
    for text, exact in zip(numbers, (int(wallet["h"]), int(wallet["payHmax"])), strict=False):
        told = int(text.replace(".", "")) * COMPARISON // 100
        assert told <= exact < told + COMPARISON // 100
    assert (len(numbers) == 2) == (wallet["payHmax"] != "0")


@pytest.mark.parametrize(
    ("wallet", "words"),
    [
        (row(stake=0, delta_g=9 * COMPARISON), ["no stake stood behind it over the epoch"]),
        (row(comparisons=0, d=0), ["every ranking of it was a tie or flagged"]),
        (row(d=0), ["nobody whose word counts compared the same"]),
        (row(delta_g=COMPARISON), ["not proven yet", "at -1.00 comparisons, and counts above 0"]),
        (row(delta_g=0), ["at -2.00 comparisons", "no more than a coin does"]),
        (
            row(WalletState(pay_g=9 * COMPARISON, pay_hmax=8 * COMPARISON), stake=0, delta_g=1),
            ["proved nothing new", "at 7.00 comparisons, and 8.00 were scored before", "; no stake"],
        ),
        (row(delta_g=9 * COMPARISON, stake=1), ["too little to count: 1 of the token's smallest units"]),
    ],
)  # fmt: skip
def test_each_cause_has_its_words(wallet: dict[str, Any], words: list[str]) -> None:
    assert [w for w in words if w not in why_zero(wallet)] == []
