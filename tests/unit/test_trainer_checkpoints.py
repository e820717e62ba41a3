"""Checkpoints: a stage that is ended after any step goes on to the very bits of one that was not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toys import GRPO, PPO, PROMPTS, RLOO, SHAPE, base, equal, given, labelled, small, tuned, weights
from trainer import corpus, dpo, grpo, ppo, pretrain, raft, reward, rloo, run, sft
from trainer.checkpoint import Checkpoints, Keep, Parts
from trainer.config import DpoConfig, PretrainConfig, RaftConfig, RewardConfig, SftConfig
from trainer.errors import CheckpointError
from trainer.method import Outcome
from trainer.model import Ensemble, LanguageModel
from trainer.optimise import Stepper
from trainer.preferences import Comparison, write_snapshot
from trainer.progress import Progress, Report, silent
from trainer.registry import Entry

PRETRAIN = PretrainConfig(steps=4, batch=4, block=16)
SFT = SftConfig(steps=4, batch=4)
# 24 episodes of 32 prompts: what is left of a round is taken by the next rollout. The controller moves at every step.
STEERED = replace(
    PPO, steps=4, episodes=24, minibatch=12, kl_control="adaptive", kl_target=0.1, kl_horizon=50
)
Stage = Callable[[Report, Keep], Any]


def train_ppo(config: Any) -> Stage:
    return lambda report, keep: ppo.train(config, given(), 3, report, keep)


STAGES: Mapping[str, tuple[Stage, int]] = {
    "pretrain": (lambda r, k: pretrain.train(PRETRAIN, SHAPE, corpus.documents(0, 60), 0, r, k), 4),
    "sft": (lambda r, k: sft.train(SFT, base(), corpus.demonstrations(0, 40), 1, r, k), 4),
    "sft-packed": (
        lambda r, k: sft.train(replace(SFT, packing=64), base(), corpus.demonstrations(0, 40), 1, r, k), 4,
    ),
    "reward": (lambda r, k: reward.train(RewardConfig(epochs=2, batch=12), tuned(), ROWS, 0, r, k), 6),
    "judge": (
        lambda r, k: reward.judge(
            RewardConfig(epochs=1, batch=16, members=2, pessimism=1), tuned(), ROWS, 0, r, k
        ),
        4,
    ),
    "ppo": (train_ppo(STEERED), 4),
    "ppo-ptx": (
        lambda r, k: ppo.train(
            replace(STEERED, steps=2, ptx_coefficient=0.1, ptx_block=16), replace(given(), texts=TEXTS), 3, r, k
        ),
        2,
    ),
    "dpo": (
        lambda r, k: dpo.train(DpoConfig(epochs=2, batch=12), replace(given(), comparisons=ROWS), 0, r, k),
        6,
    ),
    "ppo-lora": (train_ppo(replace(STEERED, steps=2, lora_rank=2)), 2),
    "reward-lora": (
        lambda r, k: reward.train(RewardConfig(epochs=1, batch=18, lora_rank=2), tuned(), ROWS, 0, r, k), 2,
    ),
    "grpo": (lambda r, k: grpo.train(replace(GRPO, steps=3), given(), 3, r, k), 3),
    "rloo-lora": (lambda r, k: rloo.train(replace(RLOO, lora_rank=2), given(), 3, r, k), 2),
    "raft": (
        lambda r, k: raft.train(RaftConfig(rounds=3, prompts=8, samples=2, steps=3), given(), 0, r, k),
        3,
    ),
}  # fmt: skip
"""Stages by name, and how many steps each has."""
ROWS, TEXTS = labelled(900_000), corpus.documents(0, 60)


class Ended(Exception):  # noqa: N818 - a kill, not an error
    """What stands in for a kill."""


class Ending(Keep):
    """Keeps in a folder, and ends the process after so many checkpoints."""

    def __init__(self, keep: Keep, after: list[int]) -> None:
        self._keep, self._left = keep, after

    def part(self, name: str, /) -> Keep:
        return Ending(self._keep.part(name), self._left)

    def load(self, parts: Parts, /, **values: Any) -> dict[str, Any]:
        return self._keep.load(parts, **values)

    def due(self) -> bool:
        return self._keep.due()

    def save(self, parts: Parts, step: int, of: int, **values: Any) -> None:
        self._keep.save(parts, step, of, **values)
        self._left[0] -= 1
        if not self._left[0]:
            raise Ended


def told(result: Any) -> tuple[list[torch.Tensor], Any]:
    """Return all that a stage's result is."""
    if isinstance(result, Outcome):
        return weights(result.policy.network), result.metrics
    if isinstance(result, LanguageModel):
        return weights(result.network), None
    return weights(result), result.pessimism if isinstance(result, Ensemble) else None


def kept(folder: Path, every_s: float = 0.0, report: Report = silent) -> Checkpoints:
    return Checkpoints(folder / "kept", "run", every_s, report)


@pytest.mark.parametrize(
    ("name", "after"), [(name, n + 1) for name, (_, steps) in STAGES.items() for n in range(steps)]
)
def test_ended_after_any_step_a_stage_goes_on_to_the_same_bits(tmp_path: Path, name: str, after: int) -> None:
    stage = STAGES[name][0]
    straight: list[Progress] = []
    expected = told(stage(straight.append, Keep()))
    with pytest.raises(Ended):
        stage(silent, Ending(kept(tmp_path).stage(name), [after]))
    torch.rand(7)  # whatever else a new process draws
    log: list[Progress] = []
    found = told(stage(log.append, kept(tmp_path, report=log.append).stage(name)))
    assert equal(found[0], expected[0])
    assert found[1] == expected[1]
    notes = [progress.note for progress in log if progress.note]
    assert any(note.startswith("resumed at step ") for note in notes)
    steps = [progress for progress in log if not progress.note]
    measured = [progress for progress in straight if not progress.note]
    assert steps == measured[len(measured) - len(steps) :]


def test_what_trl_runs_goes_on_too_and_does_not_begin_anew(tmp_path: Path) -> None:
    stage, log = STAGES["grpo"][0], []
    with pytest.raises(Ended):
        stage(silent, Ending(kept(tmp_path).stage("grpo"), [2]))
    stage(log.append, kept(tmp_path).stage("grpo"))
    assert [line.step for line in log if not line.note] == [3]


def test_files_of_trl_lie_beside_the_checkpoints_and_what_a_kill_left_of_them_the_next_try_removes(
    tmp_path: Path,
) -> None:
    run, seen = kept(tmp_path), []
    left = run.folder / "grpo.scratch" / "left"
    left.parent.mkdir(parents=True)
    left.touch()
    grpo.train(
        GRPO, given(), 3, lambda _: seen.append({p.name for p in left.parent.iterdir()}), run.stage("grpo")
    )
    assert seen
    assert all("model.safetensors" in names and left.name not in names for names in seen)
    assert not left.parent.exists()


def test_ended_again_and_again_a_stage_comes_to_its_end(tmp_path: Path) -> None:
    stage, steps = STAGES["ppo"]
    for _ in range(steps):
        with pytest.raises(Ended):
            stage(silent, Ending(kept(tmp_path).stage("ppo"), [1]))
    found, expected = (told(stage(silent, keep)) for keep in (kept(tmp_path).stage("ppo"), Keep()))
    assert equal(found[0], expected[0])
    assert found[1] == expected[1]


def test_how_often_is_kept_changes_nothing(tmp_path: Path) -> None:
    often, seldom, never = (
        told(STAGES["ppo"][0](silent, keep))
        for keep in (kept(tmp_path / "a").stage("p"), kept(tmp_path / "b", 1e9).stage("p"), Keep())
    )
    assert equal(often[0], never[0])
    assert equal(seldom[0], never[0])


def test_a_policy_that_left_its_budget_is_the_last_within_it_though_ended_before(tmp_path: Path) -> None:
    stage = train_ppo(replace(STEERED, learning_rate=1e-2, kl_coefficient=0.0, kl_budget=3.5))
    expected = told(stage(silent, Keep()))
    assert expected[1]["stopped_by_kl"] == 1.0
    assert expected[1]["steps"] > 0
    with pytest.raises(Ended):
        stage(silent, Ending(kept(tmp_path).stage("ppo"), [int(expected[1]["steps"]) + 1]))
    found = told(stage(silent, kept(tmp_path).stage("ppo")))
    assert equal(found[0], expected[0])
    assert found[1] == expected[1]


def test_a_run_that_is_killed_late_does_no_finished_stage_again(tmp_path: Path) -> None:
    wanted = small(tmp_path)
    run.bootstrap(wanted)
    rows = [Comparison(f"day {n}?", "good", "bad", 900_000, 2, 0) for n in range(12)]
    sha256 = write_snapshot(tmp_path / "s.jsonl", rows)
    log: list[Progress] = []

    def retrained(name: str, hour: int, report: Report) -> Entry:
        return run.retrain(
            replace(wanted, name=name, created_at=hour, report=report),
            parent="sft-0", reference=None, snapshot=tmp_path / "s.jsonl", sha256=sha256,
        )  # fmt: skip

    def late(progress: Progress) -> None:
        if progress.stage == "evaluate":
            raise Ended

    with pytest.raises(Ended):
        retrained("late", 2, late)
    expected = retrained("straight", 3, silent)
    assert retrained("late", 3, log.append) == replace(expected, name="late")
    assert [(line.stage, bool(line.note)) for line in log] == [
        ("reward-0", True), ("ppo", True), ("evaluate", False),
    ]  # fmt: skip
    assert list((tmp_path / "models").glob(".checkpoints-*")) == []


# --- the files ------------------------------------------------------------------------------------------------


def linear(seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(2, 1)


def test_what_is_kept_comes_back_with_pytorchs_own_chance(tmp_path: Path) -> None:
    network, generator = linear(0), torch.Generator().manual_seed(4)
    stepper = Stepper(network.parameters(), 0.1, 10)
    stepper.step(network(torch.ones(2)).sum())
    parts: Parts = {"network": network, "stepper": stepper, "generator": generator}
    kept(tmp_path).stage("s").save(parts, 3, 10, rows=[1, 2])
    drawn = torch.rand(3), torch.rand(3, generator=generator)
    before = weights(network)
    again, other = linear(1), torch.Generator()
    parts = {"network": again, "stepper": Stepper(again.parameters(), 0.1, 10), "generator": other}
    assert kept(tmp_path).stage("s").load(parts, rows=[]) == {"step": 3, "rows": [1, 2]}
    assert equal(before, weights(again))
    assert torch.equal(torch.rand(3), drawn[0])
    assert torch.equal(torch.rand(3, generator=other), drawn[1])


def test_where_nothing_was_kept_a_stage_begins_with_what_it_gave(tmp_path: Path) -> None:
    assert kept(tmp_path).stage("s").load({}, step=0, rows=[5]) == {"step": 0, "rows": [5]}
    assert Keep().load({}, step=0) == {"step": 0}


def test_it_is_kept_when_the_time_has_come_and_always_at_the_end(tmp_path: Path) -> None:
    now, network = [0.0], linear(0)
    found = Checkpoints(tmp_path / "kept", "run", 30.0, silent, clock=lambda: now[0])
    steps = []
    for step, time in enumerate((10.0, 29.0, 30.0, 59.0, 60.0, 61.0), start=1):
        now[0] = time
        found.stage("s").save({"network": network}, step, 6)
        steps.append(kept(tmp_path).stage("s").load({"network": network}, step=0)["step"])
    assert steps == [0, 0, 3, 3, 5, 6]


def test_a_damaged_checkpoint_is_not_used_but_the_one_before(tmp_path: Path) -> None:
    network = linear(0)
    for step in (1, 2):
        kept(tmp_path).stage("s").save({"network": network}, step, 9)
    last, before = tmp_path / "kept" / "run" / "s.pt", tmp_path / "kept" / "run" / "s.before.pt"
    whole = last.read_bytes()
    log: list[Progress] = []
    for damaged in (b"", whole[:31], whole[:-1], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        last.write_bytes(damaged)
        assert kept(tmp_path, report=log.append).stage("s").load({"network": network}, step=0)["step"] == 1
        assert f"{last} is damaged" in log[-2].note
    before.unlink()
    assert kept(tmp_path).stage("s").load({"network": network}, step=0)["step"] == 0


def test_nobody_holds_a_second_copy_of_what_is_kept_or_read(tmp_path: Path) -> None:
    network = torch.nn.Linear(1000, 1000)
    size = sum(p.nbytes for p in network.parameters())
    stage = kept(tmp_path).stage("s")
    stage.save({"network": network}, 1, 9)  # what is imported on the way
    tracemalloc.start()  # of Python's own memory, which a tensor's is no part of
    stage.save({"network": network}, 2, 9)
    assert stage.load({"network": network}, step=0) == {"step": 2}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2


def test_a_checkpoint_half_written_is_never_taken(tmp_path: Path) -> None:
    network = linear(0)
    kept(tmp_path).stage("s").save({"network": network}, 1, 9)
    (tmp_path / "kept" / "run" / "s.partial").write_bytes(b"half")
    assert kept(tmp_path).stage("s").load({"network": network}, step=0)["step"] == 1
    # The last was moved away already, the next was not yet in its place.
    (tmp_path / "kept" / "run" / "s.pt").rename(tmp_path / "kept" / "run" / "s.before.pt")
    assert kept(tmp_path).stage("s").load({"network": network}, step=0)["step"] == 1


def test_a_checkpoint_of_another_model_is_named_with_what_to_do(tmp_path: Path) -> None:
    kept(tmp_path).stage("s").save({"network": linear(0)}, 1, 9)
    with pytest.raises(CheckpointError, match=r"s\.pt is of another model .*size mismatch.*delete it"):
        kept(tmp_path).stage("s").load({"network": torch.nn.Linear(3, 1)}, step=0)
    with pytest.raises(CheckpointError, match=r"s\.pt is of another model"):
        kept(tmp_path).stage("s").load({"policy": linear(0)}, step=0)


def test_the_checkpoints_of_another_run_are_removed_and_it_is_said(tmp_path: Path) -> None:
    network, log = linear(0), []
    kept(tmp_path).stage("s").save({"network": network}, 1, 9)
    found = Checkpoints(tmp_path / "kept", "another", 0.0, log.append)
    assert found.stage("s").load({"network": network}, step=0)["step"] == 0
    assert "removed" in log[0].note
    assert str(tmp_path / "kept" / "run") in log[0].note
    assert not (tmp_path / "kept" / "run").exists()


def test_prompts_come_in_the_same_order_whatever_is_taken_at_a_time() -> None:
    by_one, by_many = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    pending: list[int] = []
    singles = []
    for _ in range(3 * len(PROMPTS)):
        drawn, pending = ppo.draw(pending, len(PROMPTS), 1, by_one)
        singles += drawn
    many, _ = ppo.draw([], len(PROMPTS), 3 * len(PROMPTS), by_many)
    assert singles == many
    assert sorted(many[: len(PROMPTS)]) == list(range(len(PROMPTS)))
