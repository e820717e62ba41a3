"""Of several replicas one runs the clock: never two at once, and another as soon as it is dead, frozen or cut off."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from chain.devnet import mine
from chain.rules import Rules
from service import database, jobs
from service.app import create_app
from service.context import Pulse, build
from service.database import Database, open_engine
from service.devnet import Site, process, wait_until_served
from service.leader import Leader, clock_lock
from tests.integration.service.replicas import HERE, REPLICA, Replicas
from tests.postgres import Postgres

THERE = SimpleNamespace(chain_id=1, vault="0x" + "1" * 40, distributor="0x" + "3" * 40)


@pytest.fixture(scope="module")
def zygote() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", REPLICA], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def replicas(zygote: subprocess.Popen[str], url: str, tmp_path: Path) -> Iterator[Replicas]:
    found = Replicas(zygote, tmp_path, url)
    yield found
    for pid in list(found.pids):
        with suppress(ProcessLookupError):
            found.kill(pid)


def _leader(url: str, deployment: Any = HERE, pause_s: float = 60.0) -> Leader:
    """Return a leader that looks at its lock only when it is asked to."""
    return Leader(clock_lock(Database(open_engine(url)), deployment), Pulse(), pause_s)


def test_two_replicas_never_run_a_step_at_once_however_often_the_leader_is_killed(replicas: Replicas) -> None:
    for _ in range(3):
        replicas.add()
    chance = random.Random(4)
    for _ in range(20):
        done = len(replicas.steps())
        leader = replicas.next_step(done)
        time.sleep(chance.uniform(0, 0.15))
        done = len(replicas.steps())
        replicas.kill(leader)
        replicas.next_step(done, lambda pid: pid in replicas.pids)
        replicas.add()
    steps = replicas.steps()
    assert "TWO" not in steps
    assert len(set(steps)) > 20


def test_a_leader_that_is_frozen_is_replaced_and_runs_nothing_when_it_thaws(
    zygote: subprocess.Popen[str], postgres: Postgres, tmp_path: Path
) -> None:
    replicas = Replicas(zygote, tmp_path, postgres.new(), lease_s=1)
    frozen = replicas.add()
    replicas.next_step(0)
    os.kill(frozen, signal.SIGSTOP)
    # It may be in the middle of a step: that one is not the next leader's fault.
    (tmp_path / "alone").unlink()
    other = replicas.add()
    assert replicas.next_step(len(replicas.steps()), lambda pid: pid != frozen) == other
    os.kill(frozen, signal.SIGCONT)
    time.sleep(0.5)
    thawed = len(replicas.steps())
    time.sleep(0.5)
    assert set(replicas.steps()[thawed:]) == {str(other)}
    for pid in (frozen, other):
        replicas.kill(pid)


def test_the_next_leads_when_the_first_lets_go(url: str) -> None:
    with _leader(url) as second:
        assert second.leads()
        with _leader(url) as first:
            assert not first.leads()
            assert not first.look()
    with _leader(url) as third:
        _wait(third.look)


def test_who_does_not_lead_takes_over_only_when_it_looks(url: str) -> None:
    with ExitStack() as first:
        first.enter_context(_leader(url))
        with _leader(url) as waiting:
            first.close()
            assert not waiting.leads()
            _wait(waiting.look)
            assert waiting.leads()


def test_two_networks_on_one_server_do_not_wait_for_each_other(postgres: Postgres) -> None:
    url = postgres.new()
    with _leader(url) as here, _leader(url, THERE) as there, _leader(postgres.new()) as elsewhere:
        assert here.leads()
        assert there.leads()
        assert elsewhere.leads()


def test_a_leader_whose_session_was_ended_begins_no_step_more(postgres: Postgres) -> None:
    url = postgres.new()
    with _leader(url) as first, _leader(url) as second:
        postgres.end_sessions(url)
        with _leader(url) as third:
            assert third.leads()
            assert not first.leads()
            assert not second.look()


def test_a_leader_whose_lock_file_was_taken_away_begins_no_step_more(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'haptic.db'}"
    with _leader(url) as first:
        (tmp_path / "haptic.db.clock").unlink()
        with _leader(url) as second:
            assert second.leads()
            assert not first.leads()
            assert not first.look()


def test_while_the_lock_cannot_be_asked_for_nobody_leads_and_it_is_said_why() -> None:
    with Postgres() as server:
        leader = _leader(server.new())
        with leader:
            server.stop()
            assert not leader.leads()
            assert not leader.look()
            assert "its lock cannot be asked for" in leader._pulse.errors["leader"]
            server.start()
            assert leader.look()
            assert leader._pulse.errors == {}


def test_a_lease_is_looked_after_well_within_its_time() -> None:
    from service.leader import PAUSE_S

    assert 3 * PAUSE_S < database.LEASE_S < 30 - 2 * PAUSE_S


def test_what_another_replica_runs_is_forgotten_here(url: str) -> None:
    pulse = Pulse()
    ctx: Any = SimpleNamespace(settings=SimpleNamespace(tick_s=0.05), pulse=pulse)
    pulse.ran_at["index"], pulse.errors["index"], pulse.waits["index"] = 1.0, "it failed", "it waits"
    with _leader(url), _leader(url) as second:
        jobs._tick(ctx, second, "index")
    assert (pulse.ran_at, pulse.errors, pulse.waits) == ({}, {}, {})


def test_the_steps_that_run_end_before_another_may_lead(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, led = threading.Event(), []
    with network(tmp_path, Rules(methods=("ranking",))) as net:
        other = clock_lock(net.ctx.db, net.ctx.deployment)

        def slow(_: Any) -> str:
            begun.set()
            time.sleep(0.5)
            led.append(other.take())
            return ""

        monkeypatch.setattr(jobs, "STEPS", {"slow": slow})
        app = create_app(build(net.ctx.settings.model_copy(update={"tick_s": 0.05})))

        async def live() -> None:
            async with app.router.lifespan_context(app):
                await asyncio.to_thread(begun.wait, 20)

        asyncio.run(live())
        assert led == [False]
        assert other.take()
        other.release()


@dataclass
class Served:
    """A real `haptic serve`."""

    child: subprocess.Popen[bytes]
    url: str

    def health(self) -> dict[str, Any]:
        with suppress(httpx.HTTPError):
            found: dict[str, Any] = httpx.get(f"{self.url}/healthz", timeout=5).json()
            return found
        return {"leader": False, "errors": {"service": "does not answer"}, "jobs": {}}


@pytest.fixture
def served(network: Any, postgres: Postgres, tmp_path: Path) -> Iterator[Any]:
    """Start two real replicas on one database; yield the network and both."""
    url, both = postgres.new(), []
    with ExitStack() as stack:
        net = stack.enter_context(network(tmp_path, Rules(methods=("ranking",)), database_url=url))
        for name in ("one", "two"):
            port = _free_port()
            environ = {"HAPTIC_DATABASE_URL": url, "HAPTIC_ARENA": "false", "HAPTIC_TICK_S": "0.2"}
            site: Site = replace(net.site, environ={**net.site.environ, **environ})
            child = stack.enter_context(process(name, ["serve", "--port", str(port)], site))
            both.append(Served(child, f"http://127.0.0.1:{port}"))
        for name, each in zip(("one", "two"), both, strict=True):
            wait_until_served(each.url, each.child, tmp_path / f"{name}.log")
        yield net, both


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(what: Callable[[], bool], timeout_s: float = 30) -> float:
    """Return how long it took until it was so."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < timeout_s, "it did not come true in time"
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_replica_takes_over_within_30_s_of_the_leaders_death(served: Any) -> None:
    net, both = served

    def indexes(each: Served) -> bool:
        """Say whether the chain's finalized block is in the ledger, by this replica's clock."""
        final = net.rpc.block("finalized").number
        return f"indexed to block {final} of" in each.health()["jobs"].get("index", "")

    _wait(lambda: any(each.health()["leader"] for each in both))
    first, second = sorted(both, key=lambda each: not each.health()["leader"])
    _wait(lambda: indexes(first))
    idle = second.health()
    assert (idle["ok"], idle["leader"], idle["jobs"]) == (True, False, {})
    mine(net.rpc, 5)
    first.child.kill()
    first.child.wait()
    assert _wait(lambda: second.health()["leader"] and indexes(second)) < 30
