"""With HAPTIC_RPC_QUORUM an epoch is closed on what several nodes agree on, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from chain.errors import NodeError, QuorumError
from chain.rules import Rules
from service import jobs
from service.context import build
from service.settings import Settings
from tests.faulty import Faulty, hangs_up, hides_logs, honest


def test_an_epoch_is_closed_only_when_as_many_nodes_agree_as_are_asked_for(
    network: Any, tmp_path: Any
) -> None:
    with (
        network(tmp_path, Rules(methods=("ranking",))) as net,
        Faulty(net.chain.url, hides_logs) as second,
    ):
        net.fund(0, 1)
        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 3))
        net.go_to(net.start(1) + 1)
        urls = f"{net.chain.url}, {second.url}"
        ctx = build(Settings(**(net.ctx.settings.model_dump() | {"rpc_url": urls, "rpc_quorum": 2})))
        try:
            jobs.step_index(ctx)
            with (
                net.nothing_written(),
                pytest.raises(NodeError, match=f"{second.url}: .* 0 events, without Funded"),
            ):
                jobs.close_epoch(ctx, 0)
            second.fault = hangs_up
            ctx.rpc._nodes.nodes[1].transport._sleep = lambda _: None
            with net.nothing_written(), pytest.raises(QuorumError, match=f"{second.url} does not answer"):
                jobs.close_epoch(ctx, 0)
            second.fault = honest
            assert jobs.close_epoch(ctx, 0) is not None
        finally:
            ctx.close()
