"""Both implementations of HapticScore v1 against vectors from a third, to the last bit."""

from __future__ import annotations

import hashlib
import json
from math import log, tanh
from pathlib import Path
from typing import Any

import pytest

from chain import payout, score, spec
from chain.tables import LOGIT, TABLE_SHA256, TANH
from chain.types import Address, Pair, Params, Ratio, Row, WalletState, Wei

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors/hapticscore_v1.json").read_text()
)
PARAMS = Params()
ACCOUNTS = [Address(f"0x{i:040x}") for i in range(VECTORS["wallets"])]


def fast(rows: list[Row], pairs: list[Pair], states: list[WalletState]) -> Any:
    return score.score(score.Rows.of(rows), score.Pairs.of(pairs), states, PARAMS)


def plain(rows: list[Row], pairs: list[Pair], states: list[WalletState]) -> Any:
    return spec.score(rows, pairs, states, PARAMS)


def test_the_stored_tables_are_the_frozen_ones() -> None:
    text = ",".join(map(str, LOGIT)) + "|" + ",".join(map(str, TANH))
    assert hashlib.sha256(text.encode()).hexdigest() == TABLE_SHA256
    assert TABLE_SHA256 == "162efc512ea4238a9f03738e38b4da36020b197281ee7adc02872e3c2ba5f6dd"


def test_the_tables_are_the_rounded_functions_of_their_definition() -> None:
    assert LOGIT[0] == LOGIT[1000] == 0
    assert len(LOGIT) == 1001
    assert len(TANH) == 801
    assert all(abs(LOGIT[k] - 1e6 * log(k / (1000 - k))) < 0.501 for k in range(1, 1000))
    assert all(abs(TANH[k] - 1e6 * tanh(0.005 * k)) < 0.501 for k in range(801))


@pytest.mark.parametrize("run", [fast, plain])
def test_two_chained_epochs_give_the_vectors_to_the_last_bit(run: Any) -> None:
    states = [WalletState()] * VECTORS["wallets"]
    for epoch in VECTORS["epochs"]:
        result = run([Row(*r) for r in epoch["rows"]], [Pair(*p) for p in epoch["pairs"]], states)
        states = [w.state for w in result.wallets]
        found = [[w.a, w.state.pay_g, w.state.pay_v, w.state.pay_hmax, w.w] for w in result.wallets]
        assert found == epoch["expect"]


@pytest.mark.parametrize("module", [score, spec])
@pytest.mark.parametrize("epoch", VECTORS["epochs"])
def test_the_weighted_median_is_that_of_the_vectors(module: Any, epoch: dict[str, Any]) -> None:
    ws = {a: e[4] for a, e in zip(ACCOUNTS, epoch["expect"], strict=True)}
    stakes = dict(zip(ACCOUNTS, epoch["stake"], strict=True))
    assert module.lambda_next(ws, stakes, Ratio(1, 1)) == Ratio(*epoch["lam"])


@pytest.mark.parametrize(("scorer", "divider"), [(score, payout), (spec, spec)])
@pytest.mark.parametrize("epoch", VECTORS["epochs"])
def test_the_pool_is_paid_out_as_in_the_vectors(scorer: Any, divider: Any, epoch: dict[str, Any]) -> None:
    ws = [e[4] for e in epoch["expect"]]
    scores = [
        scorer.haptic_score(w, s, Ratio(*epoch["lam"]), PARAMS)
        for w, s in zip(ws, epoch["stake"], strict=True)
    ]
    found = divider.allocate(Wei(epoch["pool"]), dict(zip(ACCOUNTS, scores, strict=True)))
    assert list(found.shares.values()) == epoch["payout"]
    assert found.carry == 0
