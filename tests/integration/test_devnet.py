"""The devnet is a real Anvil that leaves nothing behind, and says what is wrong when it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.contracts import call
from chain.deploy import deploy
from chain.deployment import check_deployment
from chain.devnet import Devnet, DevnetError, find_anvil, mine, warp
from chain.errors import DeploymentError, KeyFileError
from chain.keys import address_of, create_keyfile
from chain.rpc import Rpc
from chain.transactions import Courier
from tests.soon import until

ROOT = Path(__file__).parents[2]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def _wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if _gone(pid):
            return True
        time.sleep(0.02)
    return False


def test_it_runs_while_it_is_used_and_not_after() -> None:
    with Devnet(0, timestamp=1_900_000_000, accounts=3) as devnet:
        pid = devnet.pid
        assert pid is not None
        with Rpc(devnet.url) as rpc:
            assert rpc.chain_id() == 31337
            assert rpc.block(0).timestamp == 1_900_000_000
            assert len(rpc.request("eth_accounts")) == 3
            assert mine(rpc, 4).number == 4
            assert rpc.block("finalized").number == 2
    assert _wait_gone(pid)
    devnet.stop()


def test_blocks_come_by_themselves_when_asked_to() -> None:
    with Devnet(0, block_time=1) as devnet, Rpc(devnet.url) as rpc:
        deadline = time.monotonic() + 5
        while rpc.block("latest").number == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert rpc.block("latest").number > 0


def test_time_is_warped_and_goes_on_from_there(anvil: Devnet) -> None:
    with Rpc(anvil.url) as rpc:
        assert warp(rpc, 1_900_000_000).timestamp == 1_900_000_000
        assert 1_900_000_000 <= mine(rpc).timestamp < 1_900_000_100


def test_a_port_in_use_is_named_and_no_other_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        devnet = Devnet(port)
        with pytest.raises(DevnetError, match=f"port {port} cannot be used .*choose another port"):
            devnet.start()
        assert devnet.pid is None


def test_two_devnets_do_not_meet(anvil: Devnet) -> None:
    with pytest.raises(DevnetError, match="cannot be used"):
        Devnet(anvil.port).start()
    with Rpc(anvil.url) as rpc:
        assert rpc.chain_id() == 31337


def test_a_missing_anvil_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DevnetError, match="make contracts"):
        find_anvil({"PATH": str(tmp_path)}, tmp_path)
    with pytest.raises(DevnetError, match="HAPTIC_ANVIL names"):
        find_anvil({"HAPTIC_ANVIL": str(tmp_path / "anvil")}, tmp_path)


def test_the_anvil_that_is_named_goes_before_the_others(tmp_path: Path) -> None:
    def program(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    named, on_path = program(tmp_path / "mine" / "a"), program(tmp_path / "bin" / "anvil")
    environ = {"PATH": str(on_path.parent)}
    assert find_anvil(environ, tmp_path) == on_path
    pinned = program(tmp_path / "contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil")
    assert find_anvil(environ, tmp_path) == pinned
    assert find_anvil(environ | {"HAPTIC_ANVIL": str(named)}, tmp_path) == named


@pytest.mark.parametrize(
    ("script", "words"),
    [("echo no such thing >&2; exit 3", "no such thing"), ("exit 0", "without a word")],
)
def test_an_anvil_that_stops_at_once_is_quoted(tmp_path: Path, script: str, words: str) -> None:
    broken = tmp_path / "anvil"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    with pytest.raises(DevnetError, match=f"stopped at once: {words}"):
        Devnet(0, anvil=broken).start()
    broken.write_text("no program")
    with pytest.raises(DevnetError, match="does not start"):
        Devnet(0, anvil=broken).start()


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_nothing_is_left_of_a_devnet_however_it_ends(tmp_path: Path, end: str) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    script = (
        "from chain.devnet import Devnet, mine\nfrom chain.rpc import Rpc\n"
        "with Devnet(0) as devnet, Rpc(devnet.url) as rpc:\n"
        "    mine(rpc, 600)\n"
        "    rpc.request('eth_getBalance', '0x' + '11' * 20, '0x5')\n"
        "    print(devnet.pid, flush=True)\n    input()\n"
    )
    environ = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not _gone(pid)
        assert list(temporary.rglob("0x*.json")), "Anvil wrote no states: this test shows nothing"
        if end == "killed":
            parent.send_signal(signal.SIGKILL)
            parent.wait()
        else:
            parent.communicate("\n")
            assert parent.returncode == 0
            assert not list(temporary.iterdir())
        assert _wait_gone(pid)
    until(lambda: not list(temporary.iterdir()), within_s=10)
    assert not list(home.iterdir())


def test_a_deployment_equals_the_chain(deployed: Any) -> None:
    check_deployment(deployed.rpc, deployed.deployment)
    distributor = deployed.deployment.revenue_distributor()
    assert call(deployed.rpc, distributor, "poster") == deployed.address(0)
    assert call(deployed.rpc, distributor, "guardian") == deployed.address(1)
    assert deployed.deployment.from_block == 1


def test_a_deployment_that_differs_from_the_chain_is_named_by_its_field(deployed: Any) -> None:
    d = deployed.deployment
    wrong = {
        "chain_id": 1,
        "vault": deployed.address(7),
        "distributor": d.vault,
        "token": d.payment_token,
        "payment_token": d.token,
        "genesis": d.genesis + 1,
        "epoch_length": d.epoch_length + 1,
        "challenge_window": d.challenge_window - 1,
    }
    for name, value in wrong.items():
        with pytest.raises(DeploymentError, match=name if name != "distributor" else "epoch|payment|genesis"):
            check_deployment(deployed.rpc, replace(d, **{name: value}))


def test_tokens_that_are_given_are_used(deployed: Any) -> None:
    d = deployed.deployment
    said: list[str] = []
    settings = {"genesis": 5, "epoch_length": 60, "challenge_window": 6, "cooldown": 60, "bond": 1}
    people = {"poster": deployed.address(0), "guardian": deployed.address(1)}
    again = deploy(
        deployed.rpc,
        deployed.accounts[0],
        **settings,
        **people,
        token=d.token,
        payment_token=d.payment_token,
        echo=said.append,
    )
    assert (again.token, again.payment_token) == (d.token, d.payment_token)
    assert [line.split()[0] for line in said] == ["StakeVault", "RevenueDistributor", "EpochLedger"]
    check_deployment(deployed.rpc, again)
    with pytest.raises(DeploymentError, match="token: no contract stands"):
        deploy(deployed.rpc, deployed.accounts[0], **settings, **people, token=deployed.address(8))


def test_another_chain_takes_neither_devnet_dollars_nor_published_keys(
    deployed: Any, liar: Any, tmp_path: Path
) -> None:
    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for asked, answer in zip(calls, answers, strict=True):
            if asked["method"] == "eth_chainId":
                answer["result"] = "0xa"

    liar.lie = lie
    settings = {"genesis": 5, "epoch_length": 60, "challenge_window": 6, "cooldown": 60, "bond": 1}
    owner = create_keyfile(tmp_path / "wallet.json", "password", light=True)
    people = {"poster": address_of(owner), "guardian": address_of(owner)}
    with Rpc(liar.url) as rpc:
        with pytest.raises(DeploymentError, match="payment_token: chain 10"):
            deploy(rpc, owner, **settings, **people)
        with pytest.raises(KeyFileError, match="published"):
            Courier(rpc, deployed.accounts[0]).send(deployed.address(1), b"")
    assert "eth_sendRawTransaction" not in liar.seen
