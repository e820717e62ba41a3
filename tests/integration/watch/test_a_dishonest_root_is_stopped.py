"""`haptic watch` on a real chain: a dishonest poster is stopped each time, an honest one never is."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chain.attempts import PATIENCE
from chain.canonical import text_hash
from chain.devnet import mine
from chain.errors import RevertError
from chain.fees import GWEI
from chain.keys import address_of
from chain.rpc import Rpc
from chain.types import Wei
from chain.watch import Verdict
from tests.integration.conftest import BOND
from tests.integration.watch.site import (
    Dishonest,
    Site,
    dropping,
    duplicating,
    lowering,
    misallocating,
    swapping,
    unchanged,
)


@pytest.mark.parametrize(
    ("leaves", "changes", "match"),
    [
        (dropping, {}, "is missing from the pending one"),
        (lowering, {}, "DUSD in the pending one"),
        (duplicating, {}, "stands in the pending root twice: with"),
        (swapping, {}, "out of order"),
        (unchanged, {"sum": Wei(20_003)}, "root counts as 0.020003 DUSD, but what is below it adds up to 0.02 DUSD"),
        (unchanged, {"depth": 9}, "levels below the pending root|the pending root"),
    ],
    ids=["dropping", "lowering", "duplicating", "swapping", "over-promising", "too deep"],
)  # fmt: skip
def test_a_dishonest_poster_is_stopped_and_the_watcher_is_paid_the_bond(
    site: Site, leaves: Dishonest, changes: dict[str, Any], match: str
) -> None:
    site.chain.fund(4, 0, 5)
    report = site.post(leaves(site), **changes)
    me, key = site.wallet()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 0, said.output
    assert "CHALLENGED: epoch 1: " in said.output
    assert any(part in said.output for part in match.split("|"))
    assert f"Root {report.root} was challenged and is gone" in said.output
    assert "bond 1 ETH" in said.output
    assert site.pending[-1] == 0
    assert site.chain.rpc.balance(address_of(me)) > 10**18 + BOND - 10**15
    again = site.watch("--keyfile", key)
    assert (again.exit_code, "no root is pending" in again.output) == (0, True)


def test_more_than_was_ever_paid_in_cannot_be_promised_at_all(site: Site) -> None:
    funded = site.chain.view(site.distributor, "funded")
    with pytest.raises(RevertError, match=rf"{funded + 1}.*\(SumExceedsFunded\)"):
        site.post(site.leaves, sum=Wei(funded + 1))


@pytest.mark.parametrize("guardian", [False, True])
def test_an_honest_root_is_let_be(site: Site, *, guardian: bool) -> None:
    site.post(site.leaves)
    me, key = site.guardian() if guardian else site.wallet()
    before = site.chain.rpc.nonce(address_of(me))
    said = site.watch("--keyfile", key)
    assert said.exit_code == 0, said.output
    assert f"epoch 1: root {site.report.root} is right" in said.output
    assert site.chain.rpc.nonce(address_of(me)) == before
    site.told.activate()
    assert site.chain.view(site.distributor, "active")[0] == 2


def test_what_nobody_can_prove_is_an_alarm_and_the_guardian_vetoes_it(site: Site) -> None:
    report = site.post(misallocating(site))
    me, key = site.wallet()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert "ALARM: epoch 1, leaf account 0x" in said.output
    guardian, guardians_key = site.guardian()
    assert f"only its guardian, {address_of(guardian)}, can veto. It can be activated in" in said.output
    assert site.chain.rpc.nonce(address_of(me)) == 0
    assert site.pending[1] == report.root
    said = site.watch("--keyfile", guardians_key)
    assert said.exit_code == 0, said.output
    assert "VETOED: epoch 1, leaf account 0x" in said.output
    assert site.pending[-1] == 0


def test_a_root_whose_data_is_withheld_is_an_alarm_and_the_guardian_vetoes_it(site: Site) -> None:
    site.post(site.leaves, root=text_hash("nobody knows"))
    _, key = site.wallet()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert f"ALARM: epoch 1, on the chain: root is {text_hash('nobody knows')}, recomputed" in said.output
    _, key = site.guardian()
    assert "VETOED" in site.watch("--keyfile", key).output
    assert site.pending[-1] == 0


def test_a_bad_mirror_is_an_alarm_and_does_not_cost_an_honest_root(site: Site) -> None:
    site.post(site.leaves)
    (site.folder / "epoch-1.jsonl").write_bytes(b"<html>502 Bad Gateway</html>")
    _, key = site.guardian()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert "ALARM: what is served as the bundle of epoch 1 has the hash 0x" in said.output
    assert site.pending[1] == site.report.root


@pytest.mark.parametrize("leaves", [unchanged, dropping])
def test_a_bundle_that_cannot_be_read_is_an_alarm_and_nothing_is_sent(site: Site, leaves: Dishonest) -> None:
    site.post(leaves(site))
    guardian, key = site.guardian()
    before = site.chain.rpc.nonce(address_of(guardian))
    for bundle, match in (
        (site.folder / "away" / "epoch-1.jsonl", "No such file"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/v1/epochs/1/bundle cannot be read"),
    ):
        said = site.watch("--keyfile", key, bundle=bundle)
        assert said.exit_code == 1
        assert "ALARM: the bundle of epoch 1 cannot be read: " in said.output
        assert match in said.output
    assert site.chain.rpc.nonce(address_of(guardian)) == before


@pytest.mark.parametrize("place", [0, 1])
def test_where_an_earlier_epoch_cannot_be_checked_the_guardian_does_not_veto(site: Site, place: int) -> None:
    """A pending root that goes on from a wrong one is not wrong for that."""
    site.post(site.leaves)
    earlier = site.folder / "epoch-0.jsonl"
    if place:
        earlier.write_bytes(earlier.read_bytes().replace(b'"ranks":[1,', b'"ranks":[2,', 1))
    else:
        earlier.unlink()
    _, key = site.guardian()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert (
        "what comes before it is wrong already: " if place else "the bundle of epoch 0 cannot be read"
    ) in said.output
    assert site.pending[1] == site.report.root


def test_without_the_bundle_before_a_fault_of_the_root_itself_is_still_challenged(site: Site) -> None:
    site.post(duplicating(site))
    (site.folder / "epoch-0.jsonl").unlink()
    _, key = site.wallet()
    assert "CHALLENGED" in site.watch("--keyfile", key).output


def test_a_bundle_that_is_broken_otherwise_still_gives_the_leaves_that_condemn_it(site: Site) -> None:
    site.post(lowering(site))
    bundle = site.folder / "epoch-1.jsonl"
    bundle.write_bytes(b'{"no": "bundle"}\n\xff"leaf"\n{"kind":"leaf"}\n["leaf"]\n' + bundle.read_bytes())
    _, key = site.wallet()
    assert "CHALLENGED" in site.watch("--keyfile", key).output


def test_while_claims_are_paused_wrong_roots_fall_all_the_same(site: Site) -> None:
    site.chain.act(1, site.distributor, "pause")
    site.post(lowering(site))
    _, key = site.wallet()
    assert "CHALLENGED" in site.watch("--keyfile", key).output


def test_a_dry_run_says_what_would_be_sent_and_what_it_costs(site: Site) -> None:
    report = site.post(dropping(site))
    _, key = site.wallet()
    before = site.chain.rpc.block("latest")
    said = site.watch("--keyfile", key, "--dry-run")
    assert said.exit_code == 1
    assert "PLANNED: epoch 1: 0x" in said.output
    assert "Nothing was sent; challengeMissing would stop it. Gas would be 0.00" in said.output
    assert "at most, bond would be 1 ETH" in said.output
    assert "It can be activated in" in said.output
    said = site.watch()
    assert said.exit_code == 1
    assert (
        "The bond is 1 ETH. Whoever proves it with a key of their own (--keyfile) is paid it" in said.output
    )
    assert site.chain.rpc.block("latest") == before
    assert site.pending[1] == report.root


def test_the_guardians_dry_run_vetoes_nothing(site: Site) -> None:
    report = site.post(misallocating(site))
    _, key = site.guardian()
    said = site.watch("--keyfile", key, "--dry-run")
    assert (said.exit_code, "Nothing was sent; veto would stop it" in said.output) == (1, True)
    assert site.pending[1] == report.root


def test_a_watcher_who_cannot_pay_the_gas_is_told_how_much_is_missing(site: Site) -> None:
    site.post(dropping(site))
    me, key = site.wallet(balance=5)
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert f"ALARM: {address_of(me)} has 0.000000000000000005 ETH (5 wei), but its transaction" in said.output


def test_a_dry_run_of_a_watcher_who_cannot_pay_says_so_beside_what_it_found(site: Site) -> None:
    site.post(dropping(site))
    _, key = site.wallet(balance=5)
    said = site.watch("--keyfile", key, "--dry-run")
    assert said.exit_code == 1
    assert "PLANNED: epoch 1: 0x" in said.output
    assert "Gas would be 0.00" in said.output
    assert re.search(r"The account cannot pay for it: 0\.00\d+ ETH are missing", said.output)


def test_a_challenge_that_fees_overtake_is_replaced_in_time(site: Site) -> None:
    """A challenge that stays in the pool loses its window, and the bond with it."""
    site.post(dropping(site))
    me, _ = site.wallet(balance=10**20)
    rpc = site.chain.rpc
    rpc.request("evm_setAutomine", False)  # noqa: FBT003  (Anvil takes it by position)
    with ThreadPoolExecutor(1) as pool:
        try:
            coming = pool.submit(site.watcher(me).look)
            first = _pooled(rpc, address_of(me), 0)
            for _ in range(PATIENCE):
                rpc.request("anvil_setNextBlockBaseFeePerGas", hex(100 * GWEI))
                mine(rpc)
            dearer = _pooled(rpc, address_of(me), 100 * GWEI)
            assert (dearer["nonce"], dearer["input"]) == (first["nonce"], first["input"])
            mine(rpc)
            found = coming.result(20)
        finally:
            rpc.request("evm_setAutomine", True)  # noqa: FBT003
            # Anvil goes on from here even after the chain is set back for the next test.
            rpc.request("anvil_setNextBlockBaseFeePerGas", "0x1")
            mine(rpc)
    assert (found.verdict, found.transaction) == (Verdict.CHALLENGED, dearer["hash"])
    assert site.pending[-1] == 0


def _pooled(rpc: Rpc, who: str, least: int) -> dict[str, Any]:
    """Wait until somebody's one transaction in the pool offers so much per gas, and return it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for sender, held in rpc.request("txpool_content")["pending"].items():
            for each in held.values():
                if sender.lower() == who and int(each["maxFeePerGas"], 16) >= least:
                    return dict(each)
        time.sleep(0.02)
    raise AssertionError(f"{who} did not send or replace it")
