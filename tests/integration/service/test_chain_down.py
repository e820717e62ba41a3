"""While the node does not answer: 503 with what to do, nothing half-written, and what is stored is still served."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chain.devnet import Devnet
from chain.errors import RpcError
from chain.messages import Session, sign
from chain.rpc import Rpc
from chain.rules import Rules
from service import jobs
from service.auth import terms_hash
from service.clock import ChainClock
from service.errors import UnavailableError

WORDS = ("the chain cannot be read", "nothing was recorded", "Check that the node runs")


@pytest.fixture(scope="module")
def down(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a service, let somebody take a task, and kill the node."""
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as net:
        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 2))
        who = net.person(stake=1)
        task = who.next_task()
        now = net.now()
        # As many attempts as ever, without the seconds of waiting between them.
        net.ctx.rpc._nodes.nodes[0].transport._sleep = lambda _: None
        net.chain.stop()
        yield net, who, task, now


def test_a_ranking_is_not_half_recorded(down: Any, right: Any) -> None:
    net, who, task, now = down
    net.refused_ranking(503, *WORDS, ranking=who.ranking(task, right(task), now=now), by=who.signer)


def test_nobody_is_logged_in(down: Any) -> None:
    net, who, _, now = down
    session = Session(who.address, who.address, 0, 5, now + 99, terms_hash())
    body = {"session": session.to_json(), "signature": sign(session, net.ctx.domain, who.wallet)}
    net.refused(503, *WORDS, method="POST", path="/v1/sessions", body=body)


def test_no_task_is_handed_out(down: Any) -> None:
    net, who, _, _ = down
    net.refused(503, *WORDS, method="GET", path="/v1/tasks/next", token=who._token)


def test_what_needs_the_chain_says_so(down: Any) -> None:
    net, who, _, _ = down
    net.refused(503, *WORDS, method="GET", path="/v1/info")
    net.refused(503, "Check that the node runs", method="GET", path=f"/v1/contributors/{who.address}")


def test_what_is_stored_is_still_served(down: Any) -> None:
    net, *_ = down
    assert net.api.get("/epochs")[0]["tasks"] == 2
    assert net.api.get("/leaderboard")["entries"] == []


@pytest.mark.parametrize("step", ["index", "payout", "arena"])
def test_a_job_that_fails_is_seen_in_the_health_and_writes_nothing(down: Any, step: str) -> None:
    net, *_ = down
    with net.nothing_written(), pytest.raises((RpcError, UnavailableError)):
        jobs.run_step(net.ctx, net.ctx.pulse, step)
    sick = net.ask("GET", "/healthz")
    assert sick.status_code == 503
    assert "Check that the node runs" in sick.json()["errors"][step]
    assert step in net.api.get("/jobs")["errors"]


def test_those_who_ask_together_wait_together_and_not_in_turn() -> None:
    rpc = Rpc("http://127.0.0.1:9", retries=2)
    clock = ChainClock(rpc, ttl_s=5)

    def ask(_: int) -> str:
        with pytest.raises(UnavailableError) as caught:
            clock.now()
        return str(caught.value)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert time.monotonic() - began < 8 * 0.3
    rpc.close()


def test_what_the_clock_knows_it_says_without_asking_and_no_longer_than_it_holds(anvil: Devnet) -> None:
    rpc = Rpc(anvil.url)
    clock = ChainClock(rpc, ttl_s=0.3)
    assert clock.known() is None
    now = clock.now()
    assert clock.known() == now
    time.sleep(0.35)
    assert clock.known() is None
    rpc.close()


def test_a_clock_whose_node_is_silent_knows_nothing() -> None:
    with Rpc("http://127.0.0.1:9", retries=0) as rpc:
        clock = ChainClock(rpc, ttl_s=5)
        with pytest.raises(UnavailableError):
            clock.now()
        assert clock.known() is None
