"""What a node hides or invents does not stay in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chain.devnet import mine
from chain.errors import (
    ChainError,
    MissingLogError,
    RpcError,
    StakeMismatchError,
)
from chain.indexer import index
from chain.rpc import Rpc
from tests.integration.indexer.staking import NOTHING, TOKEN, Dump, Sessions, drop, play, run


def test_a_dropped_log_is_noticed_by_the_next_of_the_account(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump
) -> None:
    play(deployed)
    deployed.finalize()
    liar.lie = drop(deployed.address(2), 1)
    with pytest.raises(ChainError, match=rf"in block \d+ .*{deployed.address(2)}.*A log is missing"):
        run(deployed, sessions, liar.url)
    assert dump() == NOTHING


@pytest.mark.parametrize(
    ("who", "which", "words"),
    [
        (3, -1, f"the stake of all accounts together is {7 * TOKEN + 5} .* and {3 * TOKEN + 5}"),
        (0, 0, f"the stake of all accounts together is {2 * TOKEN + 5} .* and {3 * TOKEN + 5}"),
        (2, -1, "what all accounts together asked back is"),
        (4, -1, "all revenue is 7000011 .* and 7000012"),
    ],
)
def test_an_accounts_last_log_that_is_dropped_is_noticed_by_the_contracts_totals(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, who: int, which: int, words: str
) -> None:
    play(deployed)
    deployed.finalize()
    liar.lie = drop(deployed.address(who), which)
    with pytest.raises(StakeMismatchError, match=words):
        run(deployed, sessions, liar.url)
    assert dump() == NOTHING


def test_what_was_indexed_since_the_contracts_agreed_is_taken_back_and_read_anew(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    deployed.stake(2, TOKEN)
    deployed.stake(3, TOKEN)
    deployed.finalize()
    run(deployed, sessions)
    agreed = dump()
    deployed.stake(2, 5)
    deployed.unstake(3, TOKEN)
    deployed.finalize()
    liar.lie = drop(deployed.address(3), 0)
    for _ in range(2):
        with pytest.raises(StakeMismatchError):
            run(deployed, sessions, liar.url)
        assert dump() == agreed
    run(deployed, sessions)
    mended = dump()
    wipe()
    run(deployed, sessions)
    assert dump() == mended


def test_an_error_that_no_narrower_range_cures_is_raised(
    deployed: Any, liar: Any, sessions: Sessions
) -> None:
    play(deployed)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            answers[0] = {"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "archive is down"}}

    liar.lie = lie
    with pytest.raises(RpcError, match="refused eth_getLogs: archive is down"):
        run(deployed, sessions, liar.url)


@pytest.mark.parametrize("change", [{"removed": True}, {"blockNumber": "0x1"}, {"address": "0x" + "1" * 40}])
def test_a_log_that_was_not_asked_for_is_refused(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, change: dict[str, Any]
) -> None:
    play(deployed)
    deployed.finalize()
    run(deployed, sessions)
    before = dump()
    deployed.stake(2, 1)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            answers[0]["result"][0].update(change)

    liar.lie = lie
    with pytest.raises(ChainError, match="not asked for"):
        run(deployed, sessions, liar.url)
    assert dump() == before


def test_an_empty_answer_that_the_headers_belie_is_refused(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump
) -> None:
    deployed.stake(2, TOKEN)
    deployed.finalize()
    run(deployed, sessions)
    before = dump()
    deployed.stake(3, TOKEN)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getLogs" and "fromBlock" in call["params"][0]:
                answer["result"] = []

    liar.lie = lie
    with pytest.raises(MissingLogError, match=r"left out the logs of block \d+"):
        run(deployed, sessions, liar.url)
    assert dump() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", lambda text: text[:-2]),
        ("transactionHash", lambda text: text + "\t1\n2"),
        ("blockNumber", lambda _text: "zz"),
        ("blockTimestamp", lambda _text: "0x"),
        ("logIndex", lambda _text: "0x"),
    ],
)
def test_a_log_that_holds_anything_else_is_read_from_another_node_or_stops_it_all(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None], field: str, value: Any
) -> None:
    play(deployed)
    deployed.finalize()
    run(deployed, sessions)
    right = dump()
    wipe()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getLogs":
                for log in answer["result"]:
                    log[field] = value(log[field])

    liar.lie = lie
    with pytest.raises(MissingLogError, match="sent what is no log of ours"):
        run(deployed, sessions, liar.url)
    assert dump() == NOTHING
    with Rpc(f"{liar.url},{deployed.url}", retries=0) as rpc:
        index(rpc, sessions, deployed.deployment)
        assert rpc.standing()[liar.url]
    assert dump() == right


@pytest.mark.parametrize("with_times", [True, False])
def test_a_log_of_another_block_than_the_header_beside_it_is_refused(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, *, with_times: bool
) -> None:
    deployed.stake(2, 1)
    if not with_times:
        mine(deployed.rpc, 1)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            for log in answers[0]["result"]:
                log["blockHash"] = "0x" + "9" * 64
                if not with_times:
                    del log["blockTimestamp"]

    liar.lie = lie
    with pytest.raises(MissingLogError, match=rf"{liar.url} .* with hash 0x9999.* contradicts itself"):
        run(deployed, sessions, liar.url)
    assert dump() == NOTHING
