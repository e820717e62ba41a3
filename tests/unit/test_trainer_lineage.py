"""What a retraining comes from: the right supervised model, in the very weights, whatever stands there by its name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.toys import PPO, labelled
from trainer import run
from trainer.config import Config, EvaluateConfig, ModelConfig, PretrainConfig, RewardConfig, SftConfig
from trainer.errors import RegistryError
from trainer.preferences import write_snapshot
from trainer.progress import Progress, Report, silent
from trainer.registry import Entry, Registry

TINY = replace(
    Config(),
    model=ModelConfig(vocabulary=320, width=16, heads=2, layers=1, answer_tokens=12),
    pretrain=PretrainConfig(documents=40, steps=2, batch=4, block=16),
    sft=SftConfig(demonstrations=20, steps=2, batch=4),
    reward=RewardConfig(epochs=1, batch=16, normalising_samples=8),
    ppo=replace(PPO, steps=1, episodes=8, minibatch=8),
    evaluate=EvaluateConfig(prompts=8, texts=8, curve_samples=0),
    checkpoint_s=0.0,
)


class Ended(Exception):  # noqa: N818 - a kill, not an error
    """What stands in for a kill."""


def bootstrapped(registry: Registry, name: str, seed: int, config: Config = TINY) -> Entry:
    return run.bootstrap(run.Run(registry, name, seed, config, seed, silent))


def retrained(
    registry: Registry, folder: Path, parent: str, report: Report = silent, config: Config = TINY
) -> Entry:
    sha256 = write_snapshot(folder / "s.jsonl", labelled(900_000))
    wanted = run.Run(registry, "policy", 0, config, 9, report)
    return run.retrain(wanted, parent=parent, reference=None, snapshot=folder / "s.jsonl", sha256=sha256)


def ending(stage: str) -> Report:
    def report(progress: Progress) -> None:
        if progress.stage == stage:
            raise Ended

    return report


def test_a_retraining_stays_near_what_its_parent_descends_from(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    for seed in (0, 1):
        bootstrapped(registry, f"sft-{seed}", seed)
    assert retrained(registry, tmp_path, "sft-1").config["reference"] == "sft-1"


def test_who_reads_texts_otherwise_is_no_reference(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    for seed in (0, 1):
        bootstrapped(registry, f"sft-{seed}", seed)
    sha256 = write_snapshot(tmp_path / "s.jsonl", labelled(900_000))
    wanted = run.Run(registry, "policy", 0, TINY, 9, silent)
    with pytest.raises(RegistryError, match="sft-1 and sft-0 have other tokenizers, templates or limits"):
        run.retrain(wanted, parent="sft-1", reference="sft-0", snapshot=tmp_path / "s.jsonl", sha256=sha256)
    assert registry.find("policy") is None


def test_a_checkpoint_is_of_the_weights_that_it_began_from(tmp_path: Path) -> None:
    """An entry that was removed and made again under its name is another: nothing of the first is gone on from."""
    registry, log = Registry(tmp_path / "models"), list[Progress]()
    bootstrapped(registry, "sft-0", 0)
    with pytest.raises(Ended):
        retrained(registry, tmp_path, "sft-0", ending("evaluate"))
    shutil.rmtree(tmp_path / "models" / "sft-0")
    bootstrapped(registry, "sft-0", 0, replace(TINY, sft=replace(TINY.sft, learning_rate=1e-2)))
    retrained(registry, tmp_path, "sft-0", log.append)
    assert not [line.note for line in log if line.note.startswith("resumed")]


def test_who_measures_less_keeps_what_was_trained(tmp_path: Path) -> None:
    registry, log = Registry(tmp_path / "models"), list[Progress]()
    bootstrapped(registry, "sft-0", 0)
    with pytest.raises(Ended):
        retrained(registry, tmp_path, "sft-0", ending("evaluate"))
    less = replace(TINY, evaluate=replace(TINY.evaluate, prompts=4))
    retrained(registry, tmp_path, "sft-0", log.append, less)
    assert [line.stage for line in log if line.note.startswith("resumed")] == ["reward-0", "ppo"]
