"""What is not final yet is followed block by block: a reorg takes out exactly what it took out, whatever its length."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from chain.devnet import mine
from chain.errors import ReorgError, RpcError
from chain.events import Staked
from chain.head import Appended, Change, Final, Head, Orphaned
from chain.rpc import Rpc

TOKEN = 10**18


def _replay(known: list[Appended], changes: list[Change]) -> list[Appended]:
    """Return what somebody has who only hears of the changes; each has to fit what is there."""
    blocks = list(known)
    for change in changes:
        if isinstance(change, Orphaned):
            assert blocks.pop().block == change.block
        elif isinstance(change, Final):
            assert blocks.pop(0).block == change.block
        else:
            assert not blocks or change.block.parent_hash == blocks[-1].block.hash
            blocks.append(change)
    return blocks


@pytest.mark.parametrize("seed", range(4))
def test_after_any_reorgs_the_head_is_that_of_somebody_who_looks_for_the_first_time(
    deployed: Any, seed: int
) -> None:
    draw, head, heard = Random(seed), Head(deployed.rpc, deployed.deployment), []
    vault = deployed.deployment.stake_vault()
    # So deep that no reorg takes the stake itself away.
    deployed.stake(2, 50 * TOKEN)
    deployed.stake(3, 50 * TOKEN)
    mine(deployed.rpc, 60)
    orphans = 0
    for _ in range(25):
        kind = draw.random()
        if kind < 0.4:
            deployed.act(draw.choice([2, 3]), vault, "requestUnstake", draw.randint(1, 10**6))
        elif kind < 0.6:
            mine(deployed.rpc, draw.randint(1, 2))
        elif kind < 0.9:
            deployed.rpc.request("anvil_reorg", draw.randint(1, 2), [])
        if draw.random() < 0.7:
            changes = head.follow()
            heard = _replay(heard, changes)
            orphans += sum(isinstance(each, Orphaned) for each in changes)
            fresh = Head(deployed.rpc, deployed.deployment)
            fresh.follow()
            assert heard == head.blocks == fresh.blocks
            assert head.blocks[-1].block == deployed.rpc.block("latest")
            for account, staked in head.staked().items():
                assert staked == deployed.view(vault, "stakedOf", account)
    assert orphans > 0


def test_stake_is_seen_before_it_is_final_and_is_gone_with_its_block(deployed: Any) -> None:
    head = Head(deployed.rpc, deployed.deployment)
    head.follow()
    deployed.stake(2, TOKEN)
    came = [e for change in head.follow() if isinstance(change, Appended) for e in change.events]
    assert [type(e) for e in came] == [Staked]
    assert head.staked() == {deployed.address(2): TOKEN}
    deployed.rpc.request("anvil_reorg", 1, [])
    gone = [change for change in head.follow() if isinstance(change, Orphaned)]
    assert [e.staked for change in gone for e in change.events] == [TOKEN]
    assert head.staked() == {}
    deployed.act(2, deployed.deployment.stake_vault(), "stake", TOKEN)
    head.follow()
    mine(deployed.rpc, 2)
    changes = head.follow()
    assert sum(isinstance(each, Final) for each in changes) == 2
    assert head.staked() == {}, "what is final is the ledger's"


def test_a_shorter_chain_is_followed_too(deployed: Any) -> None:
    head = Head(deployed.rpc, deployed.deployment)
    snapshot = deployed.rpc.request("evm_snapshot")
    final = deployed.rpc.block("finalized")
    head.follow()
    before = head.blocks[:]
    mine(deployed.rpc, 1)
    deployed.rpc.request("evm_revert", snapshot)
    mine(deployed.rpc, 1)
    head.follow()
    deployed.rpc.request("anvil_rollback", 1)
    assert deployed.rpc.block("finalized").number <= final.number
    with pytest.raises(RpcError, match="lags: block"):
        head.follow()
    mine(deployed.rpc, 1)
    head.follow()
    assert [seen.block for seen in head.blocks[: len(before)]][-1].number >= before[-1].block.number


def test_a_final_block_that_changes_stops_loudly_and_nothing_that_is_known_is_lost(deployed: Any) -> None:
    head = Head(deployed.rpc, deployed.deployment)
    deployed.stake(2, TOKEN)
    head.follow()
    known = head.blocks[:]
    deployed.rpc.request("anvil_reorg", 4, [])
    with pytest.raises(ReorgError, match="was final with hash"):
        head.follow()
    assert head.blocks == known


def test_a_node_that_lags_is_no_reorg(deployed: Any, liar: Any) -> None:
    mine(deployed.rpc, 3)
    with Rpc(liar.url, retries=0) as rpc:
        head = Head(rpc, deployed.deployment)
        head.follow()
        known = head.blocks[:]

        def lag(calls: list[dict[str, Any]]) -> None:
            for call in calls:
                if call["params"][:1] == ["latest"]:
                    call["params"][0] = hex(known[-1].block.number - 3)
                if call["params"][:1] == ["finalized"]:
                    call["params"][0] = hex(known[-1].block.number - 5)

        liar.ask = lag
        with pytest.raises(RpcError, match="lags"):
            head.follow()
        assert head.blocks == known


def test_a_chain_that_changes_while_it_is_read_is_looked_at_again(deployed: Any, liar: Any) -> None:
    with Rpc(liar.url, retries=0) as rpc:
        head = Head(rpc, deployed.deployment)
        head.follow()
        known = head.blocks[:]
        mine(deployed.rpc, 1)

        def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
            for call, answer in zip(calls, answers, strict=True):
                if call["params"][:1] == [hex(known[-1].block.number + 1)]:
                    answer["result"]["parentHash"] = "0x" + "9" * 64

        liar.lie = lie
        with pytest.raises(RpcError, match="look again"):
            head.follow()
        assert head.blocks == known
        liar.lie = lambda _calls, _answers: None
        head.follow()
        assert len(head.blocks) > len(known) - 1
