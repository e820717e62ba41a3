"""An epoch whose records are not what people signed, or what the chain says, is not closed: the row is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from typing import Any

import pytest
from sqlalchemy import text

from chain import ledger, publisher
from chain.contracts import Contract
from chain.errors import ChainError, HapticError, StakeMismatchError, VerifyError
from chain.rules import Rules
from chain.transactions import transact
from chain.types import Hash32
from service import jobs
from service.context import build
from service.errors import ConfigError


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a service whose epoch 0 has ended and is indexed, but not closed: two wallets judged two tasks each."""
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as made:
        made.go_to(made.start(0) + 1)
        made.open(0, made.plans(0, 2, gold=1))
        for stake in (10, 20):
            made.judge(made.person(stake))
        made.fund(0, 1000)
        made.go_to(made.start(1) + 1)
        jobs.step_index(made.ctx)
        yield made


def _run(net: Any, sql: str, **values: Any) -> Any:
    with net.ctx.db.write() as db:
        found = db.connection().execute(text(sql), values)
        rows = found.all() if found.returns_rows else []
        db.commit()
    return rows


@contextmanager
def _tampered(net: Any, table: str, column: str, value: Any, where: str = "1") -> Iterator[None]:
    """Change a column for a while."""
    # A table that stands in the order of its key has no rowid.
    key = "block * 1000000 + log_index" if table == "chain_stake_event" else "rowid"
    kept = _run(net, f"SELECT {key}, {column} FROM {table} WHERE {where} ORDER BY 1")  # noqa: S608
    assert kept
    _run(net, f"UPDATE {table} SET {column} = :v WHERE {where}", v=value)  # noqa: S608
    try:
        yield
    finally:
        for rowid, old in kept:
            _run(net, f"UPDATE {table} SET {column} = :v WHERE {key} = :r", v=old, r=rowid)  # noqa: S608


def _refuses(net: Any, kind: type[HapticError], *words: str) -> None:
    """Check that closing raises with these words and writes neither a row nor a file."""
    with net.nothing_written(), pytest.raises(kind) as caught:
        jobs.step_payout(net.ctx)
    assert list(net.ctx.place.bundles.iterdir()) == []
    for word in words:
        assert word in str(caught.value)


def _ranking(net: Any, position: int) -> tuple[str, dict[str, Any]]:
    ((wallet, message),) = _run(net, "SELECT wallet, message FROM ranking WHERE position = :p", p=position)
    return wallet, json.loads(message)


@pytest.mark.parametrize("position", [0, 3])
def test_a_changed_rank_stops_the_close_and_the_ranking_is_named(net: Any, position: int) -> None:
    wallet, message = _ranking(net, position)
    lie = message | {"ranks": [1, 1, 1, 1], "summary": "A = B = C = D"}
    with _tampered(net, "ranking", "message", json.dumps(lie), f"position = {position}"):
        _refuses(net, VerifyError, f"position {position}", wallet, "signed by")


def test_a_ranking_in_another_name_stops_the_close(net: Any) -> None:
    wallet, message = _ranking(net, 0)
    other, _ = _ranking(net, 3)
    assert wallet != other
    with _tampered(net, "ranking", "message", json.dumps(message | {"wallet": other}), "position = 0"):
        _refuses(net, VerifyError, "ranking at position", other)


def test_a_ranking_that_was_removed_stops_the_close(net: Any) -> None:
    with _tampered(net, "ranking", "epoch", 77, "position = 1"):
        _refuses(net, VerifyError, "position 2", "expected position 1")


def test_a_ranking_that_came_too_late_stops_the_close(net: Any) -> None:
    late = net.start(1)
    with _tampered(net, "ranking", "received_at", late, "position = 3"):
        _refuses(net, VerifyError, "position 3", str(late))


def test_a_task_with_another_text_stops_the_close(net: Any) -> None:
    with _tampered(net, "task", "prompt", "a nicer prompt"):
        _refuses(net, VerifyError, "task", "prompt")


def test_a_changed_gold_answer_stops_the_close(net: Any) -> None:
    ((ranks,),) = _run(net, "SELECT gold_ranks FROM task WHERE gold_salt != ''")
    lie = json.dumps(json.loads(ranks)[::-1])
    with _tampered(net, "task", "gold_ranks", lie, "gold_salt != ''"):
        _refuses(net, VerifyError, "gold", "committed")


def test_another_secret_than_the_epoch_was_opened_with_stops_the_close_and_the_start(net: Any) -> None:
    with _tampered(net, "epoch", "seed_hash", "0x" + "11" * 32):
        _refuses(net, ConfigError, "HAPTIC_SECRET", "epoch 0")
        with pytest.raises(ConfigError, match="HAPTIC_SECRET is not the one that epoch 0 was opened with"):
            build(net.ctx.settings)


def test_stake_that_differs_from_the_vault_stops_the_close_and_the_account_is_named(net: Any) -> None:
    ((account, staked),) = _run(net, "SELECT account, staked FROM chain_stake_event WHERE amount LIKE '2%'")
    with _tampered(net, "chain_stake_event", "staked", str(int(staked) + 1), f"account = '{account}'"):
        _refuses(net, StakeMismatchError, account, staked, str(int(staked) + 1))


def test_stake_at_another_time_stops_the_close_too(net: Any) -> None:
    ((account, at),) = _run(net, "SELECT account, timestamp FROM chain_stake_event WHERE amount LIKE '2%'")
    with _tampered(net, "chain_stake_event", "timestamp", at + 1, f"account = '{account}'"):
        _refuses(net, StakeMismatchError, "stake-seconds", account)


def test_what_was_put_back_closes_and_another_root_on_the_chain_is_seen(net: Any) -> None:
    ctx = net.ctx
    jobs.close_epoch(ctx, 0)
    jobs.step_commit(ctx)
    with ctx.db.read() as db:
        row = ledger.epoch_report(db, 0)
    assert row is not None
    ours = publisher.report_of(row)
    distributor = ctx.deployment.revenue_distributor()
    theirs = replace(ours, root=Hash32("0x" + "cd" * 32))
    transact(net.rpc, ctx.poster, distributor, "post", astuple(theirs))
    for _ in range(2):
        with pytest.raises(ChainError, match=theirs.root):
            jobs.step_payout(ctx)
    net.go_to(net.now() + 601)
    with pytest.raises(ChainError, match="haptic verify"):
        jobs.step_payout(ctx)
    assert net.view(distributor, "active")[0] == 0, "a root that is not ours was activated"
    transact(net.rpc, net.site.owner, distributor, "veto", net.view(distributor, "pending")[1])
    jobs.step_payout(ctx)
    assert net.view(distributor, "pending")[1] == ours.root


def test_a_root_that_the_guardian_threw_out_is_not_posted_again(net: Any) -> None:
    ctx = net.ctx
    distributor = ctx.deployment.revenue_distributor()
    assert net.view(distributor, "pending")[4], "the test before leaves our root pending"
    transact(net.rpc, net.site.owner, distributor, "veto", net.view(distributor, "pending")[1])
    net.go_to(net.now() + 1)
    jobs.step_index(ctx)
    with pytest.raises(ChainError, match="vetoed"):
        jobs.step_payout(ctx)
    assert not net.view(distributor, "pending")[4]


def test_a_root_that_is_not_ours_is_never_taken_for_ours_though_it_pays(net: Any) -> None:
    ctx = net.ctx
    with ctx.db.read() as db:
        row = ledger.epoch_report(db, 0)
    assert row is not None
    distributor = ctx.deployment.revenue_distributor()
    theirs = replace(publisher.report_of(row), root=Hash32("0x" + "ef" * 32))
    transact(net.rpc, ctx.poster, distributor, "post", astuple(theirs))
    net.go_to(net.now() + 601)
    transact(net.rpc, net.site.owner, distributor, "activate")
    net.go_to(net.now() + 1)
    jobs.step_index(ctx)
    for _ in range(2):
        with pytest.raises(ChainError, match="haptic verify"):
            jobs.step_payout(ctx)
    assert net.api.get("/epochs/0")["state"] != "active"


def test_revenue_is_still_there_after_all_of_this(net: Any) -> None:
    dollar = Contract("DevnetDollar", net.ctx.deployment.payment_token)
    assert net.view(dollar, "balanceOf", net.ctx.deployment.distributor) == 1000
