"""Where the network stands is told alike by the service, the command line and Prometheus, and lag is never hidden."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete

from chain import ledger, publisher
from chain.devnet import mine
from chain.errors import RpcError
from chain.transactions import transact
from service import jobs
from service.devnet import COIN, DOLLAR
from service.errors import UnavailableError
from service.jobs import run_step
from service.logs import JsonLines
from service.routes.health import LAG_S
from service.status import next_step
from tests.integration.service.shell import Shell, operate


def _next(net: Any) -> str:
    with net.ctx.db.read() as db:
        return next_step(db, net.ctx.place, publisher.chain_state(net.rpc, net.ctx.deployment))


def test_each_state_of_an_epoch_says_what_comes_next(network: Any, tmp_path: Any) -> None:
    from chain.rules import Rules

    with network(tmp_path, Rules(methods=("ranking",))) as net:
        assert _next(net).startswith("epoch 0 begins in ")
        net.go_to(net.start(0) + 1)
        assert _next(net) == "open epoch 0"
        net.open(0, net.plans(0, 2))
        assert _next(net).startswith("close epoch 0 in ")
        net.fund(0, 7 * DOLLAR)
        net.go_to(net.start(1) + 1)
        assert _next(net) == "close epoch 0, once the block after its end is final and indexed"
        jobs.step_index(net.ctx)
        assert jobs.close_epoch(net.ctx, 0) is not None
        assert _next(net) == "write the close of epoch 0 to the chain"
        jobs.step_commit(net.ctx)
        assert _next(net) == "post epoch 0"
        jobs.step_payout(net.ctx)
        assert _next(net).startswith("activate epoch 0 in ")
        net.go_to(net.now() + 601)
        assert _next(net) == "activate epoch 0"
        jobs.step_payout(net.ctx)
        assert _next(net) == "open epoch 1"


def test_service_command_line_and_metrics_say_the_same(haptic: Shell, net: Any) -> None:
    net.person(30)
    mine(net.rpc, 3)
    run_step(net.ctx, net.ctx.pulse, "index")
    said = net.api.get("/status")
    assert (said["indexed"], said["lag_s"]) == (said["finalized"], 0)
    assert int(said["staked"]) >= 30 * COIN
    assert json.loads(haptic("status", "--json").out) == said
    operate(haptic, net)
    here = json.loads(haptic("status", "--service", "", "--json").out)
    # Another process does not know what the clock of this one waits for.
    assert here | {"waits": said["waits"], "poster": said["poster"]} == said
    assert here["poster"].lower() == said["poster"].lower()
    shown = haptic.does("status")
    assert f"indexed {said['indexed']}" in shown
    assert said["next_step"] in shown
    scraped = {
        sample.name: sample.value
        for family in text_string_to_metric_families(net.ask("GET", "/metrics").text)
        for sample in family.samples
        if not sample.labels or sample.labels == {"job": "index"}
    }
    assert scraped["haptic_chain_up"] == 1
    assert scraped["haptic_head_block"] == said["head"]
    assert scraped["haptic_staked"] == float(said["staked"])
    assert scraped["haptic_job_failures_total"] == 0


def test_new_events_come_into_the_log_and_empty_blocks_do_not(
    net: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run_step(net.ctx, net.ctx.pulse, "index")
    net.person(7)
    mine(net.rpc, 3)
    with caplog.at_level(logging.INFO, "service.jobs"):
        run_step(net.ctx, net.ctx.pulse, "index")
        first = [r.getMessage() for r in caplog.records]
        for _ in range(3):
            mine(net.rpc, 1)
            run_step(net.ctx, net.ctx.pulse, "index")
    assert first[0].startswith("index: new events: ")
    assert [r.getMessage() for r in caplog.records] == first


def test_an_index_that_lags_makes_the_service_unready_until_it_has_caught_up(haptic: Shell, net: Any) -> None:
    jobs.step_index(net.ctx)
    assert net.ask("GET", "/readyz").status_code == 200
    net.go_to(net.now() + LAG_S + 1)
    mine(net.rpc, 3)
    for path in ("/readyz", "/healthz"):
        answer = net.ask("GET", path)
        assert answer.status_code == 503
        assert "behind the finalized block" in answer.text
    operate(haptic, net)
    assert "behind" in haptic.does("status", "--service", "")
    assert "new events; indexed to block" in haptic.does("index")
    assert net.ask("GET", "/readyz").status_code == 200


def test_a_job_that_fails_is_counted_and_makes_the_service_ill(net: Any, monkeypatch: Any) -> None:
    def broken(_ctx: Any) -> str:
        raise ValueError("no disk")

    monkeypatch.setitem(jobs.STEPS, "index", broken)
    before = net.ctx.pulse.failures.get("index", 0)
    for _ in range(2):
        try:
            run_step(net.ctx, net.ctx.pulse, "index")
        except ValueError:
            continue
    assert net.ctx.pulse.failures["index"] == before + 2
    answer = net.ask("GET", "/healthz")
    assert answer.status_code == 503
    assert answer.json()["errors"]["index"] == "ValueError: no disk"
    monkeypatch.undo()
    run_step(net.ctx, net.ctx.pulse, "index")
    assert "index" not in net.api.get("/status")["errors"]


@pytest.mark.parametrize("error", [RpcError("no node"), UnavailableError("no node"), ValueError("bug")])
def test_a_job_that_goes_on_failing_is_logged_once_and_once_more_when_it_works_again(
    net: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def broken(_ctx: Any) -> str:
        raise error

    run_step(net.ctx, net.ctx.pulse, "retrain")
    with caplog.at_level(logging.INFO, "service.jobs"):
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setitem(jobs.STEPS, "retrain", broken)
                for _ in range(3):
                    with pytest.raises(type(error)):
                        run_step(net.ctx, net.ctx.pulse, "retrain")
            run_step(net.ctx, net.ctx.pulse, "retrain")
    failed, well = f"the job retrain failed: {type(error).__name__}: {error}", "the job retrain works again"
    assert [r.getMessage() for r in caplog.records] == [failed, well] * 2
    assert [bool(r.exc_info) for r in caplog.records] == [isinstance(error, ValueError), False] * 2


def test_stake_that_is_not_final_is_shown_as_such(net: Any) -> None:
    who = net.person(12, epoch=None)
    jobs.step_index(net.ctx)
    net.ctx.head._ttl_s = 0.0

    def stake_shown() -> tuple[str, str, bool]:
        shown = net.api.get(f"/contributors/{who.address}")
        return shown["staked"], shown["staked_final"], shown["unfinalized"]

    assert stake_shown() == (str(12 * COIN), str(12 * COIN), False)
    transact(net.rpc, who.wallet, net.ctx.deployment.stake_vault(), "requestUnstake", 5 * COIN)
    assert stake_shown() == (str(7 * COIN), str(12 * COIN), True)
    mine(net.rpc, 3)
    jobs.step_index(net.ctx)
    assert stake_shown() == (str(7 * COIN), str(7 * COIN), False)


def test_a_line_of_the_log_is_one_json_object_whatever_happened() -> None:
    try:
        int("line one\nline two")
    except ValueError:
        record = logging.LogRecord(
            "service.jobs", logging.ERROR, "x.py", 1, "the job %s\nfailed", ("a",), sys.exc_info()
        )
        record.job = "index"
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["logger"], line["job"]) == ("error", "service.jobs", "index")
    assert line["message"] == "the job a\nfailed"
    assert "ValueError: invalid literal" in line["error"]


def test_the_index_is_read_anew_when_it_is_asked_for_and_answered(haptic: Shell, net: Any) -> None:
    net.person(30)
    mine(net.rpc, 3)
    run_step(net.ctx, net.ctx.pulse, "index")
    operate(haptic, net)

    def rows() -> tuple[Any, int]:
        with net.ctx.db.read() as db:
            return ledger.checkpoint(db).model_dump(), ledger.count_events(db)

    before = rows()
    assert before[1] > 0
    for arguments, blocks, forgets in (((), 0, "nothing"), (("--anew",), 1, f"{before[1]} events")):
        said = haptic.does("index", "--dry-run", *arguments)
        assert f"Forgets │ {forgets} │" in said
        assert ("Reads │ 0 blocks" in said) == (not blocks)
    assert "Nothing was written" in haptic.does("index", "--anew", typed="n\n")
    assert rows() == before
    with net.ctx.db.write() as db:
        db.connection().execute(delete(ledger.StakeRow))
        db.commit()
    assert "0 new events" in haptic.does("index")
    assert f"{before[1]} new events" in haptic.does("index", "--anew", "--yes")
    assert rows() == before
