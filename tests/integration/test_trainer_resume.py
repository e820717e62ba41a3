"""Training killed by kill -9, again and again: the same command goes on and ends in the weights of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from service.database import open_database
from service.ledger import queries, work
from service.ledger.tables import JobRow
from service.worker import Worker
from trainer.__main__ import main
from trainer.diary import COST, METRICS
from trainer.preferences import Comparison, write_snapshot
from trainer.registry import Registry, file_sha256

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0
TINY = """
model: {width: 16, layers: 1, heads: 2, vocabulary: 320, answer_tokens: 12}
pretrain: {documents: 60, steps: 60, batch: 2, block: 16}
sft: {demonstrations: 40, steps: 60, batch: 2}
reward: {epochs: 5, batch: 4, normalising_samples: 8, members: 2, pessimism: 0.5}
ppo: {steps: 8, episodes: 20, minibatch: 8, kl_control: adaptive, kl_budget: 1e9}
evaluate: {prompts: 8, texts: 20}
checkpoint_s: 0
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a configuration, a snapshot, and a registry with models that were made unbroken."""
    home = tmp_path_factory.mktemp("trainer")
    (home / "tiny.yaml").write_text(TINY)
    write_snapshot(
        home / "snapshot.jsonl",
        [Comparison(f"How was day {n}?", "It was good.", "It was bad.", 900_000, 3, 0) for n in range(32)],
    )
    assert main([*bootstrap(home, "models", "sft-0"), "--set", "checkpoint_s=1e9"]) == 0
    assert main([*retrain(home, "policy-0"), "--set", "checkpoint_s=1e9"]) == 0
    return home


def bootstrap(home: Path, registry: str, name: str) -> list[str]:
    return [
        "bootstrap",
        "--registry",
        str(home / registry),
        "--name",
        name,
        "--config",
        str(home / "tiny.yaml"),
    ]


def retrain(home: Path, name: str) -> list[str]:
    return ["retrain", "--registry", str(home / "models"), "--name", name, "--parent", "sft-0", "--snapshot",
            str(home / "snapshot.jsonl"), "--sha256", file_sha256(home / "snapshot.jsonl"), "--seed", "5",
            "--config", str(home / "tiny.yaml")]  # fmt: skip


def ended(arguments: Sequence[str]) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *arguments],
        cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=WAIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def result(home: Path, registry: str, name: str) -> tuple[str, dict[str, float], list[object]]:
    """Return an entry's weights and metrics, and each line of its run but when it was said."""
    entry = Registry(home / registry).get(name)
    text = (home / registry / name / METRICS).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return entry.weights_sha256, dict(entry.metrics), [line | {"at": None} for line in lines]


def killed_when(arguments: Sequence[str], come: Callable[[], bool], delay_s: float) -> None:
    """Start a command and kill it a while after something has come to pass."""
    command = [sys.executable, "-m", "trainer", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + WAIT_S
        while not come():
            assert child.poll() is None, f"{arguments} ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(delay_s)
        child.kill()
        assert child.wait() == -signal.SIGKILL


def changed(folder: Path, pattern: str) -> Callable[[], bool]:
    """Return whether a file of a pattern is there that was not there, or not so, before."""

    def seen() -> dict[Path, int]:
        found = {}
        for path in folder.glob(pattern):
            try:
                found[path] = path.stat().st_ino
            except FileNotFoundError:  # it has just become the checkpoint
                found[path] = 0
        return found

    before = seen()
    return lambda: any(before.get(path) != number for path, number in seen().items())


@pytest.mark.parametrize(
    ("registry", "name", "stages"),
    [
        ("other", "sft-0", ["pretrain.partial", "pretrain.pt", "sft.pt"]),
        ("models", "policy-1", ["reward-0.pt", "reward-1.partial", "ppo.partial", "ppo.pt"]),
    ],
)
def test_killed_in_every_stage_and_while_it_keeps_a_run_ends_as_if_nobody_had(
    home: Path, registry: str, name: str, stages: Sequence[str]
) -> None:
    """The other methods are ended after each of their steps in unit/test_trainer_checkpoints.py."""
    broken = bootstrap(home, registry, name) if registry == "other" else retrain(home, name)
    draw = random.Random(f"{name} is killed")
    for stage in stages:
        come = changed(home / registry, f".checkpoints-{name}/*/{stage}")
        killed_when(broken, come, 0.0 if stage.endswith("partial") else draw.uniform(0, 0.05))
        assert Registry(home / registry).find(name) is None
    assert "resumed at step " in ended(broken)
    costs = json.loads((home / registry / name / COST).read_text(encoding="utf-8"))
    assert max(cost["attempts"] for cost in costs.values()) > 1
    assert result(home, registry, name) == result(
        home, "models", "sft-0" if registry == "other" else "policy-0"
    )
    assert list((home / registry).glob(".checkpoints-*")) == []


def test_rounds_that_are_killed_go_on_and_decide_as_if_nobody_had(home: Path) -> None:
    def rounds(registry: str) -> list[str]:
        return ["rounds", "--registry", str(home / registry), "--parent", "sft-0", "--rounds", "2", "--count", "40",
                "--judged", "40", "--out", str(home / f"rounds-{registry}"),
                "--config", str(home / "tiny.yaml")]  # fmt: skip

    def decided(registry: str) -> list[str]:
        return [path.read_text() for path in sorted((home / f"rounds-{registry}").glob("*.verdict.json"))]

    for registry in ("unbroken", "broken"):
        shutil.copytree(home / "models" / "sft-0", home / registry / "sft-0")
    ended([*rounds("unbroken"), "--set", "checkpoint_s=1e9"])
    killed_when(rounds("broken"), changed(home / "broken", ".checkpoints-round-1/*/ppo.pt"), 0.02)
    assert decided("broken") == []
    killed_when(rounds("broken"), changed(home / "rounds-broken", "round-1.verdict.json"), 0.0)
    killed_when(rounds("broken"), changed(home / "broken", ".checkpoints-round-2/*/reward-0.pt"), 0.02)
    assert decided("broken") == decided("unbroken")[:1]
    assert "resumed at step " in ended(rounds("broken"))
    assert decided("broken") == decided("unbroken")
    assert len(decided("broken")) == 2
    for name in ("round-1", "round-2"):
        assert result(home, "broken", name) == result(home, "unbroken", name)


def test_a_job_of_the_service_whose_trainer_was_killed_goes_on_at_the_next_attempt(home: Path) -> None:
    db = open_database(f"sqlite:///{home / 'haptic.db'}")
    with db.write() as session:
        queries.add(session, JobRow(name="retrain/1", arguments=retrain(home, "policy-2")))
        session.commit()

    def job() -> JobRow:
        with db.read() as session:
            return work.jobs(session)[0]

    worker = Worker(db, home, 3)
    come = changed(home / "models", ".checkpoints-policy-2/*/ppo.pt")
    first = threading.Thread(target=worker.run_one)
    first.start()
    deadline = time.monotonic() + WAIT_S
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    (child,) = Path(f"/proc/{os.getpid()}/task/{first.native_id}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    first.join(WAIT_S)
    assert (job().state, job().attempts) == ("queued", 1)
    assert "killed by signal 9" in job().error
    assert worker.run_one()
    assert (job().state, job().attempts) == ("done", 2)
    assert "of stage ppo" in Path(job().log).read_text()
    assert result(home, "models", "policy-2") == result(home, "models", "policy-0")
    db.engine.dispose()
