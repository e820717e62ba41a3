"""An epoch is closed on what several nodes say by themselves and is stored; else it is said who says what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import Session, select

from chain import ledger
from chain.devnet import Devnet, mine
from chain.errors import NodeError, QuorumError, RpcError
from chain.events import topics
from chain.indexer import index
from chain.quorum import agree
from chain.rpc import Rpc
from chain.types import BlockRef, Hash32
from tests.faulty import (
    Fault,
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
from tests.integration.conftest import COOLDOWN_S, GENESIS, Chain, contracts_on
from tests.integration.payer import Payer

Sessions = Callable[[], Session]


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """Play every event of both contracts but a challenge."""
    with Devnet(0, timestamp=GENESIS) as anvil, contracts_on(anvil) as made:
        vault, payer = made.deployment.stake_vault(), Payer(made)
        for who in (0, 2, 3):
            made.stake(who, (who + 1) * 10**18)
        made.unstake(2, 10**18)
        made.act(2, vault, "cancelUnstake", 7)
        mine(made.rpc, 10)
        made.fund(4, 0, 7_000_000)
        payer.pay(7_000_100)
        payer.post(7_000_100)
        payer.veto()
        made.warp(made.rpc.block("latest").timestamp + COOLDOWN_S)
        made.act(2, vault, "withdraw")
        yield made


@pytest.fixture
def ask(chain: Chain, sessions: Sessions) -> Callable[..., None]:
    """Index the chain, and let nodes agree on all that happened up to the latest block."""
    # All that happened is before the last final block, which is of a later second.
    chain.warp(chain.rpc.block("latest").timestamp + 100)
    mine(chain.rpc, 2)
    index(chain.rpc, sessions, chain.deployment)

    def ask(
        asked: list[Faulty], wanted: int = 2, end: int | None = None, block: BlockRef | None = None
    ) -> None:
        final = chain.rpc.block("finalized")
        here, ends = block or chain.rpc.block(final.number - 1), end or final.timestamp
        urls = ",".join(node.url for node in asked)
        with Rpc(urls, retries=0, chain_id=31337) as rpc, sessions() as session:
            agree(rpc, session, chain.deployment, chain.deployment.from_block, here, wanted, ends)

    return ask


def _changes(which: int, field: str, change: Callable[[Any], Any]) -> Fault:
    """Change a field of one of the logs, counted over all answers."""

    def fault(calls: list[Any], forward: Any) -> Any:
        answers = forward(calls)
        for answer in answers:
            for log in answer["result"] if isinstance(answer["result"], list) else ():
                if log["topics"][0] == topics()[which]:
                    log[field] = change(log[field])
        return answers

    return fault


FUNDED = 4
_names_another_run = _changes(FUNDED, "topics", lambda all_: [all_[0], "0x" + f"{5:064x}", all_[2]])
_sends_nonsense = _changes(FUNDED, "data", lambda data: data[:-2])


def _invents(calls: list[Any], forward: Any) -> Any:
    """Tell the first stake of each answer once more, one place earlier."""
    answers = forward(calls)
    for answer in answers:
        logs = answer["result"]
        if isinstance(logs, list) and logs and logs[0]["topics"][0] == topics()[0]:
            logs.insert(0, logs[0] | {"logIndex": hex(int(logs[0]["logIndex"], 16) - 1)})
    return answers


def _counted(node: Faulty) -> bool:
    return "eth_getLogs" in node.seen and "eth_getBlockByNumber" in node.seen


def test_nodes_that_say_the_same_agree_and_each_was_asked_by_itself(ask: Any, nodes: Any) -> None:
    asked = nodes(honest, honest, honest)
    ask(asked)
    assert [_counted(node) for node in asked] == [True, True, False]


@pytest.mark.parametrize("fault", [limits_range(7), limits_range(1), limits_results(1)])
def test_a_node_that_limits_what_it_gives_counts_the_same(ask: Any, nodes: Any, fault: Any) -> None:
    asked = nodes(fault, honest)
    ask(asked)
    assert asked[0].seen.count("eth_getLogs") > 4


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (drops_log(0), r"without Staked\(block=\d+, .*, which is stored"),
        (drops_log(-1), r"without Withdrawn\(block=\d+, .*, which is stored"),
        (hides_logs, r"without Staked\(block=\d+, .*, which is stored"),
        (_invents, r"with Staked\(block=\d+, .*, which is not stored"),
        (_names_another_run, r"with Funded\(.* run=5, .*, which is stored as Funded\(.* run=0, "),
        (_sends_nonsense, r"\S+ sent what is no log of ours"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_node_that_says_something_else_is_named_with_the_first_event(
    ask: Any, nodes: Any, fault: Any, words: str, place: int
) -> None:
    asked = nodes(*((fault, honest) if place == 0 else (honest, fault)))
    with pytest.raises(NodeError, match="do not agree on block") as caught:
        ask(asked)
    assert re.search(rf"{asked[place].url}: block 0x\w+, \d+ events, {words}", str(caught.value))
    assert re.search(
        rf"{asked[1 - place].url}: block 0x\w+, 13 events, as they are stored", str(caught.value)
    )


STORED: list[tuple[Any, str, str, Any]] = [
    *((ledger.FundingRow, "", column, 5) for column in ("run", "amount", "total_funded", "timestamp")),
    (ledger.FundingRow, "", "payer", "0x" + "1" * 40),
    (ledger.StakeRow, "Staked", "account", "0x" + "1" * 40),
    *((ledger.StakeRow, "Staked", column, 5) for column in ("amount", "staked", "timestamp")),
    *((ledger.StakeRow, "UnstakeRequested", column, 5) for column in ("pending", "available_at")),
    *((ledger.StakeRow, "UnstakeCancelled", column, 5) for column in ("amount", "staked", "pending")),
    *((ledger.StakeRow, "Withdrawn", column, 5) for column in ("amount", "pending")),
    *((ledger.ClaimRow, "", column, 5) for column in ("amount", "cumulative")),
    *((ledger.ClaimRow, "", column, "0x" + "1" * 40) for column in ("account", "to")),
    *((ledger.ReportRow, "Posted", column, "0x" + "1" * 64) for column in ("root", "data_hash", "rules_hash")),
    *((ledger.ReportRow, "Posted", column, 5) for column in ("epoch", "sum", "depth", "active_at")),
    (ledger.ReportRow, "Activated", "sum", 5),
    (ledger.ReportRow, "Vetoed", "root", "0x" + "1" * 64),
]  # fmt: skip
"""Table, kind of event, column, and what is put there."""


def test_what_the_index_was_fed_before_is_found_out_by_nodes_that_are_honest_now(
    ask: Any, nodes: Any, sessions: Sessions
) -> None:
    asked = nodes(honest, honest)
    for table, kind, column, value in STORED:
        with sessions() as session:
            wanted = select(table).order_by(table.block)
            row = session.exec(wanted.where(table.kind == kind) if kind else wanted).first()
            block, before = row.block, getattr(row, column)
            setattr(row, column, value)
            session.commit()
            with pytest.raises(NodeError) as told:
                ask(asked)
            # Both nodes say so, each with what it has and what is stored.
            assert str(told.value).count(f"(block={block}, ") == 4, column
            assert "haptic index --anew" in str(told.value)
            setattr(row, column, before)
            session.commit()
    ask(asked)


def test_a_node_with_another_hash_is_named_beside_the_other(ask: Any, nodes: Any) -> None:
    asked = nodes(honest, another_hash)
    with pytest.raises(NodeError, match=rf"{asked[1].url}: block 0x9999"):
        ask(asked)


def test_nodes_that_agree_on_another_block_than_the_one_in_use_are_no_quorum(
    chain: Chain, ask: Any, nodes: Any
) -> None:
    with pytest.raises(NodeError, match=", read as 0x7777"):
        ask(nodes(honest, honest), block=replace(chain.rpc.block("finalized"), hash=Hash32("0x" + "7" * 64)))


@pytest.mark.parametrize(
    "fault",
    [hangs_up, is_chain(5), lags(3), later(1, hangs_up), refuses(-32000, "no index", "eth_getLogs")],
)
def test_another_node_stands_in_for_one_that_does_not_answer(ask: Any, nodes: Any, fault: Any) -> None:
    silent, good, third = nodes(fault, honest, honest)
    ask([silent, good, third])
    with pytest.raises(
        QuorumError, match=f"2 nodes must agree .* 1 answered: {silent.url} .*HAPTIC_RPC_QUORUM"
    ):
        ask([silent, good])


def test_too_few_nodes_are_no_quorum(ask: Any, nodes: Any) -> None:
    (one,) = nodes(honest)
    with pytest.raises(QuorumError, match=rf"2 nodes must agree .*1 answered: 1 can be asked \({one.url}\)"):
        ask([one])
    with pytest.raises(QuorumError, match="2 nodes must agree"):
        ask([one, one])


def test_a_node_that_is_distrusted_has_no_voice(chain: Chain, nodes: Any, sessions: Sessions) -> None:
    block = chain.rpc.block("finalized")
    liar, good = nodes(honest, honest)
    with Rpc(f"{liar.url} {good.url}", retries=0) as rpc, sessions() as session:
        rpc.chain_id()
        assert rpc.distrust("a lie")
        with pytest.raises(QuorumError, match=rf"1 can be asked \({good.url}\)"):
            agree(rpc, session, chain.deployment, 0, block, 2, block.timestamp + 1)


def test_each_node_by_itself_stands_for_no_other(chain: Chain, nodes: Any) -> None:
    dead, good = nodes(hangs_up, honest)
    with Rpc(f"{dead.url} {good.url}", retries=0) as rpc:
        first, second = rpc.each()
        with pytest.raises(RpcError, match=f"{dead.url} does not answer"):
            first.chain_id()
        assert good.seen == []
        assert second.block("latest") == chain.rpc.block("latest")
        assert (first.name, second.name) == (dead.url, good.url)


def test_a_block_that_is_not_the_last_before_the_end_for_all_is_refused(
    chain: Chain, ask: Any, nodes: Any
) -> None:
    before = chain.rpc.block("latest")
    end = before.timestamp + 100
    chain.warp(end)
    with pytest.raises(NodeError, match="not yet for good, the last before the end"):
        ask(nodes(honest, honest), end=end, block=before)
    mine(chain.rpc, 2)
    ask(nodes(honest, honest), end=end, block=before)
    with pytest.raises(NodeError, match="the last before the end"):
        ask(nodes(honest, honest), end=end, block=chain.rpc.block(before.number - 1))
