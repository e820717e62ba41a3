"""Killed at any moment, two hundred times, a service posts each epoch once, loses none, and pays what is right."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chain.events import Activated, Posted, Rejected, decode, topics
from chain.keys import address_of
from chain.rules import Rules
from chain.verify import bundle_source, verify

KILLS = 200
ROOT = Path(__file__).parents[3]


@pytest.fixture
def warm() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.service.pipeline"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_never_two_roots_and_never_a_lost_epoch(
    network: Any, tmp_path: Path, warm: subprocess.Popen[str]
) -> None:
    draw, killed, finished, moments = Random(1), 0, 0, 400
    with network(tmp_path, Rules(methods=("ranking",))) as net:
        known = net.ctx.settings.model_dump(mode="json", exclude_unset=True)
        secrets = {
            name: getattr(net.ctx.settings, name).get_secret_value() for name in ("secret", "password")
        }
        given = known | secrets

        def run(die_at: int) -> int:
            assert warm.stdin is not None
            assert warm.stdout is not None
            warm.stdin.write(json.dumps({"settings": given, "die_at": die_at}) + "\n")
            warm.stdin.flush()
            said = json.loads(warm.stdout.readline())
            assert said["status"] in {0, -signal.SIGKILL}, said
            nonlocal moments
            # So that most runs die somewhere on their way, and some come through.
            moments = max(40, 5 * said["moments"] // 4) if said["moments"] else moments
            return int(said["status"])

        def paid() -> int:
            return int(net.view(net.ctx.deployment.revenue_distributor(), "active")[0])

        net.go_to(net.start(0) + 1)
        epoch = -1
        while killed < KILLS:
            epoch += 1
            if net.now() < net.start(epoch):
                net.go_to(net.start(epoch) + 1)
            net.open(epoch, net.plans(epoch, 2))
            net.judge(net.person(10 * (epoch + 1), epoch=epoch))
            net.fund(0, 1000 + epoch)
            net.go_to(net.start(epoch + 1) + 1)
            while paid() <= epoch:
                if run(draw.randint(1, moments)):
                    killed += 1
                else:
                    finished += 1
                    # Nothing more can happen at this block time.
                    net.go_to(net.now() + 601)
        for _ in range(3):
            assert run(0) == 0
        d = net.ctx.deployment
        logs = net.rpc.logs([d.distributor], 0, net.rpc.block("latest").number, topics())
        events = [decode(log, 0) for log in logs]
        assert [e.epoch for e in events if isinstance(e, Posted)] == list(range(epoch + 1))
        assert [e.epoch for e in events if isinstance(e, Activated)] == list(range(epoch + 1))
        assert not [e for e in events if isinstance(e, Rejected)]
        found = verify(net.rpc, d, bundle_source(str(net.ctx.place.bundles)))
        assert [(v.epoch, v.active, v.rankings) for v in found] == [(e, True, 2) for e in range(epoch + 1)]
        assert found[-1].sum + found[-1].carried == sum(1000 + e for e in range(epoch + 1))
        # Each epoch is opened, closed, posted and activated by one transaction each: not one was sent twice.
        sent = net.rpc.nonce(address_of(net.ctx.poster))
        assert sent == 4 * (epoch + 1), (sent, epoch, killed, finished)
