"""Two real processes, by gloo over loopback: together they train what one trains alone, and one of them writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.preferences import Comparison, write_snapshot
from trainer.registry import Entry, Registry, file_sha256

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0
SUPERVISED = ("pretrain", "sft", "sft-lora", "sft-packed", "reward", "dpo")
TINY = """
model: {width: 16, layers: 2, heads: 2, vocabulary: 320, answer_tokens: 12}
pretrain: {documents: 60, steps: 12, batch: 2, block: 16}
sft: {demonstrations: 40, steps: 12, batch: 3}
reward: {epochs: 2, batch: 5, normalising_samples: 8, members: 2}
ppo: {steps: 4, episodes: 9, minibatch: 4, kl_budget: 1e9}
evaluate: {prompts: 8, texts: 20, curve_samples: 0}
checkpoint_s: 0
"""
pytestmark = pytest.mark.slow


def started(processes: int, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start a module by as many processes, or alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1",
                "--master-port", str(port)]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *(launcher if processes > 1 else ()), "-m", *arguments],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(processes: int, arguments: Sequence[str]) -> list[str]:
    """Run a module to its end and return the lines that it printed."""
    with started(processes, arguments) as child:
        out, err = child.communicate(timeout=WAIT_S)
    assert child.returncode == 0, err
    return out.splitlines()


# --- the stages -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return stages(tmp_path_factory.mktemp("alone"), 1, "ddp")


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return stages(tmp_path_factory.mktemp("together"), 2, request.param)


def stages(folder: Path, processes: int, parallel: str) -> dict[str, Any]:
    ended(processes, ["tests.together", str(folder / "found.pt"), parallel])
    found: dict[str, Any] = torch.load(folder / "found.pt")
    return found


def distance(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    """Return how far two networks' weights are from each other, as a share of their length."""
    one, other = (torch.cat([x.flatten() for x in network]) for network in (left, right))
    return float((one - other).norm() / one.norm())


def test_two_processes_see_the_losses_of_one_and_end_in_its_weights(
    alone: dict[str, Any], together: dict[str, Any]
) -> None:
    """Sums in another order differ in their last bits, which Adam's division by small numbers makes larger."""
    for stage in SUPERVISED:
        assert together[stage]["log"] == pytest.approx(alone[stage]["log"], abs=5e-4), stage
        assert distance(alone[stage]["weights"], together[stage]["weights"]) < 1e-3, stage


def test_half_precision_and_checkpointed_activations_stay_near_by_two_processes_too(
    alone: dict[str, Any], together: dict[str, Any]
) -> None:
    for found in (alone["half"], together["half"]):
        assert found["log"] == pytest.approx(alone["sft"]["log"], rel=0.02)
        assert 1e-5 < distance(alone["sft"]["weights"], found["weights"]) < 0.1


def test_an_update_of_ppo_by_two_processes_moves_policy_and_critic_as_one_does(
    alone: dict[str, Any], together: dict[str, Any]
) -> None:
    assert distance(alone["ppo-update"]["weights"], together["ppo-update"]["weights"]) < 1e-6


def test_processes_that_answer_for_themselves_draw_apart_and_hold_one_policy(
    alone: dict[str, Any], together: dict[str, Any]
) -> None:
    """Each draws answers of its own in PPO and RAFT, so these are others than one process draws."""
    for stage in ("ppo", "raft"):
        assert len(together[stage]["log"]) == len(alone[stage]["log"])
        assert together[stage]["log"] != alone[stage]["log"]
    assert all(found["alike"] for stage, found in together.items() if stage != "draws")
    assert len(set(together["draws"])) == 2


# --- the commands ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a configuration, a snapshot, and a model that two processes made."""
    home = tmp_path_factory.mktemp("trainer")
    (home / "tiny.yaml").write_text(TINY)
    rows = [Comparison(f"How was day {n}?", "It was good.", "It was bad.", 900_000, 3, 0) for n in range(32)]
    write_snapshot(home / "snapshot.jsonl", rows)
    ended(2, ["trainer", "bootstrap", *common(home, "sft-0")])
    return home


def common(home: Path, name: str) -> list[str]:
    return ["--registry", str(home / "models"), "--name", name, "--config", str(home / "tiny.yaml")]


def retrain(home: Path, name: str, *settings: str) -> list[str]:
    return ["trainer", "retrain", *common(home, name), "--parent", "sft-0", "--snapshot", str(home / "snapshot.jsonl"),
            "--sha256", file_sha256(home / "snapshot.jsonl"), *(["--set", *settings] if settings else [])]  # fmt: skip


def entry(home: Path, name: str) -> Entry:
    return Registry(home / "models").get(name)


def test_one_of_two_writes_and_speaks_and_killed_they_end_in_the_same_bits(home: Path) -> None:
    whole, broken, setting = "whole", "broken", "hardware.parallel=fsdp"
    lines = [json.loads(line) for line in ended(2, retrain(home, whole, setting))]
    assert [line["step"] for line in lines if line["stage"] == "ppo"] == [1, 2, 3, 4]
    assert [line["stage"] for line in lines].count("done") == 1
    assert entry(home, whole).config["hardware"]["processes"] == 2

    with started(2, retrain(home, broken, setting)) as child:
        deadline = time.monotonic() + WAIT_S
        while not any((home / "models").glob(f".checkpoints-{broken}/*/ppo.pt")):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        worker = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[-1])
        os.kill(worker, signal.SIGKILL)  # one that dies ends all
        assert child.wait(timeout=WAIT_S) != 0
    assert Registry(home / "models").find(broken) is None
    assert any("of stage ppo" in line for line in ended(2, retrain(home, broken, setting)))
    assert entry(home, broken).weights_sha256 == entry(home, whole).weights_sha256
    assert {p.name for p in (home / "models").iterdir() if broken in p.name} == {broken, f".lock-{broken}"}


def test_a_command_for_one_process_refuses_several(home: Path) -> None:
    with started(2, ["trainer", "simulate", "--registry", str(home / "models"), "--models", "sft-0", "--out",
                     str(home / "none.jsonl")]) as child:  # fmt: skip
        _, err = child.communicate(timeout=WAIT_S)
    assert child.returncode != 0
    said = "ConfigError: 2 processes were launched for a command that runs in one"
    assert err.count(said) == 1  # as all fail alike
    assert not (home / "none.jsonl").exists()
