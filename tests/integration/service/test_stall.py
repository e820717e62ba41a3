"""A chain that stands still is told by the clock, wherever one looks: an index that has caught up with it looks well."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.devnet import mine
from chain.rules import Rules
from chain.types import BlockRef, Hash32
from service import jobs
from service.app import create_app
from service.context import Context, build
from service.settings import DEVNET_CHAIN_ID, Settings
from service.stall import Patience, stall
from tests.faulty import Faulty, freezes, honest, loses_finality

SECONDS = 3
ZERO = Hash32("0x" + "00" * 32)
AGES = st.integers(-3, 4)


def _block(number: int, timestamp: int) -> BlockRef:
    return BlockRef(number, ZERO, ZERO, timestamp)


@given(
    head=AGES,
    older=st.integers(0, 4),
    head_s=st.integers(0, 3),
    final_s=st.integers(0, 3),
    part=st.floats(0, 0.9),
)
def test_a_block_is_told_when_it_is_older_than_allowed_and_only_then(
    head: int, older: int, head_s: int, final_s: int, part: float
) -> None:
    now = 1_800_000_000
    said = stall(_block(9, now - head), _block(7, now - head - older), now + part, Patience(head_s, final_s))
    stands = 0 < head_s < head
    waits = 0 < final_s < head + older
    assert ("block 9, the newest, was made" in said) == stands
    assert ("block 7, the newest that is, was made" in said) == (waits and not stands)
    assert bool(said) == (stands or waits)


def test_a_devnet_may_stand_still_and_any_other_chain_may_not_unless_it_is_said() -> None:
    assert Settings().patience(DEVNET_CHAIN_ID) == (0, 0)
    assert all(Settings().patience(1))
    assert Settings(stall_s=7).patience(DEVNET_CHAIN_ID) == (7, 0)
    assert Settings(finality_s=0).patience(1) == (Settings().patience(1).head_s, 0)


@dataclass
class Watched:
    """A service that asks a node which may freeze."""

    net: Any
    node: Faulty
    ctx: Context
    http: Any

    def step(self) -> None:
        """Let the chain go on, and the index follow what the node shows of it."""
        mine(self.net.rpc, 3)
        jobs.run_step(self.ctx, self.ctx.pulse, "index")

    def said(self) -> dict[str, Any]:
        """Return what health, readiness, status and metrics say; they must agree on whether all is well."""
        health, ready = self.http.get("/healthz"), self.http.get("/readyz")
        status: dict[str, Any] = self.http.get("/v1/status").json()
        stalled = "\nhaptic_chain_stalled 1.0\n" in self.http.get("/metrics").text
        assert stalled == bool(status["stalled"])
        assert health.status_code == ready.status_code == (503 if stalled else 200), health.text
        assert ("ago" in health.json()["behind"]) == ("ago" in ready.json()["reason"]) == stalled
        return status

    def until_stalled(self) -> dict[str, Any]:
        """Wait until it is told; Anvil gives the blocks that it makes at once a second each, and so runs ahead."""
        until = time.monotonic() + SECONDS + 30
        while not (said := self.http.get("/v1/status").json())["stalled"]:
            assert time.monotonic() < until, said
            self.step()
            time.sleep(0.2)
        return self.said()


@pytest.fixture
def watched(network: Any, tmp_path: Path) -> Iterator[Watched]:
    from starlette.testclient import TestClient

    with network(tmp_path, Rules(methods=("ranking",))) as net, Faulty(net.chain.url) as node:
        given = net.ctx.settings.model_dump() | {
            "rpc_url": node.url, "stall_s": SECONDS, "finality_s": SECONDS, "data_dir": tmp_path / "other",
        }  # fmt: skip
        ctx = build(Settings(**given))
        with TestClient(create_app(ctx, clock=False)) as http:
            yield Watched(net, node, ctx, http)


def test_a_frozen_node_is_told_although_the_index_keeps_up_with_it(watched: Watched) -> None:
    watched.step()
    assert watched.said()["stalled"] == ""
    watched.node.fault = freezes()
    said = watched.until_stalled()
    assert said["stalled"].startswith(f"the chain stands still: block {said['head']}")
    assert said["lag_s"] == 0
    watched.node.fault = honest
    watched.step()
    assert watched.said()["stalled"] == ""


def test_a_chain_on_which_nothing_becomes_final_is_told_although_its_head_moves(watched: Watched) -> None:
    watched.step()
    watched.node.fault = loses_finality()
    said = watched.until_stalled()
    assert said["stalled"].startswith(f"no block becomes final: block {said['finalized']}")
    assert said["head"] > said["finalized"] + 3


def test_before_anything_is_indexed_no_lag_is_made_up(network: Any, tmp_path: Path, forker: Any) -> None:
    from tests.integration.service.shell import open_shell, operate

    with network(tmp_path, Rules(methods=("ranking",))) as net:
        net.go_to(net.start(0) + 1)
        said = net.api.get("/status")
        assert (said["indexed"], said["lag_s"]) == (-1, None)
        assert "haptic_index_lag_seconds" not in net.ask("GET", "/metrics").text
        assert net.ask("GET", "/readyz").json()["reason"] == "nothing is indexed yet"
        haptic = open_shell(forker, net, tmp_path)
        operate(haptic, net)
        assert "nothing indexed yet" in haptic.does("status", "--service", "")
        assert json.loads(haptic("status", "--service", "", "--json").out)["lag_s"] is None
        jobs.step_index(net.ctx)
        assert net.api.get("/status")["lag_s"] == 0
        assert "nothing indexed yet" not in haptic.does("status", "--service", "")
