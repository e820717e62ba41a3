"""What goes wrong in the middle: it is told by name, and what was good before stays as it was."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.toys import PPO, SHAPE, TINY, base, equal, given, judge, labelled, small, tuned, weights
from trainer import corpus, dpo, model, ppo, pretrain, reward, run, sft
from trainer.checkpoint import Checkpoints
from trainer.config import Config, DpoConfig, PretrainConfig, RewardConfig, SftConfig
from trainer.errors import ConfigError, DiskError, DivergenceError, OutOfMemoryError, SnapshotError
from trainer.limits import LOWER, within_memory, writing
from trainer.method import Given
from trainer.model import LanguageModel, clone
from trainer.optimise import Stepper
from trainer.overrides import override
from trainer.preferences import Comparison, write_snapshot
from trainer.progress import Progress, silent
from trainer.registry import Registry


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size in bytes, which is how a full disk looks to who writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- disk -----------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_by_file_and_size_and_the_registry_stays(tmp_path: Path) -> None:
    good = run.bootstrap(small(tmp_path))
    files = [path for path in (tmp_path / "models" / "sft-0").rglob("*") if path.is_file()]
    before = [path.read_bytes() for path in files]
    said = r"pretrain\.pt of \d+ bytes cannot be written, \d+ are free there: .*large"
    with no_file_over(20_000), pytest.raises(DiskError, match=said):
        run.bootstrap(small(tmp_path, name="sft-1"))
    assert Registry(tmp_path / "models").entries() == [good]
    assert [path.read_bytes() for path in files] == before
    assert run.bootstrap(small(tmp_path, name="sft-1")) == replace(good, name="sft-1")


def test_a_disk_that_is_full_at_the_very_end_leaves_no_entry_and_the_next_try_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[Progress] = []
    wanted, save = small(tmp_path), model.save
    with ExitStack() as full, monkeypatch.context() as patch:

        def fill(language: model.LanguageModel, folder: Path) -> None:
            full.enter_context(no_file_over(4_000))  # the last checkpoint is kept already
            save(language, folder)

        patch.setattr(model, "save", fill)
        with pytest.raises(DiskError, match=r"\.staging-sft-0/base of \d+ bytes cannot be written"):
            run.bootstrap(wanted)
    assert wanted.registry.entries() == []
    assert run.bootstrap(replace(wanted, report=log.append)) == wanted.registry.get("sft-0")
    assert [line.note for line in log] == [
        f"resumed at step 2 of stage {name}" for name in ("pretrain", "sft")
    ]


@pytest.mark.parametrize("room", [4_000, 100_000])
def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path: Path, room: int) -> None:
    network = torch.nn.Linear(512, 512)
    keep = Checkpoints(tmp_path / "kept", "run", 0.0, silent).stage("s")
    keep.save({"network": network}, 1, 9)
    with no_file_over(room), pytest.raises(DiskError, match=r"s\.pt of \d+ bytes .*File too large"):
        keep.save({"network": network}, 2, 9)
    assert keep.load({"network": network}, step=0) == {"step": 1}
    assert list((tmp_path / "kept").rglob("*.partial")) == []


def test_a_model_for_which_there_is_no_room_is_told(tmp_path: Path) -> None:
    with no_file_over(4_000), pytest.raises(DiskError, match=r"reward of \d+ bytes"):
        model.save_judge(judge(), tmp_path / "reward")
    said = r"x/y of 5 bytes cannot be written, \d+ are free there: no"
    with pytest.raises(DiskError, match=said), writing(tmp_path / "x" / "y", 5):
        raise OSError("no")


# --- memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", LOWER)
def test_what_is_to_be_lowered_is_a_setting(stage: str) -> None:
    for setting in LOWER[stage]:
        section, name = setting.split(".")
        assert hasattr(getattr(Config(), section), name)


def test_a_stage_without_memory_says_what_to_lower_and_leaves_no_entry(tmp_path: Path) -> None:
    asked = small(tmp_path, pretrain={**TINY["pretrain"], "batch": 10**15})
    with pytest.raises(
        OutOfMemoryError, match=r"stage pretrain needs more memory .*: lower pretrain\.batch, "
    ):
        run.bootstrap(asked)
    assert asked.registry.entries() == []


def test_memory_that_python_lacks_is_told_alike_and_other_errors_pass() -> None:
    with pytest.raises(OutOfMemoryError, match=r"stage dpo .*: lower dpo\.batch"), within_memory("dpo"):
        bytearray(2**62)
    with pytest.raises(OutOfMemoryError, match="stage ppo"), within_memory("ppo"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    with pytest.raises(RuntimeError, match="inconsistent"), within_memory("ppo"):
        torch.ones(2) @ torch.ones(3)


# --- numbers that are none ----------------------------------------------------------------------------------------


def spoilt(language: LanguageModel) -> LanguageModel:
    found = clone(language)
    with torch.no_grad():
        found.network.model.norm.weight[0] = math.nan
    return found


def test_weights_that_are_no_numbers_stop_every_stage() -> None:
    rows, bad = labelled(900_000), spoilt(tuned())
    with pytest.raises(DivergenceError, match="lower the learning rate"):
        sft.train(SftConfig(steps=1, batch=2), bad, corpus.demonstrations(0, 10), 0, silent)
    with pytest.raises(DivergenceError, match="lower the learning rate"):
        reward.train(RewardConfig(epochs=1), bad, rows, 0, silent)
    with pytest.raises(DivergenceError, match="lower the learning rate"):
        dpo.train(DpoConfig(epochs=1), replace(given(), parent=bad, comparisons=rows), 0, silent)
    with pytest.raises(DivergenceError, match="lower the learning rate"):
        ppo.train(PPO, replace(given(), parent=bad), 0, silent)


def test_a_reward_that_is_no_number_stops_ppo_and_the_parent_stays() -> None:
    scorer, before = judge(), weights(tuned().network)
    scorer.scale.fill_(math.nan)
    with pytest.raises(DivergenceError, match="the loss became nan"):
        ppo.train(PPO, Given(tuned(), tuned(), scorer, given().prompts), 0, silent)
    assert equal(before, weights(tuned().network))


def test_a_gradient_that_is_no_number_changes_no_weight() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    stepper = Stepper([weight], 0.1, 2)
    with pytest.raises(DivergenceError, match=r"norm of the gradient became (nan|inf)"):
        stepper.step(weight.abs().sqrt().sum())  # 0, but steeper than any number
    assert weight.item() == 0


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match=r"model\.norm\.weight are no numbers"):
        model.save(spoilt(base()), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_run_that_diverges_leaves_the_last_good_model_as_it_was(tmp_path: Path) -> None:
    wanted = small(tmp_path)
    good = run.bootstrap(wanted)
    rows = [Comparison(f"How was day {n}?", "It was good.", "It was bad.", 900_000, 3, 0) for n in range(12)]
    sha256 = write_snapshot(tmp_path / "s.jsonl", rows)
    wild = override(wanted.config, {"ppo": {"learning_rate": 1e30, "steps": 3}})
    with pytest.raises(DivergenceError):
        run.retrain(
            replace(wanted, name="policy-1", config=wild),
            parent="sft-0", reference=None, snapshot=tmp_path / "s.jsonl", sha256=sha256,
        )  # fmt: skip
    assert wanted.registry.entries() == [good]


# --- data and settings ----------------------------------------------------------------------------------------------


def test_a_snapshot_from_which_nothing_follows_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    log: list[Progress] = []
    wanted = replace(small(tmp_path), report=log.append)
    run.bootstrap(wanted)
    log.clear()
    for rows, said in (
        ([Comparison(f"{n}?", "a", "b", 500_000, 2, 0) for n in range(9)], "a coin's"),
        ([Comparison("the one?", "a", "b", 900_000, 2, 0)], "1 different prompts"),
    ):
        sha256 = write_snapshot(tmp_path / "s.jsonl", rows)
        with pytest.raises(SnapshotError, match=said):
            run.retrain(replace(wanted, name="p"), parent="sft-0", reference=None,
                        snapshot=tmp_path / "s.jsonl", sha256=sha256)  # fmt: skip
    assert log == []
    assert [entry.name for entry in wanted.registry.entries()] == ["sft-0"]


def test_texts_longer_than_the_limits_and_repeated_ones_are_told_by_their_shares(tmp_path: Path) -> None:
    wanted = small(tmp_path)
    run.bootstrap(wanted)
    rows = [Comparison(f"day {n}? \0", "good " * 99, "bad", 900_000, 2, 0) for n in range(6)] * 2
    sha256 = write_snapshot(tmp_path / "s.jsonl", rows)
    made = run.retrain(replace(wanted, name="p"), parent="sft-0", reference=None,
                       snapshot=tmp_path / "s.jsonl", sha256=sha256)  # fmt: skip
    assert made.metrics["truncated"] == made.metrics["repeated"] == 0.5
    assert made.metrics["comparisons"] == 12
    assert json.loads((tmp_path / "models" / "p" / "entry.json").read_text())["metrics"] == made.metrics


@pytest.mark.parametrize(("width", "heads"), [(10, 4), (6, 2), (9, 3)])
def test_a_shape_that_no_model_can_have_is_told(width: int, heads: int) -> None:
    shape = replace(SHAPE, width=width, heads=heads)
    with pytest.raises(ConfigError, match=rf"model\.width is {width}: it must be a multiple of {2 * heads}"):
        pretrain.train(PretrainConfig(), shape, corpus.documents(0, 9), 0, silent)


def test_a_block_longer_than_the_text_is_told() -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.block is 9999, but the text has \d+ tokens"):
        pretrain.train(PretrainConfig(block=9999), SHAPE, corpus.documents(0, 9), 0, silent)
