"""A watch goes on whatever nodes, mirrors and rivals do, and costs no honest root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chain import watch as watching
from chain.errors import VerifyError
from chain.keys import address_of
from chain.rpc import Rpc
from chain.served import Served
from chain.verify import bundle_source
from chain.watch import Verdict, Watcher
from tests.integration.conftest import BOND, WINDOW_S, Chain, Liar
from tests.integration.story import Story
from tests.integration.watch.site import (
    PASSWORD,
    Site,
    app,
    dropping,
    duplicating,
    misallocating,
)
from tests.worlds import first_standing

LAUNCH = "import typer; from service.cli import watch; app = typer.Typer(); watch.register(app); app()"


def test_who_looks_more_rarely_than_roots_wait_is_told_so(site: Site) -> None:
    said = CliRunner().invoke(app, [*site.options(), "--interval", str(WINDOW_S)])
    assert "a look every 60 s may miss a root, which waits for 60 s: give an --interval of at most 15" in str(
        said.exception
    )


def test_somebody_who_is_faster_is_no_error(site: Site) -> None:
    site.post(dropping(site))
    read, rival = bundle_source(str(site.folder)), site.watcher(site.chain.accounts[5])

    def late(epoch: int) -> Served:
        if site.pending[-1]:
            assert rival.look().verdict is Verdict.CHALLENGED
        return read(epoch)

    me, _ = site.wallet()
    found = site.watcher(me, late).look()
    assert (found.verdict, found.is_well) == (Verdict.GONE, True)
    assert site.chain.rpc.nonce(address_of(me)) == 0


def test_a_root_is_recomputed_once_and_anew_when_it_is_posted_again(site: Site) -> None:
    site.post(site.leaves)
    read, asked = bundle_source(str(site.folder)), []

    def counted(epoch: int) -> Served:
        asked.append(epoch)
        return read(epoch)

    watcher = site.watcher(site.chain.accounts[5], counted)
    assert [watcher.look().verdict for _ in range(3)] == [Verdict.RIGHT] * 3
    assert asked.count(1) == 1
    site.told.veto()
    assert watcher.look().verdict is Verdict.IDLE
    site.told.post(site.report)
    assert watcher.look().verdict is Verdict.RIGHT
    assert asked.count(1) == 2
    site.told.veto()
    site.post(misallocating(site))
    assert watcher.look().verdict is Verdict.ALARM


def test_a_root_that_nobody_stopped_in_time_is_cried_out_once_more(site: Site) -> None:
    report = site.post(misallocating(site))
    watcher = site.watcher()
    assert watcher.look().verdict is Verdict.ALARM
    assert watcher.look().verdict is Verdict.ALARM
    site.told.activate()
    found = watcher.look()
    assert found.verdict is Verdict.ALARM
    assert f"epoch 1: root {report.root} pays now, though it was never found right" in found.said
    assert watcher.look().verdict is Verdict.IDLE


def test_the_guardian_does_not_veto_what_is_wrong_only_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that lags for a moment must not cost an honest root."""
    site.post(site.leaves)
    true, asked = watching.verify, []

    def lagging(rpc: Any, deployment: Any, bundles: Any, epoch: int, **more: Any) -> Any:
        asked.append(bundles(epoch))
        if len(asked) == 1:
            raise VerifyError("epoch 1: what a lagging node said")
        return true(rpc, deployment, bundles, epoch, **more)

    monkeypatch.setattr(watching, "verify", lagging)
    watcher = site.watcher(site.chain.accounts[1])
    found = watcher.look()
    assert (found.verdict, "recomputed twice, gave two results" in found.said) == (Verdict.ALARM, True)
    assert watcher.look().verdict is Verdict.RIGHT
    assert site.pending[1] == site.report.root


def test_a_mirror_that_lags_for_a_moment_does_not_cost_an_honest_root(site: Site) -> None:
    """A mirror that lags for a moment must not cost an honest root."""
    site.post(site.leaves)
    read, asked = bundle_source(str(site.folder)), []

    def lagging(epoch: int) -> Served:
        asked.append(epoch)
        with read(epoch) as file:
            data = file.read()
        return BytesIO(data.replace(b'"kind":"share"', b'"kind":"shore"') if len(asked) == 1 else data)

    watcher = site.watcher(site.chain.accounts[1], lagging)
    found = watcher.look()
    assert (found.verdict, "what is served as the bundle" in found.said) == (Verdict.ALARM, True)
    assert watcher.look().verdict is Verdict.RIGHT
    assert site.pending[1] == site.report.root


def test_a_node_that_is_down_is_an_alarm_and_the_watch_goes_on(site: Site) -> None:
    with Rpc("http://127.0.0.1:9", retries=0) as dead:
        watcher = Watcher(dead, site.chain.deployment, bundle_source(str(site.folder)))
        found = watcher.look()
        assert (found.verdict, "does not answer" in found.said) == (Verdict.ALARM, True)
        watcher.rpc = site.chain.rpc
        assert watcher.look().verdict is Verdict.IDLE


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("_move_logs", " sent a log of 0xaa"),
        (
            "_hide_fundings",
            "all revenue so far is 0 by events, 10 in the contract: the node hides or invents some",
        ),
        ("_hide_posts", "the distributor's `pending` is (0, "),
    ],
)
def test_what_a_node_invents_or_hides_is_not_held_against_the_root(
    deployed: Chain, liar: Liar, tmp_path: Path, lie: str, words: str
) -> None:
    deployed.fund(4, 0, 10)
    told = Story(deployed, tmp_path, first_standing(), [], deployed.deployment.from_block - 1, {}, 0)
    told.open(0)
    _, report = told.close(0)
    told.post(report)
    with Rpc(liar.url, retries=0) as rpc:
        for account in (deployed.accounts[1], deployed.accounts[5]):
            source = bundle_source(str(tmp_path))
            watcher = Watcher(rpc, deployed.deployment, source, address_of(account), account)
            liar.lie = globals()[lie]
            found = watcher.look()
            assert found.verdict is Verdict.ALARM
            assert words in found.said
            assert "veto" not in found.said
            liar.lie = lambda _calls, _answers: None
            assert watcher.look().verdict is Verdict.RIGHT


def _move_logs(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getLogs":
            answer["result"][0]["address"] = "0x" + 40 * "a"


def _hide_fundings(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getLogs":
            answer["result"] = [x for x in answer["result"] if len(x["data"]) != 2 + 2 * 64]


def _hide_posts(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getLogs":
            answer["result"] = [x for x in answer["result"] if len(x["data"]) != 2 + 8 * 64]


def test_a_recomputation_that_breaks_down_is_an_alarm_and_not_the_end_of_the_watch(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.post(site.leaves)

    def broken(*_: object, **_more: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(watching, "verify", broken)
    found = site.watcher(site.chain.accounts[1]).look()
    assert found.verdict is Verdict.ALARM
    assert found.said.endswith("the recomputation failed (ZeroDivisionError: nobody thought of this)")
    assert site.pending[1] == site.report.root


def test_one_watcher_follows_honest_and_dishonest_roots_until_it_is_ended(site: Site) -> None:
    me, key = site.wallet()
    command = [sys.executable, "-c", LAUNCH, *site.options(), "--keyfile", str(key), "--interval", "1"]
    log = site.folder / "said"
    environ = os.environ | {"HAPTIC_PASSWORD": PASSWORD}
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said, env=environ) as process:

        def until(text: str, times: int = 1) -> None:
            deadline = time.monotonic() + 30
            while log.read_text().count(text) < times:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)

        try:
            until("no root is pending")
            site.post(dropping(site))
            until("CHALLENGED: epoch 1: 0x")
            site.chain.add_bond()
            site.post(misallocating(site))
            until("ALARM: epoch 1, ", times=2)
            site.told.veto()
            site.post(duplicating(site))
            until("twice")
            site.chain.add_bond()
            site.post(site.leaves)
            until(f"epoch 1: root {site.report.root} is right")
            time.sleep(1.5)
        finally:
            process.send_signal(signal.SIGINT)
        process.wait(10)
    assert site.pending[1] == site.report.root
    assert site.chain.rpc.balance(address_of(me)) > 10**18 + 2 * BOND - 10**16
    assert log.read_text().count(f"epoch 1: root {site.report.root} is right") == 1
