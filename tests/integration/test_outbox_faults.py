"""What was stored is sent once, whoever else sends, whatever nodes answer, wherever the sender is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select
from sqlmodel import Session, SQLModel, create_engine

from chain import ledger, outbox
from chain.attempts import PATIENCE, Taken, hand_over
from chain.devnet import mine
from chain.errors import ChainError, RpcError
from chain.rpc import Rpc
from chain.transport import RpcAnswerError
from tests.integration.postbox import ACCOUNTS, KEY, ME, OTHER, THEM, VALUE, Post, is_the_same


def test_a_second_operator_with_the_same_key_is_a_loud_error_and_outbids_nobody(
    post: Post, tmp_path: Path, liar: Any
) -> None:
    def down(calls: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_sendRawTransaction":
            raise ConnectionAbortedError

    engine = create_engine(f"sqlite:///{tmp_path / 'second.db'}")
    ledger.TransactionRow.metadata.create_all(engine)
    second = Post(post.rpc, lambda: Session(engine), value=VALUE + 1)
    liar.ask = down
    with Rpc(liar.url, retries=0) as rpc, pytest.raises(RpcError):
        second.send(OTHER, rpc)
    post.send()
    with pytest.raises(ChainError, match="is a second service, or a person, sending with this key"):
        second.settle(OTHER)
    mine(post.rpc, 3)
    assert second.settle(OTHER) is None
    assert second.row(OTHER).status == "lost"
    assert post.given() == 1
    engine.dispose()


def test_of_two_processes_on_one_database_only_one_makes_the_transaction(post: Post, liar: Any) -> None:
    faster = iter([True])

    def ask(calls: list[dict[str, Any]]) -> None:
        # Between the look into the database and the choice of a nonce, where the other then sees one in the pool.
        if calls[0]["method"] == "eth_estimateGas" and next(faster, False):
            thread = threading.Thread(target=post.send)
            thread.start()
            thread.join()

    liar.ask = ask
    with Rpc(liar.url) as rpc, pytest.raises(ChainError, match="stored by another process at this moment"):
        post.send(rpc=rpc)
    assert post.nonces() == [0]
    mine(post.rpc)
    assert post.given() == 1


def _answering(liar: Any, text: str) -> None:
    """Let the node say this whenever it is handed a transaction."""

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_sendRawTransaction":
                answer.pop("result", None)
                answer["error"] = {"code": -32000, "message": text}

    liar.lie = lie


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("already known", Taken.POOLED),
        ("ALREADY_EXISTS: already known", Taken.POOLED),
        ("transaction already imported", Taken.POOLED),
        ("AlreadyKnown", Taken.POOLED),
        ("Known transaction", Taken.POOLED),
        ("existing tx with same hash", Taken.POOLED),
        ("replacement transaction underpriced", Taken.RIVAL),
        ("ReplacementNotAllowed", Taken.RIVAL),
        ("could not replace existing tx", Taken.RIVAL),
        ("transaction underpriced: gas tip cap 1, minimum needed 1000000", Taken.CHEAP),
        ("max fee per gas less than block base fee: address 0x, maxFeePerGas: 1, baseFee: 2", Taken.CHEAP),
        ("transaction gas price below minimum", Taken.CHEAP),
        ("FeeTooLow, MaxFeePerGas too low", Taken.CHEAP),
        ("nonce too low: next nonce 5, tx nonce 4", Taken.USED),
        ("OldNonce, Current nonce: 5, nonce of rejected tx: 4", Taken.USED),
        ("insufficient funds for gas * price + value: balance 0", Taken.POOR),
    ],
)
def test_what_nodes_answer_to_a_transaction_is_understood(
    post: Post, liar: Any, text: str, taken: Taken
) -> None:
    _answering(liar, text)
    with Rpc(liar.url) as rpc:
        assert hand_over(rpc, post.send().raw) is taken


def test_an_answer_that_is_not_understood_is_passed_on(post: Post, liar: Any) -> None:
    _answering(liar, "tx fee (1.20 ether) exceeds the configured cap (1.00 ether)")
    with Rpc(liar.url) as rpc, pytest.raises(RpcAnswerError, match="exceeds the configured cap"):
        post.send(rpc=rpc)
    assert post.status() == "stored"
    assert post.send().status == "sent"


def test_a_pool_that_wants_more_of_our_own_replacement_gets_more_later(post: Post, liar: Any) -> None:
    post.send()
    post.raise_fees()
    post.settle()
    mine(post.rpc, 0)
    _answering(liar, "replacement transaction underpriced")
    with Rpc(liar.url) as rpc:
        post.settle(rpc=rpc)
        assert len(post.attempts()) == 2
        post.rpc.request("anvil_dropTransaction", post.attempts()[1].hash)
        mine(post.rpc, PATIENCE)
        hand_over(post.rpc, post.attempts()[1].raw)
        post.settle(rpc=rpc)
    assert len(post.attempts()) == 3
    is_the_same(post)


def test_a_node_that_says_that_the_account_has_spent_its_money_elsewhere_is_put_into_words(
    post: Post, liar: Any
) -> None:
    _answering(liar, "insufficient funds for gas * price + value")
    with Rpc(liar.url) as rpc, pytest.raises(ChainError, match=rf"{ME} has .* ETH .*, too little for 0x"):
        post.send(rpc=rpc)


@pytest.mark.parametrize("odd", ["no number", None, {}])
def test_a_node_that_answers_nonsense_is_named(post: Post, liar: Any, odd: Any) -> None:
    post.send()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] in {"eth_getTransactionCount", "eth_getTransactionReceipt"}:
                answer["result"] = odd

    liar.lie = lie
    with Rpc(liar.url) as rpc, pytest.raises(RpcError, match="use another node"):
        post.settle(rpc=rpc)


# -- kill -9 -----------------------------------------------------------------------------------------------------


def _in_child(url: str, database: str) -> None:
    engine = create_engine(database)
    with Rpc(url) as rpc, Session(engine) as session:
        row = outbox.send(rpc, session, ACCOUNTS[0], THEM, b"", VALUE, key=KEY)
        outbox.bring(rpc, session, ACCOUNTS[0], row, timeout_s=10)


def _kill_at(liar: Any, request: int, database: str, *, after: bool) -> bool:
    """Send in another process that dies before, or after, so many requests reach the node; False if it needed less."""
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(liar.url, database))
    count = iter(range(10**6))

    def kill(*_: Any) -> None:
        if next(count) == request:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            if not after:
                raise ConnectionAbortedError

    liar.ask, liar.lie = (lambda *_: None, kill) if after else (kill, lambda *_: None)
    child.start()
    child.join()
    liar.ask = liar.lie = lambda *_: None
    return child.exitcode != 0


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_request_one_transaction_with_one_nonce_reaches_the_chain(
    post: Post, liar: Any, engine: Engine, wipe: Callable[[], None], *, after: bool
) -> None:
    post.rpc.request("evm_setAutomine", True)  # noqa: FBT003
    request, died = 0, True
    while died:
        wipe()
        given, nonce = post.given(), post.rpc.nonce(ME)
        died = _kill_at(liar, request, str(engine.url), after=after)
        post.send()
        deadline = time.monotonic() + 10
        while post.settle() is None:
            # Anvil makes the block by itself, a moment later.
            assert time.monotonic() < deadline
        assert (post.given(), post.rpc.nonce(ME), post.nonces()) == (given + 1, nonce + 1, [nonce])
        request += 1
    assert request > 8


def _rows(engine: Engine) -> dict[Any, list[dict[str, Any]]]:
    """Return what is stored, by table, parents first."""
    with engine.connect() as connection:
        found = {
            t: [dict(row) for row in connection.execute(select(t)).mappings()]
            for t in SQLModel.metadata.sorted_tables
        }
    return {table: rows for table, rows in found.items() if rows}


@pytest.mark.parametrize("mined", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_request_of_a_replacement_the_same_reaches_the_chain_once(
    post: Post, liar: Any, engine: Engine, wipe: Callable[[], None], *, after: bool, mined: bool
) -> None:
    post.send()
    post.raise_fees()
    kept = _rows(engine)
    snapshot, stored = post.rpc.request("evm_snapshot"), set()
    for request in range(8):
        # At the last it waits for a block, which nobody makes while it lives.
        assert _kill_at(liar, request, str(engine.url), after=after)
        stored.add(len(post.attempts()))
        if mined:
            mine(post.rpc)
        if post.settle() is None:
            mine(post.rpc)
            assert post.settle() is not None
        is_the_same(post)
        assert (post.given(), post.rpc.nonce(ME), post.nonces(), len(post.attempts())) == (1, 1, [0], 2)
        assert post.rpc.request("evm_revert", snapshot)
        snapshot = post.rpc.request("evm_snapshot")
        post.rpc.request("anvil_dropAllTransactions")
        wipe()
        with engine.begin() as connection:
            for table, rows in kept.items():
                connection.execute(insert(table), rows)
    assert stored == {1, 2}
