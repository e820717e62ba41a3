"""The ledger holds what the contracts announced, however the node or this process behaves."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlmodel import Session, create_engine

from chain import indexer, ledger, ranges
from chain.continuity import Last
from chain.devnet import mine
from chain.errors import (
    ChainError,
    DeploymentError,
    MissingLogError,
    ReorgError,
    RpcError,
    StakeMismatchError,
)
from chain.events import Challenged, Claimed, Posted
from chain.indexer import IndexResult, check_stake, index, snapshot_block, stake_at
from chain.rpc import Rpc
from chain.types import Address, Epoch, Hash32, Wei

TOKEN = 10**18
NOTHING = [[], [], [], [], [], []]
Sessions = Callable[[], Session]
Dump = Callable[[], list[Any]]


def _play(chain: Any) -> None:
    """Stake, take back, withdraw, fund: every event of the vault and some of the distributor."""
    start = chain.rpc.block("latest").timestamp
    for who in (0, 2, 3):
        chain.stake(who, (who + 1) * TOKEN)
    chain.unstake(2, TOKEN)
    chain.warp(start + 100)
    chain.stake(2, 5)
    chain.unstake(3, 4 * TOKEN)
    chain.fund(4, 0, 7_000_000)
    chain.fund(5, (1 << 64) - 1, 11)
    chain.warp(start + 2_000)
    chain.act(2, chain.deployment.stake_vault(), "withdraw")
    chain.fund(4, 1, 1)


def _run(chain: Any, sessions: Sessions, url: str = "") -> IndexResult:
    with Rpc(url or chain.url, retries=0) as rpc:
        return index(rpc, sessions, chain.deployment)


def test_the_ledger_equals_what_the_contracts_say(deployed: Any, sessions: Sessions) -> None:
    _play(deployed)
    last = deployed.finalize()
    result = _run(deployed, sessions)
    assert (result.finalized, result.indexed_to, result.head) == (last.number, last.number, last.number + 2)
    vault, distributor = deployed.deployment.stake_vault(), deployed.deployment.revenue_distributor()
    with sessions() as session:
        folded = stake_at(session, last.number)
        fundings = ledger.fundings(session, 0, last.number)
        rows = ledger.last_of(session)
    at = last.timestamp + 321
    assert {
        account: (stake.staked, indexer.stake_seconds(stake, at)) for account, stake in folded.items()
    } == {
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
    assert _run(deployed, sessions).indexed_to == head - 2
    with sessions() as session:
        assert ledger.stake_changes(session, head) == []
    mine(deployed.rpc, 2)
    assert _run(deployed, sessions) == IndexResult(head + 2, head, head, 1)


def test_indexing_again_changes_nothing(deployed: Any, sessions: Sessions, dump: Dump) -> None:
    _play(deployed)
    deployed.finalize()
    assert _run(deployed, sessions).events > 0
    before = dump()
    assert _run(deployed, sessions).events == 0
    assert dump() == before


def test_fundings_lie_after_one_block_and_up_to_another(deployed: Any, sessions: Sessions) -> None:
    first = deployed.fund(4, 1, 10).block
    second = deployed.fund(4, 2, 20).block
    deployed.finalize()
    _run(deployed, sessions)
    with sessions() as session:
        assert [f.run for f in ledger.fundings(session, first - 1, second - 1)] == [1]
        assert [f.run for f in ledger.fundings(session, first, second)] == [2]


def test_progress_is_reported_up_to_the_finalized_block(
    deployed: Any, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "WIDEST", 2)
    monkeypatch.setattr(ranges, "FIRST", 2)
    _play(deployed)
    last = deployed.finalize()
    seen: list[tuple[int, int]] = []
    index(deployed.rpc, sessions, deployed.deployment, lambda done, of: seen.append((done, of)))
    assert seen == sorted(seen)
    assert len(seen) > 3
    assert seen[-1] == (last.number, last.number)


def _die_at(statement: int, chain: Any, url: str) -> None:
    """Index in a process that kills itself right before or after its n-th statement or commit."""
    engine = create_engine(url)
    count = 0

    def tick(*_: object) -> None:
        nonlocal count
        count += 1
        if count == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(engine, name, tick)
    ranges.FIRST = ranges.WIDEST = 12
    with Rpc(chain.url) as rpc:
        index(rpc, lambda: Session(engine), chain.deployment)


def test_an_indexer_killed_at_any_statement_resumes_to_the_same_rows(
    deployed: Any, engine: Engine, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    _play(deployed)
    deployed.finalize()
    _run(deployed, sessions)
    clean, half, statement = dump(), 0, 0
    while True:
        wipe()
        statement += 1
        child = multiprocessing.get_context("fork").Process(
            target=_die_at, args=(statement, deployed, str(engine.url))
        )
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        half += NOTHING != dump() != clean
        _run(deployed, sessions)
        assert dump() == clean
    assert statement > 20
    assert half > 0


def test_a_reorg_deeper_than_finality_stops_and_writes_nothing(
    deployed: Any, sessions: Sessions, dump: Dump
) -> None:
    _play(deployed)
    deployed.finalize()
    _run(deployed, sessions)
    before = dump()
    deployed.rpc.request("anvil_reorg", 6, [])
    with pytest.raises(ReorgError, match="was final"):
        _run(deployed, sessions)
    mine(deployed.rpc, 10)
    with pytest.raises(ReorgError, match="was final"):
        _run(deployed, sessions)
    assert dump() == before


def test_a_range_that_does_not_build_on_the_checkpoint_is_refused(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump
) -> None:
    _play(deployed)
    deployed.finalize()
    _run(deployed, sessions)
    before = dump()
    mine(deployed.rpc, 3)

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            answers[1]["result"]["parentHash"] = "0x" + "9" * 64

    liar.lie = lie
    with pytest.raises(ReorgError, match="9999"):
        _run(deployed, sessions, liar.url)
    assert dump() == before


@pytest.mark.parametrize("seed", range(3))
def test_random_reorgs_leave_what_a_clean_sync_gives(
    deployed: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None], seed: int
) -> None:
    draw, vault = Random(seed), deployed.deployment.stake_vault()
    deployed.stake(2, 50 * TOKEN)
    deployed.stake(3, 50 * TOKEN)
    mine(deployed.rpc, 5)
    for _ in range(30):
        kind = draw.random()
        if kind < 0.35:
            deployed.act(draw.choice([2, 3]), vault, "requestUnstake", draw.randint(1, 10**6))
        elif kind < 0.5:
            mine(deployed.rpc, draw.randint(1, 3))
        elif kind < 0.8:
            # As deep as anything that is not final yet, to a chain as long with other blocks.
            deployed.rpc.request("anvil_reorg", draw.randint(1, 2), [])
        else:
            snapshot = deployed.rpc.request("evm_snapshot")
            deployed.act(2, vault, "requestUnstake", 7)
            deployed.rpc.request("evm_revert", snapshot)
        if draw.random() < 0.6:
            _run(deployed, sessions)
    deployed.finalize()
    _run(deployed, sessions)
    followed = dump()
    wipe()
    _run(deployed, sessions)
    assert dump() == followed


def test_a_reorg_above_finality_is_none(deployed: Any, sessions: Sessions) -> None:
    _play(deployed)
    deployed.finalize()
    _run(deployed, sessions)
    deployed.rpc.request("anvil_reorg", 2, [])
    mine(deployed.rpc, 4)
    assert _run(deployed, sessions).indexed_to == deployed.rpc.block("finalized").number


def test_a_node_that_lags_is_no_reorg(deployed: Any, liar: Any, sessions: Sessions, dump: Dump) -> None:
    _play(deployed)
    done = deployed.finalize()
    _run(deployed, sessions)
    before = dump()

    def ask(calls: list[dict[str, Any]]) -> None:
        for call in calls:
            if call["params"][:1] in (["latest"], ["finalized"]):
                call["params"][0] = "0x3"

    liar.ask = ask
    assert _run(deployed, sessions, liar.url) == IndexResult(3, 3, done.number, 0)
    assert dump() == before


def _drop(address: str, which: int) -> Callable[[list[dict[str, Any]], list[dict[str, Any]]], None]:
    """Return a lie that leaves out one of the logs that concern `address`."""

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            concerned = [log for log in answers[0]["result"] if address[2:] in "".join(log["topics"])]
            answers[0]["result"].remove(concerned[which])

    return lie


def test_a_dropped_log_is_noticed_by_the_next_of_the_account(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump
) -> None:
    _play(deployed)
    deployed.finalize()
    liar.lie = _drop(deployed.address(2), 1)
    with pytest.raises(ChainError, match=rf"in block \d+ .*{deployed.address(2)}.*A log is missing"):
        _run(deployed, sessions, liar.url)
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
    _play(deployed)
    deployed.finalize()
    liar.lie = _drop(deployed.address(who), which)
    with pytest.raises(StakeMismatchError, match=words):
        _run(deployed, sessions, liar.url)
    assert dump() == NOTHING


def test_what_was_indexed_since_the_contracts_agreed_is_taken_back_and_read_anew(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    deployed.stake(2, TOKEN)
    deployed.stake(3, TOKEN)
    deployed.finalize()
    _run(deployed, sessions)
    agreed = dump()
    deployed.stake(2, 5)
    deployed.unstake(3, TOKEN)
    deployed.finalize()
    liar.lie = _drop(deployed.address(3), 0)
    for _ in range(2):
        with pytest.raises(StakeMismatchError):
            _run(deployed, sessions, liar.url)
        assert dump() == agreed
    _run(deployed, sessions)
    mended = dump()
    wipe()
    _run(deployed, sessions)
    assert dump() == mended


def test_stake_that_differs_from_the_vaults_is_named(deployed: Any, sessions: Sessions) -> None:
    deployed.stake(2, 7)
    last = deployed.finalize()
    _run(deployed, sessions)
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
    _run(deployed, sessions)
    with sessions() as session:
        folded = stake_at(session, last.number)
    account = deployed.address(2)
    wrong = {account: replace(folded[account], stake_seconds=folded[account].stake_seconds + 1)}
    with pytest.raises(StakeMismatchError, match=f"the stake-seconds of {account}"):
        check_stake(deployed.rpc, deployed.deployment, wrong, last, last.timestamp)


def test_a_provider_that_limits_results_gives_the_same_rows(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    _play(deployed)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs" and len(answers[0]["result"]) > 2:
            del answers[0]["result"]
            answers[0]["error"] = {"code": -32005, "message": "query returned more than 2 results"}

    liar.lie = lie
    narrow = _run(deployed, sessions, liar.url)
    limited = dump()
    wipe()
    assert _run(deployed, sessions) == narrow
    assert dump() == limited


def test_an_error_that_no_narrower_range_cures_is_raised(
    deployed: Any, liar: Any, sessions: Sessions
) -> None:
    _play(deployed)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            answers[0] = {"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "archive is down"}}

    liar.lie = lie
    with pytest.raises(RpcError, match="refused eth_getLogs: archive is down"):
        _run(deployed, sessions, liar.url)


def test_timestamps_come_from_headers_where_logs_have_none(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    _play(deployed)
    deployed.finalize()
    _run(deployed, sessions)
    with_times = dump()
    wipe()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            for log in answers[0]["result"]:
                del log["blockTimestamp"]

    liar.lie = lie
    _run(deployed, sessions, liar.url)
    assert dump() == with_times


@pytest.mark.parametrize("change", [{"removed": True}, {"blockNumber": "0x1"}, {"address": "0x" + "1" * 40}])
def test_a_log_that_was_not_asked_for_is_refused(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump, change: dict[str, Any]
) -> None:
    _play(deployed)
    deployed.finalize()
    _run(deployed, sessions)
    before = dump()
    deployed.stake(2, 1)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            answers[0]["result"][0].update(change)

    liar.lie = lie
    with pytest.raises(ChainError, match="not asked for"):
        _run(deployed, sessions, liar.url)
    assert dump() == before


def test_a_ledger_of_other_contracts_is_refused(deployed: Any, sessions: Sessions) -> None:
    deployed.finalize()
    _run(deployed, sessions)
    other = replace(deployed.deployment, vault=deployed.address(5))
    with pytest.raises(DeploymentError, match="use another database"):
        index(deployed.rpc, sessions, other)
    with pytest.raises(DeploymentError, match="is chain 31337"):
        index(deployed.rpc, sessions, replace(other, chain_id=1))


def test_a_second_indexer_is_noticed(deployed: Any, sessions: Sessions) -> None:
    last = deployed.finalize()
    _run(deployed, sessions)
    with sessions() as session, pytest.raises(ChainError, match="another indexer"):
        ledger.advance(session, deployed.deployment, last.number - 1, last, Last())


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
    _run(deployed, sessions)
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
        ledger.add_events(session, [posted, challenged], Last())
        assert ledger.reports(session) == [posted, challenged]


def test_an_empty_answer_that_the_headers_belie_is_refused(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump
) -> None:
    deployed.stake(2, TOKEN)
    deployed.finalize()
    _run(deployed, sessions)
    before = dump()
    deployed.stake(3, TOKEN)
    deployed.finalize()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getLogs" and "fromBlock" in call["params"][0]:
                answer["result"] = []

    liar.lie = lie
    with pytest.raises(MissingLogError, match=r"left out the logs of block \d+"):
        _run(deployed, sessions, liar.url)
    assert dump() == before


def test_what_was_interrupted_leaves_every_account_what_it_has(
    deployed: Any, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Balances by account are written now and then; who is killed in between has them from the events."""
    for who in (2, 3):
        deployed.stake(who, TOKEN)
    deployed.finalize()
    _run(deployed, sessions)
    monkeypatch.setattr(ranges, "FIRST", 3)
    monkeypatch.setattr(ranges, "WIDEST", 3)
    deployed.unstake(2, 5)
    mine(deployed.rpc, 12)
    deployed.finalize()
    calls = iter(range(9))

    def stop(_done: int, _of: int) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt

    with Rpc(deployed.url) as rpc, pytest.raises(KeyboardInterrupt):
        index(rpc, sessions, deployed.deployment, stop)
    with sessions() as session:
        # As if what a claim tells had been in the range that was interrupted, too.
        mark = (session.get(ledger.Checkpoint, 1).number, 99, Hash32("0x" + "aa" * 32), 5)
        ledger.store(
            session,
            ledger.take([Claimed(*mark, deployed.address(3), deployed.address(3), Wei(7), Wei(7))], Last()),
        )
        session.commit()
        last = ledger.last_of(session)
    two, three = deployed.address(2), deployed.address(3)
    assert (last.stakes[two], last.claimed[two]) == ((TOKEN - 5, 5), 0)
    assert (last.stakes[three], last.claimed[three]) == ((TOKEN, 0), 7)


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
    _play(deployed)
    deployed.finalize()
    _run(deployed, sessions)
    right = dump()
    wipe()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getLogs":
                for log in answer["result"]:
                    log[field] = value(log[field])

    liar.lie = lie
    with pytest.raises(MissingLogError, match="sent what is no log of ours"):
        _run(deployed, sessions, liar.url)
    assert dump() == NOTHING
    with Rpc(f"{liar.url},{deployed.url}", retries=0) as rpc:
        index(rpc, sessions, deployed.deployment)
        assert rpc.standing()[liar.url]
    assert dump() == right
