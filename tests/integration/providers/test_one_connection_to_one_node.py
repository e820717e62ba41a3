"""What one node sends over its connection: batches are mended, halved and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest

from chain import exchange
from chain.errors import RpcError
from chain.indexer import index
from chain.transport import RpcAnswerError, RpcTimeoutError
from tests.faulty import (
    Reply,
    drips,
    errs_in_batch,
    fails,
    first,
    floods,
    honest,
    limits_batch,
    refuses,
)
from tests.integration.conftest import Chain
from tests.integration.providers.conftest import Clock, Dump, Sessions


def test_a_batch_that_errs_in_the_middle_is_asked_again_for_what_is_missing(
    chain: Chain, clock: Clock, nodes: Any
) -> None:
    calls = [("eth_getBlockByNumber", [hex(n), False]) for n in range(5)]
    (node,) = nodes(errs_in_batch(after=2))
    with clock.rpc(node.url, retries=1) as rpc:
        assert rpc.batch(calls) == chain.rpc.batch(calls)
    assert node.requests == [5, 3, 1]
    assert clock.pauses == [0.1, 0.1]
    (node,) = nodes(first(1, refuses(-32005, "rate limit exceeded", "eth_chainId")))
    calls.insert(1, ("eth_chainId", []))
    with clock.rpc(node.url, retries=1) as rpc:
        assert rpc.batch(calls) == chain.rpc.batch(calls)
    assert node.requests == [6, 1]


def test_a_batch_that_is_refused_as_too_large_is_halved_and_the_next_are_as_small(
    chain: Chain, clock: Clock, nodes: Any
) -> None:
    calls = [("eth_getBlockByNumber", [hex(n % 9), False]) for n in range(130)]
    for refusal in (limits_batch(30), lambda c, f: fails(413)(c, f) if len(c) > 30 else f(c)):
        (node,) = nodes(refusal)
        with clock.rpc(node.url, retries=0) as rpc:
            assert rpc.batch(calls) == chain.rpc.batch(calls)
            assert node.requests == [100, 50, 25, 25, 50, 25, 25, 25, 5]
            rpc.batch(calls[:30])
            assert node.requests[-2:] == [25, 5]
    assert clock.pauses == []


def test_a_refusal_that_no_smaller_batch_cures_is_raised_and_forgotten(
    chain: Chain, clock: Clock, nodes: Any
) -> None:
    (node,) = nodes(lambda _calls, _: [{"id": None, "error": {"code": -32000, "message": "go away"}}])
    calls = [("eth_chainId", [])] * 8
    with clock.rpc(node.url, retries=0) as rpc:
        with pytest.raises(RpcAnswerError, match="refused eth_chainId: go away"):
            rpc.batch(calls)
        assert node.requests == [8, 4, 2, 1]
        node.fault = honest
        assert rpc.batch(calls) == chain.rpc.batch(calls)
        assert node.requests[-1] == 8


def test_an_error_that_says_busy_is_waited_out_with_growing_pauses(clock: Clock, nodes: Any) -> None:
    (node,) = nodes(first(3, refuses(429, "Too Many Requests")))
    with clock.rpc(node.url) as rpc:
        assert rpc.chain_id() == 31337
        assert clock.pauses == [0.1, 0.2, 0.4]
        node.fault = refuses(-32005, "daily request count exceeded, request rate limited")
        with pytest.raises(RpcError, match=r"rate limited \(code -32005\); tried 5 times") as caught:
            rpc.chain_id()
    assert not isinstance(caught.value, RpcAnswerError)


@pytest.mark.parametrize("of", ["headers", "body"])
def test_a_node_that_drips_is_cut_off_though_each_byte_comes_in_time(
    clock: Clock, nodes: Any, of: Literal["headers", "body"]
) -> None:
    (node,) = nodes(drips(0.05, of))
    began = time.monotonic()
    with clock.rpc(node.url, timeout_s=0.2, retries=1) as rpc:
        with pytest.raises(RpcTimeoutError, match=r"drips, and was not done within 0\.6 s; tried 2 times"):
            rpc.chain_id()
        assert time.monotonic() - began < 2
        node.fault = honest
        assert rpc.chain_id() == 31337


def test_what_a_node_drips_in_one_thread_is_no_error_in_another(clock: Clock, nodes: Any) -> None:
    (node,) = nodes(lambda c, f: (drips(0.05) if c[0]["method"] == "eth_chainId" else honest)(c, f))
    with clock.rpc(node.url, timeout_s=0.2, retries=1) as rpc, ThreadPoolExecutor(1) as other:
        slow = other.submit(rpc.chain_id)
        while not slow.done():
            assert rpc.request("eth_blockNumber")
        assert isinstance(slow.exception(), RpcTimeoutError)


def test_a_range_of_logs_that_drips_is_asked_for_in_parts(
    chain: Chain, clock: Clock, nodes: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    index(chain.rpc, sessions, chain.deployment)
    rows = dump()
    wipe()

    def fault(calls: list[Any], forward: Any) -> Any:
        answers = forward(calls)
        many = [a for a in answers if isinstance(a.get("result"), list) and len(a["result"]) > 3]
        return Reply(answers=answers, drip=0.05) if many else answers

    (node,) = nodes(fault)
    with clock.rpc(node.url, timeout_s=0.2, retries=0) as rpc:
        index(rpc, sessions, chain.deployment)
    assert dump() == rows


def test_more_than_is_taken_at_once_is_asked_for_in_parts(
    chain: Chain, clock: Clock, nodes: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    index(chain.rpc, sessions, chain.deployment)
    rows = dump()
    wipe()
    monkeypatch.setattr(exchange, "MAX_ANSWER_BYTES", 5_000)
    (node,) = nodes(honest)
    with clock.rpc(node.url, retries=0) as rpc:
        calls = [("eth_getBlockByNumber", [hex(n % 9), False]) for n in range(100)]
        found = rpc.batch(calls)
        assert max(node.requests[1:]) < 100
        index(rpc, sessions, chain.deployment)
    assert dump() == rows
    assert clock.pauses == []
    monkeypatch.undo()
    assert found == chain.rpc.batch(calls)


def test_a_node_that_sends_without_end_is_no_reason_to_take_it_all(
    clock: Clock, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_ANSWER_BYTES", 5_000)
    flood, good = nodes(floods(1 << 25, "eth_call", "eth_blockNumber"), honest)
    for method in ("eth_call", "eth_blockNumber"):
        with clock.rpc(flood.url, retries=3) as rpc, pytest.raises(RpcAnswerError, match="size limit"):
            rpc.request(method, *([{}, "latest"] if method == "eth_call" else []))
        with clock.rpc(flood.url, good.url) as rpc:
            rpc.request(method, *([{}, "latest"] if method == "eth_call" else []))
            assert rpc.source == good.url
            assert rpc.standing()[flood.url]
