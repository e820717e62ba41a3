"""Two services on one database: migrations, jobs and requests at the same time leave one true state."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from chain import ledger
from chain.errors import HapticError
from chain.events import Posted, decode, topics
from chain.rules import Rules
from chain.verify import bundle_source, verify
from service import jobs
from service.context import build
from service.database import open_database
from service.errors import ConfigError
from service.ledger import queries


@pytest.fixture
def pair(network: Any, url: str, tmp_path: Path) -> Iterator[Any]:
    """Yield a service whose epoch 0 has ended, and a second one on the same database and folder."""
    with network(tmp_path, Rules(methods=("ranking",)), database_url=url) as net:
        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 3))
        net.judge(net.person(50))
        net.fund(0, 1000)
        net.go_to(net.start(1) + 1)
        second = build(net.ctx.settings)
        yield net, (net.ctx, second)
        second.close()


def test_two_services_close_post_and_activate_an_epoch_once(pair: Any) -> None:
    net, contexts = pair

    def run(step: str, ctx: Any) -> Exception | None:
        try:
            jobs.STEPS[step](ctx)
        except (HapticError, IntegrityError) as error:
            return error
        return None

    with ThreadPoolExecutor(4) as pool:
        for turn in range(5):
            for step in ("index", "commit", "payout"):
                list(pool.map(run, [step] * 4, contexts * 2))
            if turn == 2:
                net.go_to(net.now() + 601)
    # Alone, either goes on where both left it.
    for ctx in contexts:
        jobs.step_index(ctx)
        jobs.step_commit(ctx)
        jobs.step_payout(ctx)
    logs = net.rpc.logs([net.ctx.deployment.distributor], 0, net.rpc.block("latest").number, topics())
    assert [e.epoch for e in (decode(x, 0) for x in logs) if isinstance(e, Posted)] == [0]
    with net.ctx.db.read() as db:
        assert [r.status for r in ledger.epoch_reports(db)] == ["active"]
    (found,) = verify(net.rpc, net.ctx.deployment, bundle_source(str(net.ctx.place.bundles)))
    assert found.active


def test_a_replica_without_the_posters_key_says_so_and_leaves_the_chain_to_others(pair: Any) -> None:
    net, (ctx, _) = pair
    keyless = replace(ctx, poster=None)
    jobs.step_index(keyless)
    assert jobs.step_payout(keyless).endswith("epoch 0 waits for a service with the poster's key")
    with net.ctx.db.read() as db:
        row = queries.epoch_row(db, 0)
    assert row is not None
    with pytest.raises(ConfigError, match="poster's key is missing: set HAPTIC_POSTER_KEYFILE"):
        jobs.write_close(keyless, row)


def test_services_that_start_together_make_one_schema(url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(open_database, [url] * 6))
    tables = {tuple(inspect(db.engine).get_table_names()) for db in opened}
    assert len(tables) == 1
    for db in opened:
        db.engine.dispose()
