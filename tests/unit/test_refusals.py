"""Providers word the same trouble in many ways: each is known for what it is."""

from __future__ import annotations

from typing import Any

import pytest

from chain.refusals import is_busy, is_local, is_too_large
from chain.wire import Failure

WIDE = [{"fromBlock": "0x1", "toBlock": "0x99"}]
ONE = [{"fromBlock": "0x7", "toBlock": "0x7"}]

BUSY = [
    (-32005, "daily request count exceeded, request rate limited"),
    (-32005, "project ID request rate exceeded"),
    (-32005, ""),
    (429, "Your app has exceeded its compute units per second capacity."),
    (-32097, "slow down"),
    (-32029, "Too many requests"),
    (-32007, "50/second request limit reached - reduce calls per second or upgrade your account"),
    (-32000, "rate limit exceeded"),
    (-32016, "over rate limit"),
    (15, "Too many request, try again later"),
    (-32603, "the node is overloaded"),
]
NARROWER = [
    (-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x9]."),
    (-32005, "limit exceeded"),
    (-32005, ""),
    (-32602, "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range"),
    (-32614, "eth_getLogs is limited to a 10,000 range"),
    (-32600, "block range is too wide"),
    (-32000, "exceed maximum block range: 50000"),
    (-32000, "requested too many blocks from 0 to 9999, maximum is set to 2048"),
    (-32000, "query timeout exceeded"),
    (-32000, "logs matched by query exceeds limit of 10000"),
    (-32020, "backend response too large"),
    (-32012, "range is too large, max is 1k blocks"),
    (-32000, "query exceeds max results 20000, retry with the range 1-2"),
]
ABSENT = [
    (-32000, "header not found"),
    (-32000, "unknown block"),
    (-32001, "Resource not found"),
    (-32000, "missing trie node 1234 (path )"),
    (-32602, "BlockOutOfRangeError: block height is 0 but requested was 153"),
    (-32000, "block range extends beyond current head block"),
    (-32000, "required historical state unavailable (reexec=128)"),
    (-32000, "hash 0x77 is not currently canonical"),
    (-32000, "cannot query unfinalized data: header for hash not found"),
    (4444, "pruned history unavailable"),
]
JUDGED = [
    ("eth_call", 3, "execution reverted: header not found"),
    ("eth_call", -32000, "execution reverted"),
    (
        "eth_call",
        -32603,
        "VM Exception while processing transaction: reverted with reason string 'rate limit'",
    ),
    ("eth_call", -32000, "out of gas"),
    ("eth_estimateGas", -32000, "gas required exceeds allowance (100)"),
    ("eth_sendRawTransaction", -32000, "nonce too low"),
    ("eth_sendRawTransaction", -32000, "already known"),
    ("eth_sendRawTransaction", -32000, "insufficient funds for gas * price + value"),
    ("eth_sendRawTransaction", -32000, "replacement transaction underpriced"),
    ("eth_sendRawTransaction", -32602, "Failed to decode transaction"),
]


def _judge(code: int, text: str, method: str, params: Any = ()) -> tuple[bool, bool]:
    error = Failure(code, text)
    return is_busy(error, method), is_local(error, method, params)


@pytest.mark.parametrize(("code", "text"), BUSY)
def test_a_busy_node_is_asked_again(code: int, text: str) -> None:
    assert is_busy(Failure(code, text), "eth_getBlockByNumber")
    assert is_busy(Failure(code, text), "eth_call")


@pytest.mark.parametrize(("code", "text"), NARROWER)
def test_too_many_logs_are_asked_for_in_narrower_ranges_of_the_same_node(code: int, text: str) -> None:
    assert _judge(code, text, "eth_getLogs", WIDE) == (False, False)
    assert _judge(code, text, "eth_getLogs", ONE) == (False, True)


@pytest.mark.parametrize(("code", "text"), ABSENT)
@pytest.mark.parametrize("method", ["eth_call", "eth_getCode", "eth_getBlockByNumber", "eth_getLogs"])
def test_what_a_node_has_not_is_asked_of_another(code: int, text: str, method: str) -> None:
    assert _judge(code, text, method, WIDE) == (False, True)


@pytest.mark.parametrize(("method", "code", "text"), JUDGED)
def test_what_any_node_would_say_is_an_answer(method: str, code: int, text: str) -> None:
    assert _judge(code, text, method) == (False, False)


@pytest.mark.parametrize("method", ["eth_getCode", "eth_getLogs", "eth_chainId"])
def test_an_error_that_nobody_knows_is_asked_of_another(method: str) -> None:
    assert _judge(-32000, "the disk is on fire", method, WIDE) == (False, True)
    assert _judge(3, "reverted", "eth_getCode") == (False, True)


def test_a_batch_that_is_too_large_is_told_from_a_contract_that_says_so() -> None:
    assert is_too_large(Failure(-32003, "response too large"), "eth_call")
    assert is_too_large(Failure(-32600, "batch limit 50 exceeded"), "eth_getCode")
    assert not is_too_large(Failure(3, "execution reverted: batch too large"), "eth_call")
    assert not is_too_large(Failure(-32000, "header not found"), "eth_call")
