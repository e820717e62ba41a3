"""Of two nodes one may do whatever it likes: what is read is what the honest one says."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chain import exchange, ranges
from chain.errors import RpcError
from chain.indexer import index
from chain.providers import (
    LOOK_S,
)
from chain.transport import RpcAnswerError, RpcTimeoutError, UnknownBlockError
from chain.types import Hash32
from tests.faulty import (
    Fault,
    drips,
    drops_log,
    errs_in_batch,
    fails,
    first,
    floods,
    hangs_up,
    honest,
    is_busy,
    is_chain,
    lags,
    later,
    limits_batch,
    limits_range,
    limits_results,
    refuses,
    times_out,
    truncates,
)
from tests.integration.conftest import Chain
from tests.integration.providers.conftest import FAR, KEY, Clock, Dump, Sessions


def _faults() -> dict[str, Fault]:
    """Return all that a node may do, afresh: some count their requests."""
    return {
        "times out": times_out(0.5),
        "hangs up": hangs_up,
        "hangs up after a while": later(4, hangs_up),
        "is busy": is_busy(),
        "is busy for long": is_busy("99999"),
        "says that it is busy": refuses(-32005, "project ID request rate exceeded"),
        "is busy for a moment": first(3, is_busy("1")),
        "fails": fails(),
        "wants another key": fails(401),
        "truncates": truncates,
        "is of another chain": is_chain(1),
        "lags": lags(FAR),
        "errs in the middle of a batch": errs_in_batch(),
        "errs in the middle of a batch for good": errs_in_batch(-32603, "internal error"),
        "knows no header": refuses(-32000, "header not found", "eth_getBlockByNumber"),
        "has no logs": refuses(-32000, "the index of logs is down", "eth_getLogs"),
        "answers nonsense": lambda calls, _: [{"id": call["id"], "result": {}} for call in calls],
        "mixes the ids up": lambda calls, forward: [a | {"id": a["id"] + 1} for a in forward(calls)],
        "leaves answers out": lambda calls, forward: forward(calls)[:1],
        "refuses batches": limits_batch(1),
        "limits results": limits_results(2),
        "limits ranges": limits_range(3),
        "drips its answers": drips(0.1),
        "drips its headers": drips(0.1, "headers"),
        "floods": floods(1 << 21, "eth_getLogs"),
    }


@pytest.fixture(autouse=True)
def _take_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a flood be one after a megabyte."""
    monkeypatch.setattr(exchange, "MAX_ANSWER_BYTES", 1 << 20)


@pytest.mark.parametrize("first_is", ["faulty", "honest"])
@pytest.mark.parametrize("fault", _faults())
def test_whatever_one_of_two_nodes_does_the_ledger_is_that_of_the_honest_one(
    chain: Chain, clock: Clock, sessions: Sessions, dump: Dump, wipe: Callable[[], None], nodes: Any,
    fault: str, first_is: str,
) -> None:  # fmt: skip
    with clock.rpc(chain.url) as alone:
        expected = index(alone, sessions, chain.deployment)
    rows = dump()
    assert expected.events >= 7
    wipe()
    bad, good = nodes(_faults()[fault], honest)
    urls = [bad.url, good.url] if first_is == "faulty" else [good.url, bad.url]
    with clock.rpc(*urls, chain_id=31337) as rpc:
        assert index(rpc, sessions, chain.deployment) == expected
        assert rpc.standing()[good.url] == ""
    assert dump() == rows


@pytest.mark.parametrize("seed", range(4))
def test_a_node_that_does_something_else_at_every_request_changes_nothing(
    chain: Chain, clock: Clock, sessions: Sessions, dump: Dump, wipe: Callable[[], None], nodes: Any,
    monkeypatch: pytest.MonkeyPatch, seed: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(ranges, "WIDEST", 9)
    expected = index(chain.rpc, sessions, chain.deployment)
    rows = dump()
    wipe()
    chance = random.Random(seed)
    faults = [honest, *(fault for name, fault in _faults().items() if "chain" not in name)]

    def moody(calls: list[Any], forward: Any) -> Any:
        return chance.choice(faults)(calls, forward)

    def tick(_done: int, _of: int) -> None:
        clock.now += LOOK_S

    bad, good = nodes(moody, honest)
    with clock.rpc(bad.url, good.url) as rpc:
        # While it seems to be level and then lags, a run ends early: the next goes on.
        for _ in range(20):
            if index(rpc, sessions, chain.deployment, tick).indexed_to == expected.indexed_to:
                break
            clock.now += LOOK_S
        assert rpc.standing()[good.url] == ""
    assert dump() == rows
    assert len(bad.requests) > 3


def test_a_log_that_one_node_drops_is_read_from_the_next_and_that_one_is_believed(
    chain: Chain, clock: Clock, sessions: Sessions, dump: Dump, wipe: Callable[[], None], nodes: Any
) -> None:
    index(chain.rpc, sessions, chain.deployment)
    rows = dump()
    wipe()
    liar, good = nodes(drops_log(1, chain.address(2)), honest)
    with clock.rpc(liar.url, good.url) as rpc:
        index(rpc, sessions, chain.deployment)
        assert dump() == rows
        assert rpc.source == good.url
        standing = rpc.standing()
    assert standing[good.url] == ""
    assert standing[liar.url].startswith("is distrusted: ")
    assert "hides an event" in standing[liar.url]


def test_an_answer_that_any_node_would_give_is_no_reason_to_ask_another(
    chain: Chain, clock: Clock, nodes: Any
) -> None:
    where = chain.deployment.vault
    for method, code, text in (
        ("eth_call", 3, "execution reverted: header not found"),
        ("eth_sendRawTransaction", -32000, "nonce too low"),
        ("eth_getLogs", -32602, "block range is too wide"),
        ("eth_getLogs", -32005, "limit exceeded"),
    ):
        one, other = nodes(refuses(code, text, method), honest)
        with clock.rpc(one.url, other.url) as rpc:
            with pytest.raises(RpcAnswerError, match=text) as caught:
                rpc.logs([where], 0, 5) if method == "eth_getLogs" else rpc.request(method, {}, "latest")
            assert (caught.value.local, rpc.standing()) == (False, {one.url: "", other.url: ""})
        assert other.seen == []
        assert clock.pauses == []


def test_a_block_that_a_node_has_not_is_asked_of_the_next(chain: Chain, clock: Clock, nodes: Any) -> None:
    head = chain.rpc.block("latest")
    vault = chain.deployment.vault
    for read in (
        lambda rpc: rpc.block(head.number),
        lambda rpc: rpc.code(vault, head),
        lambda rpc: rpc.call(vault, chain.deployment.stake_vault().encode("totalStaked"), head),
        lambda rpc: rpc.logs_between([vault], head.number - 1, head.number),
    ):
        behind, good = nodes(lags(2), honest)
        with clock.rpc(behind.url, good.url) as rpc:
            assert read(rpc) == read(chain.rpc)
            assert rpc.source == good.url
            assert "rests 5 s" in rpc.standing()[behind.url]


def test_a_block_that_no_node_has_is_nobodys_fault(chain: Chain, clock: Clock, nodes: Any) -> None:
    one, other = nodes(honest, honest)
    nowhere = replace(chain.rpc.block("latest"), hash=Hash32("0x" + "7" * 64))
    with clock.rpc(one.url, other.url) as rpc:
        with pytest.raises(UnknownBlockError, match=f"{one.url} has no block 9999.*{other.url} has no"):
            rpc.block(9999)
        with pytest.raises(RpcAnswerError, match=f"{one.url} refused eth_getCode.*{other.url} refused"):
            rpc.code(chain.deployment.vault, nowhere)
        assert rpc.standing() == {one.url: "", other.url: ""}


def test_what_all_nodes_fail_to_give_names_each(clock: Clock, nodes: Any) -> None:
    dead, busy, other = nodes(hangs_up, is_busy(), is_chain(5))
    with clock.rpc(dead.url, busy.url, other.url, chain_id=31337) as rpc:
        with pytest.raises(RpcError) as caught:
            rpc.block("latest")
        again = pytest.raises(RpcError, match=f"{other.url} is chain 5, not 31337 and is not asked")
        with again:
            rpc.block("latest")
    said = str(caught.value)
    for part in (
        f"{dead.url} does not answer",
        f"{busy.url} does not answer: HTTP 429",
        f"{other.url} is chain 5",
    ):
        assert part in said
    assert rpc.name == f"{dead.url}, {busy.url}, {other.url}"


def test_that_all_were_too_slow_can_be_told_from_other_failures(clock: Clock, nodes: Any) -> None:
    one, other = nodes(times_out(0.4), fails(504))
    with clock.rpc(one.url, other.url, timeout_s=0.1, retries=0) as rpc:
        with pytest.raises(RpcTimeoutError, match=r"no answer within 0\.1 s.*HTTP 504"):
            rpc.logs([], 0, 5)
        one.fault = other.fault = hangs_up
        with pytest.raises(RpcError) as caught:
            rpc.logs([], 0, 5)
    assert not isinstance(caught.value, RpcTimeoutError)


def test_no_key_shows_when_all_nodes_fail(clock: Clock, nodes: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    one, other = (node.url for node in nodes(refuses(-32000, f"{KEY} is unknown"), fails(503)))
    urls = [f"{one}/v3/{KEY}", other.replace("//", f"//me:{KEY}@"), f"{one}/?key={KEY}", f"{one}/v4/{KEY}"]
    with clock.rpc(*urls) as rpc:
        with pytest.raises(RpcError) as caught:
            rpc.block("latest")
        rpc.distrust("it lied")
        shown = f"{caught.value}{rpc.name}{rpc!r}{rpc.standing()}{rpc.source}{caplog.text}"
    assert KEY not in shown
    assert KEY[:12] not in shown
    assert len(rpc.standing()) == 4
    assert f"{one}/… (URL 1)" in str(caught.value)
    assert f"{one}/… (URL 4)" in str(caught.value)


def test_all_answers_of_a_batch_come_from_one_node(chain: Chain, clock: Clock, nodes: Any) -> None:
    calls = [("eth_blockNumber", []), ("eth_chainId", []), ("eth_getBlockByNumber", ["0x1", False])]
    first_node, second = nodes(errs_in_batch(-32603, "internal error", after=2), honest)
    with clock.rpc(first_node.url, second.url) as rpc:
        rpc.chain_id()
        before = len(second.requests)
        assert rpc.batch(calls) == chain.rpc.batch(calls)
        assert second.requests[before:] == [1, 3]
