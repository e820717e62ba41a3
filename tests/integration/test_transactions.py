"""What people and watchers send gets into a block though fees rise, once, and is not forgotten while it waits."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from chain.attempts import PATIENCE, hand_over, sign
from chain.devnet import Devnet, mine
from chain.errors import ChainError, RpcError
from chain.fees import GWEI, raised
from chain.keys import address_of, devnet_accounts
from chain.rpc import Rpc
from chain.signer import KeySigner, decode
from chain.transactions import Courier, price
from chain.types import Hash32, Wei
from chain.wire import Receipt

ACCOUNTS = devnet_accounts(31337)
ME, THEM = address_of(ACCOUNTS[0]), address_of(ACCOUNTS[1])
LIMIT = Wei(500 * GWEI)
LAUNCH = """
import sys
from chain.keys import devnet_accounts
from chain.rpc import Rpc
from chain.transactions import Courier
with Rpc(sys.argv[1]) as rpc:
    Courier(rpc, devnet_accounts(31337)[0]).send(sys.argv[2], b"", int(sys.argv[3]))
"""


@dataclass
class Street:
    """An Anvil that makes a block only when it is told to, and couriers who wait beside it."""

    rpc: Rpc
    url: str
    limit: Wei = LIMIT
    closing: ExitStack = field(default_factory=ExitStack)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    def courier(self, url: str = "") -> Courier:
        rpc = self.closing.enter_context(Rpc(url, retries=0)) if url else self.rpc
        return Courier(rpc, KeySigner(ACCOUNTS[0], self.limit))

    def send(
        self, value: int = 7, by: Courier | None = None, timeout_s: float = 30.0, *, follows: bool = False
    ) -> Future[Receipt]:
        """Send in another thread, and return once the node has it, or that failed."""
        before, courier = len(self.pooled()), by or self.courier()
        coming = self._pool.submit(courier.send, THEM, b"", value, timeout_s)
        deadline = time.monotonic() + 10
        while (
            not follows and len(self.pooled()) == before and not coming.done() and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        return coming

    def pooled(self) -> list[dict[str, Any]]:
        """Return what waits of us, by nonce."""
        found = self.rpc.request("txpool_content")
        mine = {
            int(nonce): each
            for part in ("pending", "queued")
            for who, held in found[part].items()
            if who.lower() == ME
            for nonce, each in held.items()
        }
        return [mine[nonce] for nonce in sorted(mine)]

    def raise_fees(self, gwei: int = 100, blocks: int = PATIENCE) -> None:
        """Make blocks whose base fee is above what was offered."""
        for _ in range(blocks):
            self.rpc.request("anvil_setNextBlockBaseFeePerGas", hex(gwei * GWEI))
            mine(self.rpc)

    def until_dearer(self, gwei: int) -> dict[str, Any]:
        """Wait until the pool holds one of us that pays so much, and return it."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for each in self.pooled():
                if int(each["maxFeePerGas"], 16) >= gwei * GWEI:
                    return each
            time.sleep(0.02)
        raise AssertionError("it was not replaced")

    def given(self) -> int:
        return self.rpc.balance(THEM) - 10_000 * 10**18

    def keep_making_blocks(self, coming: Future[Any]) -> None:
        while not coming.done():
            mine(self.rpc)
            time.sleep(0.02)


@pytest.fixture
def street(anvil: Devnet) -> Iterator[Street]:
    with Rpc(anvil.url) as rpc:
        rpc.request("evm_setAutomine", False)  # noqa: FBT003  (Anvil takes it by position)
        made = Street(rpc, anvil.url)
        yield made
        # Whoever still waits is let go.
        rpc.request("evm_setAutomine", True)  # noqa: FBT003
        mine(rpc)
        made._pool.shutdown()
        made.closing.close()


# -- fees --------------------------------------------------------------------------------------------------------


def test_what_fees_left_behind_takes_its_place_with_higher_fees_and_the_same_contents(street: Street) -> None:
    coming = street.send()
    (first,) = street.pooled()
    street.raise_fees()
    dearer = street.until_dearer(100)
    assert [dearer[name] for name in ("nonce", "to", "value", "input", "gas")] == [
        first[name] for name in ("nonce", "to", "value", "input", "gas")
    ]
    assert int(dearer["maxPriorityFeePerGas"], 16) >= raised(Wei(int(first["maxPriorityFeePerGas"], 16)))
    mine(street.rpc)
    assert coming.result(10).transaction_hash == dearer["hash"]
    assert (street.given(), street.rpc.nonce(ME)) == (7, 1)


def test_it_is_given_its_blocks_before_it_is_replaced(street: Street) -> None:
    coming = street.send()
    street.raise_fees(blocks=PATIENCE - 1)
    time.sleep(1)
    assert all(int(each["maxFeePerGas"], 16) < 100 * GWEI for each in street.pooled())
    street.raise_fees(blocks=1)
    street.until_dearer(100)
    mine(street.rpc)
    assert coming.result(10).ok


def test_the_first_attempt_counts_too_when_it_is_mined_after_all(street: Street) -> None:
    coming = street.send()
    (held,) = street.pooled()
    first = street.rpc.request("eth_getRawTransactionByHash", held["hash"])
    street.raise_fees()
    dearer = street.until_dearer(100)
    street.rpc.request("anvil_dropTransaction", dearer["hash"])
    street.rpc.request("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    hand_over(street.rpc, bytes.fromhex(first[2:]))
    mine(street.rpc)
    assert coming.result(10).transaction_hash == held["hash"]
    assert street.given() == 7


def test_no_more_is_paid_than_the_limit_and_the_end_of_waiting_says_what_may_still_come(
    street: Street,
) -> None:
    street.limit = Wei(50 * GWEI)
    coming = street.send(timeout_s=2.0)
    (held,) = street.pooled()
    street.raise_fees()
    with pytest.raises(
        RpcError,
        match=rf"{held['hash']} is in no block after 2 s: .*more than the limit of 50 gwei.*; it may still get into one",
    ):
        coming.result(10)
    assert all(int(each["maxFeePerGas"], 16) <= 50 * GWEI for each in street.pooled())


def test_whoever_sent_what_another_process_replaced_still_sees_its_end(street: Street) -> None:
    first, second = street.send(1), street.send(2)
    street.raise_fees()
    street.until_dearer(100)
    street.keep_making_blocks(second)
    assert (first.result(10).ok, second.result(10).ok, street.given()) == (True, True, 3)


# -- what an earlier run left ------------------------------------------------------------------------------------


def _left_behind(street: Street, value: int = 7) -> str:
    """Send in another process that is killed while it waits, and return the hash."""
    process = subprocess.Popen([sys.executable, "-c", LAUNCH, street.url, THEM, str(value)])
    deadline = time.monotonic() + 30
    while not (held := street.pooled()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    return str(held[0]["hash"])


def test_what_an_earlier_run_left_in_the_pool_is_followed_and_not_sent_twice(
    street: Street, caplog: pytest.LogCaptureFixture
) -> None:
    before = _left_behind(street)
    coming = street.send(follows=True)
    deadline = time.monotonic() + 10
    while "says the same" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [each["hash"] for each in street.pooled()] == [before]
    mine(street.rpc)
    assert coming.result(10).transaction_hash == before
    assert (street.given(), street.rpc.nonce(ME)) == (7, 1)
    assert f"{before} says the same and waits for a block: it is followed, not sent twice" in caplog.text


def test_what_an_earlier_run_left_is_replaced_when_it_is_overtaken(street: Street, liar: Any) -> None:
    """Anvil throws out what it cannot take; others keep it in their pool, as the node in front does here."""
    before = _left_behind(street)
    raw = street.rpc.request("eth_getRawTransactionByHash", before)
    (held,) = street.pooled()
    street.raise_fees(blocks=1)
    assert street.pooled() == []

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getTransactionCount" and call["params"][1] == "pending":
                answer["result"] = "0x1"
            if call["method"] == "eth_getTransactionBySenderAndNonce":
                answer["result"] = held

    liar.lie = lie
    coming = street.send(by=street.courier(liar.url))
    dearer = street.until_dearer(100)
    assert (dearer["nonce"], dearer["value"]) == ("0x0", "0x7")
    assert dearer["hash"] != decode(bytes.fromhex(raw[2:])).hash
    mine(street.rpc)
    assert coming.result(10).ok
    assert street.given() == 7


@pytest.mark.parametrize("told", [True, False])
def test_a_pool_is_asked_by_either_method_and_one_that_keeps_it_secret_stops_what_may_be_the_same(
    street: Street, liar: Any, *, told: bool
) -> None:
    before = _left_behind(street)
    (held,) = street.pooled()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getTransactionBySenderAndNonce":
                answer.pop("result", None)
                answer["error"] = {"code": -32601, "message": "the method does not exist"}
            if call["method"] == "txpool_contentFrom" and told:
                answer.pop("error", None)
                answer["result"] = {"pending": {"0": held}, "queued": {}}

    liar.lie = lie
    coming = street.send(by=street.courier(liar.url), follows=True)
    if not told:
        with pytest.raises(
            ChainError, match=rf"{ME} with nonce 0 waits .* does not tell which one: nothing was sent"
        ):
            coming.result(10)
        return
    time.sleep(0.5)
    mine(street.rpc)
    assert coming.result(10).transaction_hash == before
    assert street.given() == 7


def test_a_node_cannot_invent_what_waits(street: Street, liar: Any) -> None:
    _left_behind(street)
    (held,) = street.pooled()

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getTransactionBySenderAndNonce":
                answer["result"] = held | {"value": "0x9"}

    liar.lie = lie
    coming = street.send(9, by=street.courier(liar.url))
    street.keep_making_blocks(coming)
    assert coming.result(10).ok
    # What was signed for 7 and what is asked for now, each once: the invented one was not taken for it.
    assert (street.given(), street.rpc.nonce(ME)) == (16, 2)


def test_a_courier_remembers_what_waits_though_the_node_forgets_it(
    street: Street, caplog: pytest.LogCaptureFixture
) -> None:
    courier = street.courier()
    with pytest.raises(RpcError, match="it may still get into one"):
        street.send(by=courier, timeout_s=0.3).result(10)
    (held,) = street.pooled()
    street.rpc.request("anvil_dropTransaction", held["hash"])
    coming = street.send(by=courier)
    assert [each["hash"] for each in street.pooled()] == [held["hash"]]
    assert f"{held['hash']} says the same" in caplog.text
    mine(street.rpc)
    assert coming.result(10).transaction_hash == held["hash"]
    assert (street.given(), street.rpc.nonce(ME)) == (7, 1)


def test_what_an_earlier_run_left_before_it_is_brought_along(street: Street) -> None:
    _left_behind(street, 1)
    coming = street.send(2)
    street.raise_fees()
    street.until_dearer(100)
    street.keep_making_blocks(coming)
    assert (coming.result(10).ok, street.given(), street.rpc.nonce(ME)) == (True, 3, 2)


# -- the end of waiting ------------------------------------------------------------------------------------------


def test_a_nonce_that_went_elsewhere_ends_the_waiting(street: Street) -> None:
    coming = street.send()
    (held,) = street.pooled()
    time.sleep(0.5)  # it is handed over once more at the first look
    street.rpc.request("anvil_dropTransaction", held["hash"])
    other = sign(ACCOUNTS[0], price(street.rpc, ME, THEM, b"", 1).numbered(0))
    hand_over(street.rpc, other.raw)
    mine(street.rpc)
    with pytest.raises(ChainError, match=rf"nonce 0 of {ME} went to {other.hash}: {held['hash']}"):
        coming.result(10)


def test_a_node_that_fails_while_it_is_waited_for_is_asked_again(street: Street, liar: Any) -> None:
    down = threading.Event()

    def ask(_calls: list[dict[str, Any]]) -> None:
        if down.is_set():
            raise ConnectionAbortedError

    liar.ask = ask
    coming = street.send(by=street.courier(liar.url))
    down.set()
    time.sleep(0.5)
    mine(street.rpc)
    assert not coming.done()
    down.clear()
    assert coming.result(10).ok


def test_who_stops_waiting_is_told_what_may_still_be_mined(street: Street) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, street.url, THEM, "7"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not (held := street.pooled()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert re.search(rf"stopped while {held[0]['hash']} is in no block: it may still get into one", said)
    mine(street.rpc)
    assert street.rpc.receipt(Hash32(held[0]["hash"])) is not None


def test_no_warning_is_given_where_nothing_is_odd(street: Street, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        coming = street.send()
        mine(street.rpc)
        assert coming.result(10).ok
    assert caplog.text == ""
