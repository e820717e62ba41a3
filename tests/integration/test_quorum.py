"""An epoch is closed on what several nodes say by themselves; where they differ, it is said who says what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from chain.devnet import Devnet, mine
from chain.errors import NodeError, QuorumError, RpcError
from chain.events import topics
from chain.quorum import agree
from chain.rpc import Rpc
from tests.faulty import (
    Faulty,
    another_hash,
    drops_log,
    hangs_up,
    hides_logs,
    honest,
    is_chain,
    lags,
    later,
    limits_range,
    limits_results,
    refuses,
)
from tests.integration.conftest import GENESIS, Chain, contracts_on


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Devnet(0, timestamp=GENESIS) as anvil, contracts_on(anvil) as made:
        for who in (0, 2, 3):
            made.stake(who, (who + 1) * 10**18)
        mine(made.rpc, 40)
        made.fund(4, 0, 7_000_000)
        yield made


def _ask(chain: Chain, asked: list[Faulty], wanted: int = 2, **changes: Any) -> None:
    """Let the nodes agree on all that happened up to the latest block."""
    block = replace(chain.rpc.block("latest"), **changes)
    d = chain.deployment
    with Rpc(",".join(node.url for node in asked), retries=0, chain_id=31337) as rpc:
        agree(rpc, [d.vault, d.distributor], topics(), d.from_block, block.number, block, wanted)


def _counted(node: Faulty) -> bool:
    return "eth_getLogs" in node.seen and "eth_getBlockByNumber" in node.seen


def test_nodes_that_say_the_same_agree_and_each_was_asked_by_itself(chain: Chain, nodes: Any) -> None:
    asked = nodes(honest, honest, honest)
    _ask(chain, asked)
    assert [_counted(node) for node in asked] == [True, True, False]


@pytest.mark.parametrize("fault", [limits_range(7), limits_range(1), limits_results(1)])
def test_a_node_that_limits_what_it_gives_counts_the_same(chain: Chain, nodes: Any, fault: Any) -> None:
    asked = nodes(fault, honest)
    _ask(chain, asked)
    assert asked[0].seen.count("eth_getLogs") > 4


@pytest.mark.parametrize("fault", [drops_log(0), drops_log(-1), hides_logs])
@pytest.mark.parametrize("place", [0, 1])
def test_a_node_with_fewer_logs_is_named_beside_the_other(
    chain: Chain, nodes: Any, fault: Any, place: int
) -> None:
    logs = len(chain.rpc.logs([chain.deployment.vault, chain.deployment.distributor], 0, 10_000, topics()))
    asked = nodes(*((fault, honest) if place == 0 else (honest, fault)))
    with pytest.raises(NodeError, match="do not agree on block") as caught:
        _ask(chain, asked)
    for node in asked:
        fewer = 0 if fault is hides_logs else logs - 1
        said = fewer if node.fault is fault else logs
        assert f"{node.url}: block {chain.rpc.block('latest').hash}, {said} logs" in str(caught.value)


def test_a_node_with_another_hash_is_named_beside_the_other(chain: Chain, nodes: Any) -> None:
    asked = nodes(honest, another_hash)
    with pytest.raises(NodeError, match=rf"{asked[1].url}: block 0x9999.*, 4 logs"):
        _ask(chain, asked)


def test_nodes_that_agree_on_another_block_than_the_one_in_use_are_not_believed(
    chain: Chain, nodes: Any
) -> None:
    with pytest.raises(NodeError, match="which was read as 0x7777"):
        _ask(chain, nodes(honest, honest), hash="0x" + "7" * 64)


@pytest.mark.parametrize(
    "fault",
    [hangs_up, is_chain(5), lags(1), later(1, hangs_up), refuses(-32000, "no index", "eth_getLogs")],
)
def test_another_node_stands_in_for_one_that_does_not_answer(chain: Chain, nodes: Any, fault: Any) -> None:
    silent, good, third = nodes(fault, honest, honest)
    _ask(chain, [silent, good, third])
    with pytest.raises(
        QuorumError, match=f"2 nodes must agree .* 1 answered: {silent.url} .*HAPTIC_RPC_QUORUM"
    ):
        _ask(chain, [silent, good])


def test_too_few_nodes_are_no_quorum(chain: Chain, nodes: Any) -> None:
    (one,) = nodes(honest)
    with pytest.raises(QuorumError, match=rf"2 nodes must agree .*1 answered: 1 can be asked \({one.url}\)"):
        _ask(chain, [one])
    with pytest.raises(QuorumError, match="2 nodes must agree"):
        _ask(chain, [one, one])


def test_a_node_that_is_distrusted_has_no_voice(chain: Chain, nodes: Any) -> None:
    block = chain.rpc.block("latest")
    liar, good = nodes(honest, honest)
    with Rpc(f"{liar.url} {good.url}", retries=0) as rpc:
        rpc.chain_id()
        assert rpc.distrust("a lie")
        with pytest.raises(QuorumError, match=rf"1 can be asked \({good.url}\)"):
            agree(rpc, [chain.deployment.vault], topics(), 0, block.number, block, 2)


def test_each_node_by_itself_stands_for_no_other(chain: Chain, nodes: Any) -> None:
    dead, good = nodes(hangs_up, honest)
    with Rpc(f"{dead.url} {good.url}", retries=0) as rpc:
        first, second = rpc.each()
        with pytest.raises(RpcError, match=f"{dead.url} does not answer"):
            first.chain_id()
        assert good.seen == []
        assert second.block("latest") == chain.rpc.block("latest")
        assert (first.name, second.name) == (dead.url, good.url)


def test_a_block_that_is_not_the_last_before_the_end_for_all_is_refused(chain: Chain, nodes: Any) -> None:
    d, asked = chain.deployment, nodes(honest, honest)
    before = chain.rpc.block("latest")
    end = before.timestamp + 100
    chain.warp(end)

    def ask(number: int) -> None:
        block = chain.rpc.block(number)
        with Rpc(",".join(node.url for node in asked), retries=0, chain_id=31337) as rpc:
            agree(rpc, [d.vault, d.distributor], topics(), d.from_block, block.number, block, 2, end)

    with pytest.raises(NodeError, match="not yet for good, the last before the end"):
        ask(before.number)
    mine(chain.rpc, 2)
    ask(before.number)
    with pytest.raises(NodeError, match="the last before the end"):
        ask(before.number - 1)
