"""Of two nodes one may do whatever it likes: what is read is what the honest one says, and it alone is trusted."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlmodel import Session

from chain import ranges
from chain.devnet import Devnet, mine
from chain.errors import RpcError
from chain.indexer import index
from chain.providers import (
    FEW_RETRIES,
    FIRST_REST_S,
    LAG_BLOCKS,
    LIE_REST_S,
    LONGEST_LIE_REST_S,
    LONGEST_REST_S,
    LOOK_S,
)
from chain.rpc import Rpc
from chain.transport import RpcAnswerError, RpcTimeoutError, UnknownBlockError
from chain.types import Hash32
from tests.faulty import (
    Fault,
    Faulty,
    drops_log,
    errs_in_batch,
    fails,
    first,
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
from tests.integration.conftest import GENESIS, Chain, contracts_on

KEY = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
FAR = 4 * LAG_BLOCKS
Sessions = Callable[[], Session]
Dump = Callable[[], list[Any]]


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
    }


@dataclass
class Clock:
    """Time that goes on when it is told to, and how long somebody slept."""

    now: float = 1000.0

    def __post_init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def rpc(self, *urls: str, timeout_s: float = 0.25, retries: int = 4, chain_id: int | None = None) -> Rpc:
        text = ", ".join(urls)
        return Rpc(text, timeout_s, retries=retries, sleep=self.pauses.append, clock=self, chain_id=chain_id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """Play a little on a chain that all these tests read."""
    with Devnet(0, timestamp=GENESIS) as anvil, contracts_on(anvil) as made:
        for who in (0, 2, 3):
            made.stake(who, (who + 1) * 10**18)
        mine(made.rpc, FAR)
        made.unstake(2, 10**18)
        made.stake(2, 5)
        made.fund(4, 0, 7_000_000)
        made.fund(5, 1, 11)
        made.finalize()
        yield made


@pytest.fixture
def nodes(chain: Chain) -> Iterator[Callable[..., list[Faulty]]]:
    """Return the way to nodes in front of the chain, one for each fault."""
    with ExitStack() as stack:
        yield lambda *faults: [stack.enter_context(Faulty(chain.url, fault)) for fault in faults]


# -- the law ----------------------------------------------------------------------------------------------------


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


# -- when the next is asked -------------------------------------------------------------------------------------


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


# -- who rests, and how long ------------------------------------------------------------------------------------


def test_a_node_that_failed_rests_longer_each_time_and_comes_back(clock: Clock, nodes: Any) -> None:
    bad, good = nodes(hangs_up, honest)
    rest = FIRST_REST_S
    with clock.rpc(bad.url, good.url) as rpc:
        for round_number in range(9):
            bad.requests.clear()
            rpc.chain_id()
            # The first time with a few attempts, then with one: it has to show that it is back.
            assert len(bad.requests) == (0 if round_number else FEW_RETRIES) + 1
            bad.requests.clear()
            clock.now += rest - 0.1
            rpc.chain_id()
            assert bad.requests == []
            clock.now += 0.2
            rest = min(2 * rest, LONGEST_REST_S)
        assert rest == LONGEST_REST_S
        bad.fault = honest
        before = len(good.seen)
        rpc.chain_id()
        rpc.chain_id()
        assert rpc.source == bad.url
        assert len(good.seen) == before
        assert rpc.standing() == {bad.url: "", good.url: ""}
        bad.fault = hangs_up
        rpc.chain_id()
        clock.now += FIRST_REST_S + 0.1
        bad.requests.clear()
        rpc.chain_id()
        assert bad.requests == [1]


def test_a_node_that_rests_is_asked_when_no_other_answers(clock: Clock, nodes: Any) -> None:
    one, other = nodes(first(10, hangs_up), honest)
    with clock.rpc(one.url, other.url) as rpc:
        rpc.chain_id()
        one.fault, other.fault = honest, hangs_up
        assert rpc.chain_id() == 31337
        assert rpc.source == one.url


def test_while_another_waits_a_node_gets_few_attempts_and_the_last_gets_all(clock: Clock, nodes: Any) -> None:
    one, other = nodes(hangs_up, hangs_up)
    with clock.rpc(one.url, other.url, retries=6) as rpc, pytest.raises(RpcError):
        rpc.chain_id()
    assert (len(one.requests), len(other.requests)) == (FEW_RETRIES + 1, 7)


def test_a_faulty_node_does_not_rest_where_it_is_the_only_one(clock: Clock, nodes: Any) -> None:
    (one,) = nodes(first(1, fails()))
    with clock.rpc(one.url, retries=0) as rpc:
        with pytest.raises(RpcError, match="HTTP 503"):
            rpc.chain_id()
        assert rpc.chain_id() == 31337
        assert one.seen == ["eth_chainId"] * 2


# -- nodes that are behind --------------------------------------------------------------------------------------


def test_the_head_is_not_asked_of_a_node_that_is_far_behind_until_it_has_caught_up(
    chain: Chain, clock: Clock, nodes: Any
) -> None:
    head = chain.rpc.block("latest")
    behind, good = nodes(lags(LAG_BLOCKS + 1), honest)
    with clock.rpc(behind.url, good.url) as rpc:
        assert rpc.block("latest") == head
        assert rpc.standing()[behind.url] == f"is more than {LAG_BLOCKS} blocks behind"
        asked = len(behind.seen)
        for _ in range(5):
            clock.now += LOOK_S / 5 - 0.1
            assert rpc.block("latest") == head
        assert len(behind.seen) == asked
        behind.fault = honest
        clock.now += 1
        assert rpc.block("latest") == head
        assert rpc.source == behind.url
        behind.fault = lags(LAG_BLOCKS)
        clock.now += LOOK_S
        assert rpc.block("latest").number == head.number - LAG_BLOCKS


def test_a_node_that_is_behind_serves_while_there_is_no_other(chain: Chain, clock: Clock, nodes: Any) -> None:
    behind, good = nodes(lags(FAR), honest)
    with clock.rpc(behind.url, good.url, retries=0) as rpc:
        rpc.block("latest")
        good.fault = hangs_up
        assert rpc.block("latest").number == chain.rpc.block("latest").number - FAR


# -- of which chain ---------------------------------------------------------------------------------------------


def test_a_node_of_another_chain_is_asked_for_nothing_else_ever(
    clock: Clock, nodes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other, good = nodes(is_chain(5), honest)
    with clock.rpc(other.url, good.url, chain_id=31337) as rpc:
        for _ in range(3):
            rpc.fees()
            clock.now += LONGEST_LIE_REST_S
        assert rpc.standing()[other.url] == "is chain 5, not 31337"
    assert other.seen == ["eth_chainId"]
    assert caplog.text.count(f"{other.url} is chain 5, not 31337: it is not used") == 1
    with clock.rpc(other.url, chain_id=31337) as rpc, pytest.raises(RpcError, match="is chain 5, not 31337"):
        rpc.block("latest")


def test_without_a_chain_id_the_first_node_decides(clock: Clock, nodes: Any) -> None:
    one, other = nodes(is_chain(5), honest)
    with clock.rpc(one.url, other.url) as rpc:
        rpc.fees()
        one.fault = hangs_up
        with pytest.raises(RpcError, match=f"{other.url} is chain 31337, not 5"):
            rpc.fees()


def test_each_node_is_asked_for_its_chain_once_before_it_is_believed(clock: Clock, nodes: Any) -> None:
    one, other = nodes(honest, honest)
    with clock.rpc(one.url, other.url) as rpc:
        for _ in range(3):
            rpc.fees()
        assert one.seen.count("eth_chainId") == 1
        assert one.seen[0] == "eth_chainId"
        one.fault = hangs_up
        for _ in range(3):
            rpc.fees()
        assert other.seen.count("eth_chainId") == 1
        assert other.seen[0] == "eth_chainId"
    (alone,) = nodes(honest)
    with clock.rpc(alone.url) as rpc:
        rpc.fees()
    assert "eth_chainId" not in alone.seen


def test_a_node_that_failed_may_have_become_another_and_is_asked_again(clock: Clock, nodes: Any) -> None:
    one, other = nodes(honest, honest)
    with clock.rpc(one.url, other.url) as rpc:
        rpc.fees()
        one.fault = hangs_up
        rpc.fees()
        one.fault = is_chain(5)
        clock.now += FIRST_REST_S + 0.1
        rpc.fees()
        assert rpc.source == other.url
        assert rpc.standing()[one.url] == "is chain 5, not 31337"


# -- lies -------------------------------------------------------------------------------------------------------


def test_a_node_that_lied_is_asked_by_nobody_for_long_and_then_after_all_others(
    clock: Clock, nodes: Any
) -> None:
    liar, good = nodes(honest, honest)
    with clock.rpc(liar.url, good.url, retries=0) as rpc:
        rpc.chain_id()
        for lie, rest in enumerate((LIE_REST_S, 2 * LIE_REST_S)):
            good.fault = hangs_up if lie else honest
            if lie:
                rpc.chain_id()
            assert rpc.source == liar.url
            assert rpc.distrust(f"lie {lie}")
            good.fault = honest
            rpc.chain_id()
            assert rpc.source == good.url
            good.fault = hangs_up
            liar.requests.clear()
            clock.now += rest - 1
            with pytest.raises(RpcError, match=rf"{liar.url} is distrusted \(lie {lie}\) and is not asked"):
                rpc.chain_id()
            assert liar.requests == []
            good.fault = honest
            clock.now += LONGEST_REST_S
            rpc.chain_id()
            assert rpc.source == good.url
            assert liar.requests == []


def test_where_no_other_node_is_left_nobody_is_put_away(
    clock: Clock, nodes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one, other, alien = nodes(honest, honest, is_chain(5))
    with clock.rpc(alien.url, one.url, other.url, chain_id=31337) as rpc:
        rpc.chain_id()
        assert rpc.distrust("a log is missing")
        rpc.chain_id()
        for _ in range(3):
            assert not rpc.distrust("a log is missing here too")
            assert rpc.chain_id() == 31337
            assert rpc.source == other.url
        assert rpc.standing()[other.url] == ""
    assert caplog.text.count("is not believed") == 2
    assert f"{one.url} is not believed (a log is missing); the next is" in caplog.text
    assert f"{other.url} is not believed (a log is missing here too); no other is left" in caplog.text
    with clock.rpc(one.url) as rpc:
        rpc.chain_id()
        assert not rpc.distrust("it lies")
        assert rpc.chain_id() == 31337


def test_a_lie_that_two_find_out_counts_once(
    clock: Clock, nodes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    liar, good = nodes(honest, honest)
    with clock.rpc(liar.url, good.url) as rpc:
        rpc.chain_id()
        assert rpc.distrust("a lie", liar.url)
        assert rpc.distrust("a lie", liar.url)
        assert f"rests {LIE_REST_S:.0f} s" in rpc.standing()[liar.url]
        assert rpc.standing()[good.url] == ""
    assert caplog.text.count("is not believed") == 1


def test_it_is_the_node_that_gave_the_answer_that_is_distrusted(clock: Clock, nodes: Any) -> None:
    one, other = nodes(honest, honest)
    with clock.rpc(one.url, other.url) as rpc:
        rpc.chain_id()
        one.fault = hangs_up
        seen: list[str] = []

        def fetch() -> None:
            rpc.chain_id()
            seen.append(rpc.source)

        thread = threading.Thread(target=fetch)
        thread.start()
        thread.join()
        # What another thread was told is not what this one was told.
        assert (seen, rpc.source) == ([other.url], one.url)
        assert rpc.distrust("a lie", seen[0])
        assert "distrusted" in rpc.standing()[other.url]


# -- one connection ---------------------------------------------------------------------------------------------


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
