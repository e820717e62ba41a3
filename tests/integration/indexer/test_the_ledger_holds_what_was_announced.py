"""The ledger holds what the contracts announced, and only what is final."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import Session

from chain import ledger, ranges
from chain.continuity import Last
from chain.devnet import mine
from chain.errors import (
    ChainError,
    DeploymentError,
    StakeMismatchError,
)
from chain.events import Challenged, Posted
from chain.indexer import IndexResult, check_stake, index, snapshot_block
from chain.stake import StakeAccount, fold, stake_seconds
from chain.types import Address, Epoch, Hash32, Wei
from tests.integration.indexer.staking import TOKEN, Dump, Sessions, play, run


def stake_at(session: Session, block: int) -> dict[Address, StakeAccount]:
    """Return every account's stake as folded from the events up to and with `block`."""
    changes = ledger.stake_changes(session, block)
    return fold(changes, changes[-1].timestamp if changes else 0)


def test_the_ledger_equals_what_the_contracts_say(deployed: Any, sessions: Sessions) -> None:
    play(deployed)
    last = deployed.finalize()
    result = run(deployed, sessions)
    assert (result.finalized, result.indexed_to, result.head) == (last.number, last.number, last.number + 2)
    vault, distributor = deployed.deployment.stake_vault(), deployed.deployment.revenue_distributor()
    with sessions() as session:
        folded = stake_at(session, last.number)
        fundings = ledger.fundings(session, 0, last.number)
        rows = ledger.last_of(session)
    at = last.timestamp + 321
    assert {account: (stake.staked, stake_seconds(stake, at)) for account, stake in folded.items()} == {
        deployed.address(who): (
            deployed.view(vault, "stakedOf", deployed.address(who)),
            deployed.view(vault, "stakeSecondsOf", deployed.address(who), at),
        )
        for who in (0, 2, 3)
    }
    assert folded[deployed.address(3)].staked == 0
    assert [(each.run, each.amount) for each in fundings] == [(0, 7_000_000), ((1 << 64) - 1, 11), (1, 1)]
    assert rows.funded == deployed.view(distributor, "funded") == 7_000_012
    check_stake(deployed.rpc, deployed.deployment, folded, last, at)


def test_only_finalized_blocks_are_indexed(deployed: Any, sessions: Sessions) -> None:
    deployed.stake(0, TOKEN)
    head = deployed.rpc.block("latest").number
    assert run(deployed, sessions).indexed_to == head - 2
    with sessions() as session:
        assert ledger.stake_changes(session, head) == []
    mine(deployed.rpc, 2)
    assert run(deployed, sessions) == IndexResult(head + 2, head, head, 1)


def test_indexing_again_changes_nothing(deployed: Any, sessions: Sessions, dump: Dump) -> None:
    play(deployed)
    deployed.finalize()
    assert run(deployed, sessions).events > 0
    before = dump()
    assert run(deployed, sessions).events == 0
    assert dump() == before


def test_fundings_lie_after_one_block_and_up_to_another(deployed: Any, sessions: Sessions) -> None:
    first = deployed.fund(4, 1, 10).block
    second = deployed.fund(4, 2, 20).block
    deployed.finalize()
    run(deployed, sessions)
    with sessions() as session:
        assert [f.run for f in ledger.fundings(session, first - 1, second - 1)] == [1]
        assert [f.run for f in ledger.fundings(session, first, second)] == [2]


def test_progress_is_reported_up_to_the_finalized_block(
    deployed: Any, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "WIDEST", 2)
    monkeypatch.setattr(ranges, "FIRST", 2)
    play(deployed)
    last = deployed.finalize()
    seen: list[tuple[int, int]] = []
    index(deployed.rpc, sessions, deployed.deployment, lambda done, of: seen.append((done, of)))
    assert seen == sorted(seen)
    assert len(seen) > 3
    assert seen[-1] == (last.number, last.number)


def test_stake_that_differs_from_the_vaults_is_named(deployed: Any, sessions: Sessions) -> None:
    deployed.stake(2, 7)
    last = deployed.finalize()
    run(deployed, sessions)
    with sessions() as session:
        folded = stake_at(session, last.number)
    account = deployed.address(2)
    wrong = {account: replace(folded[account], staked=8)}
    with pytest.raises(StakeMismatchError, match=rf"the stake of {account} is 8 .* and 7 in the contracts"):
        check_stake(deployed.rpc, deployed.deployment, wrong, last, last.timestamp)
    with pytest.raises(StakeMismatchError, match=r"all accounts together is 0 .* and 7"):
        check_stake(deployed.rpc, deployed.deployment, {}, last, last.timestamp)


def test_stake_seconds_that_differ_are_named(deployed: Any, sessions: Sessions) -> None:
    deployed.stake(2, 7)
    deployed.warp(deployed.rpc.block("latest").timestamp + 50)
    deployed.stake(2, 1)
    last = deployed.finalize()
    run(deployed, sessions)
    with sessions() as session:
        folded = stake_at(session, last.number)
    account = deployed.address(2)
    wrong = {account: replace(folded[account], stake_seconds=folded[account].stake_seconds + 1)}
    with pytest.raises(StakeMismatchError, match=f"the stake-seconds of {account}"):
        check_stake(deployed.rpc, deployed.deployment, wrong, last, last.timestamp)


def test_a_provider_that_limits_results_gives_the_same_rows(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    play(deployed)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs" and len(answers[0]["result"]) > 2:
            del answers[0]["result"]
            answers[0]["error"] = {"code": -32005, "message": "query returned more than 2 results"}

    liar.lie = lie
    narrow = run(deployed, sessions, liar.url)
    limited = dump()
    wipe()
    assert run(deployed, sessions) == narrow
    assert dump() == limited


def test_timestamps_come_from_headers_where_logs_have_none(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    play(deployed)
    deployed.finalize()
    run(deployed, sessions)
    with_times = dump()
    wipe()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            for log in answers[0]["result"]:
                del log["blockTimestamp"]

    liar.lie = lie
    run(deployed, sessions, liar.url)
    assert dump() == with_times


def test_a_ledger_of_other_contracts_is_refused(deployed: Any, sessions: Sessions) -> None:
    deployed.finalize()
    run(deployed, sessions)
    other = replace(deployed.deployment, vault=deployed.address(5))
    with pytest.raises(DeploymentError, match="use another database"):
        index(deployed.rpc, sessions, other)
    with pytest.raises(DeploymentError, match="is chain 31337"):
        index(deployed.rpc, sessions, replace(other, chain_id=1))


def test_the_snapshot_is_the_last_block_before_the_end(deployed: Any) -> None:
    end = deployed.rpc.block("latest").timestamp + 1_000
    deployed.warp(end - 10)
    wanted = deployed.warp(end - 1)
    assert snapshot_block(deployed.rpc, end) is None
    deployed.warp(end)
    mine(deployed.rpc, 1)
    assert snapshot_block(deployed.rpc, end) is None
    mine(deployed.rpc, 1)
    assert snapshot_block(deployed.rpc, end) == wanted
    mine(deployed.rpc, 7)
    assert snapshot_block(deployed.rpc, end) == wanted
    with pytest.raises(ChainError, match="no block before"):
        snapshot_block(deployed.rpc, 5)


def test_a_request_that_was_cancelled_counts_again_as_the_vault_counts_it(
    deployed: Any, sessions: Sessions
) -> None:
    vault = deployed.deployment.stake_vault()
    deployed.stake(2, 5 * TOKEN)
    deployed.unstake(2, 3 * TOKEN)
    deployed.act(2, vault, "cancelUnstake", 2 * TOKEN)
    last = deployed.finalize()
    run(deployed, sessions)
    with sessions() as session:
        folded = stake_at(session, last.number)
    assert folded[deployed.address(2)].staked == 4 * TOKEN
    check_stake(deployed.rpc, deployed.deployment, folded, last, last.timestamp)


def test_what_was_proven_wrong_is_kept_as_it_was_announced(sessions: Sessions) -> None:
    mark = (1, 0, Hash32("0x" + "aa" * 32), 5)
    epoch, root = Epoch(0), Hash32("0x" + "bb" * 32)
    posted = Posted(*mark, epoch, root, Wei(7), 0, root, root, root, 1, root, 9)
    who, about = Address("0x" + "cc" * 20), Address("0x" + "dd" * 20)
    challenged = Challenged(2, 0, mark[2], 6, epoch, root, who, 2, about)
    with sessions() as session:
        ledger.store(session, ledger.take([posted, challenged], Last()))
        assert ledger.reports(session) == [posted, challenged]
