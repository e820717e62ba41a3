"""The ledger is that of a clean sync, however the chain changes and whenever this process dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlmodel import Session, create_engine

from chain import ledger, ranges
from chain.continuity import Last
from chain.devnet import mine
from chain.errors import (
    BusyIndexError,
    ChainError,
    ReorgError,
)
from chain.events import Claimed
from chain.indexer import IndexResult, index
from chain.rpc import Rpc
from chain.types import Hash32, Wei
from tests.integration.indexer.staking import NOTHING, TOKEN, Dump, Sessions, play, run


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
    play(deployed)
    deployed.finalize()
    run(deployed, sessions)
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
        run(deployed, sessions)
        assert dump() == clean
    assert statement > 20
    assert half > 0


def test_a_reorg_deeper_than_finality_stops_and_writes_nothing(
    deployed: Any, sessions: Sessions, dump: Dump
) -> None:
    play(deployed)
    deployed.finalize()
    run(deployed, sessions)
    before = dump()
    deployed.rpc.request("anvil_reorg", 6, [])
    with pytest.raises(ReorgError, match="was final"):
        run(deployed, sessions)
    mine(deployed.rpc, 10)
    with pytest.raises(ReorgError, match="was final"):
        run(deployed, sessions)
    assert dump() == before


def test_a_range_that_does_not_build_on_the_checkpoint_is_refused(
    deployed: Any, liar: Any, sessions: Sessions, dump: Dump
) -> None:
    play(deployed)
    deployed.finalize()
    run(deployed, sessions)
    before = dump()
    mine(deployed.rpc, 3)

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_getLogs":
            answers[1]["result"]["parentHash"] = "0x" + "9" * 64

    liar.lie = lie
    with pytest.raises(ReorgError, match="9999"):
        run(deployed, sessions, liar.url)
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
            run(deployed, sessions)
    deployed.finalize()
    run(deployed, sessions)
    followed = dump()
    wipe()
    run(deployed, sessions)
    assert dump() == followed


def test_a_reorg_above_finality_is_none(deployed: Any, sessions: Sessions) -> None:
    play(deployed)
    deployed.finalize()
    run(deployed, sessions)
    deployed.rpc.request("anvil_reorg", 2, [])
    mine(deployed.rpc, 4)
    assert run(deployed, sessions).indexed_to == deployed.rpc.block("finalized").number


def test_a_node_that_lags_is_no_reorg(deployed: Any, liar: Any, sessions: Sessions, dump: Dump) -> None:
    play(deployed)
    done = deployed.finalize()
    run(deployed, sessions)
    before = dump()

    def ask(calls: list[dict[str, Any]]) -> None:
        for call in calls:
            if call["params"][:1] in (["latest"], ["finalized"]):
                call["params"][0] = "0x3"

    liar.ask = ask
    assert run(deployed, sessions, liar.url) == IndexResult(3, 3, done.number, 0)
    assert dump() == before


def test_a_second_indexer_is_noticed(deployed: Any, sessions: Sessions) -> None:
    last = deployed.finalize()
    run(deployed, sessions)
    with sessions() as session, pytest.raises(ChainError, match="another indexer"):
        ledger.advance(session, deployed.deployment, last.number - 1, last, Last())


@pytest.mark.parametrize("amid", ["last_of", "load_balances"])
def test_what_a_second_indexer_writes_meanwhile_makes_no_node_a_liar(
    deployed: Any, sessions: Sessions, dump: Dump, monkeypatch: pytest.MonkeyPatch, amid: str
) -> None:
    """Balances and totals as another indexer has just left them do not go before the events that this one reads."""
    deployed.stake(2, TOKEN)
    deployed.finalize()
    run(deployed, sessions)
    if amid == "last_of":
        deployed.fund(4, 0, 7)
    else:
        deployed.unstake(2, 5)
    deployed.finalize()
    read = getattr(ledger, amid)

    def late(*args: Any) -> Any:
        monkeypatch.setattr(ledger, amid, read)
        args[0].rollback()
        run(deployed, sessions)
        return read(*args)

    monkeypatch.setattr(ledger, amid, late)
    with pytest.raises(BusyIndexError, match="nothing is lost"):
        run(deployed, sessions)
    alone = dump()
    assert run(deployed, sessions).events == 0
    assert dump() == alone


def test_no_range_is_committed_amid_a_taking_back(
    deployed: Any, engine: Engine, sessions: Sessions, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it would stay, and no indexer could store it again; before the first there is no row to lock."""
    deployed.stake(2, TOKEN)
    deployed.fund(4, 0, 7)
    deployed.finalize()
    store, written, amid, committed = ledger.store, threading.Event(), threading.Event(), threading.Event()

    def slow(session: Session, rows: Any) -> None:
        store(session, rows)
        written.set()
        amid.wait(1)

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE FROM chain_funding"):
            amid.set()
            committed.wait(2)

    def take_back() -> None:
        written.wait()
        with sessions() as session:
            ledger.take_back(session)
            session.commit()

    event.listen(engine, "before_cursor_execute", look)
    monkeypatch.setattr(ledger, "store", slow)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take_back)
        run(deployed, sessions)
        committed.set()
        taken.result()
    event.remove(engine, "before_cursor_execute", look)
    run(deployed, sessions)
    assert [len(rows) for rows in dump()[1:3]] == [1, 1]


def test_what_was_interrupted_leaves_every_account_what_it_has(
    deployed: Any, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Balances by account are written now and then; who is killed in between has them from the events."""
    for who in (2, 3):
        deployed.stake(who, TOKEN)
    deployed.finalize()
    run(deployed, sessions)
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
