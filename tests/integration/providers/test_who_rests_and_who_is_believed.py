"""A node that failed rests, one that lags waits, one of another chain or that lied is not believed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from chain.errors import RpcError
from chain.providers import (
    FEW_RETRIES,
    FIRST_REST_S,
    LAG_BLOCKS,
    LIE_REST_S,
    LONGEST_LIE_REST_S,
    LONGEST_REST_S,
    LOOK_S,
)
from tests.faulty import (
    fails,
    first,
    hangs_up,
    honest,
    is_chain,
    lags,
)
from tests.integration.conftest import Chain
from tests.integration.providers.conftest import FAR, Clock


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
