"""Where and how a training runs: each way gives the same gradients, and what is not here is refused before any work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.toys import PPO, PROMPTS, SHAPE, base, equal, given, labelled, small, tuned, weights
from trainer import corpus, devices, dpo, ppo, pretrain, processes, reward, run, sft
from trainer.__main__ import main
from trainer.config import Config, DpoConfig, HardwareConfig, PretrainConfig, RewardConfig, SftConfig
from trainer.errors import ConfigError
from trainer.model import LanguageModel, clone
from trainer.progress import silent
from trainer.sampler import sample
from trainer.sequences import answer_logprobs, encode_answer, encode_prompt, pad


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    base(), tuned()  # made on plain hardware, whatever a test asks for
    yield
    devices.use(HardwareConfig())


def batch() -> tuple[list[list[int]], list[list[int]]]:
    prompts = [encode_prompt(tuned(), prompt) for prompt in PROMPTS[:6]]
    return prompts, [encode_answer(tuned(), "The tea was good." * (row % 3)) for row in range(6)]


def gradients(hardware: HardwareConfig, language: LanguageModel) -> list[Tensor]:
    devices.use(hardware)
    network = devices.trained(language.network)
    answer_logprobs(replace(language, network=network), pad(*batch())).sum().backward()  # type: ignore[arg-type]
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def near(left: list[Tensor], right: list[Tensor], by: float) -> bool:
    return len(left) == len(right) and all(
        (a - b).norm() <= by * (1e-3 + a.norm()) for a, b in zip(left, right, strict=True)
    )


# --- checkpointed activations ---------------------------------------------------------------------------------


def kept(hardware: HardwareConfig) -> int:
    """Return how many numbers a pass keeps for the way back."""
    devices.use(hardware)
    language, found = clone(tuned()), 0

    def keep(x: Tensor) -> Tensor:
        nonlocal found
        found += x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        answer_logprobs(language, pad(*batch()))
    return found


def test_activations_that_are_computed_again_give_the_same_gradients_and_are_not_kept() -> None:
    checkpointed = HardwareConfig(gradient_checkpointing=True)
    assert equal(gradients(HardwareConfig(), clone(tuned())), gradients(checkpointed, clone(tuned())))
    assert kept(checkpointed) < 0.7 * kept(HardwareConfig())


def test_dropout_stays_off_where_activations_are_computed_again_and_answers_still_have_their_cache() -> None:
    devices.use(HardwareConfig(gradient_checkpointing=True))
    language = clone(tuned())
    answer_logprobs(language, pad(*batch())).sum().backward()
    assert not any(module.training for module in language.network.modules())
    prompts, _ = batch()
    drawn = [
        sample(model, prompts, temperature=1.0, generator=torch.Generator().manual_seed(0)).batch.tokens
        for model in (language, tuned())
    ]
    assert torch.equal(*drawn)


# --- half precision -------------------------------------------------------------------------------------------


def test_half_precision_stays_near_and_keeps_weights_gradients_and_logits_whole() -> None:
    whole = gradients(HardwareConfig(), clone(tuned()))
    near_by = gradients(HardwareConfig(precision="bfloat16"), clone(tuned()))
    assert near(whole, near_by, 0.05)
    assert not equal(whole, near_by)
    assert {x.dtype for x in near_by} == {torch.float32}
    assert answer_logprobs(tuned(), pad(*batch())).dtype == torch.float32


def test_every_stage_runs_in_half_precision_with_checkpointed_activations() -> None:
    devices.use(HardwareConfig(precision="bfloat16", gradient_checkpointing=True))
    texts, shown, rows = corpus.documents(0, 100), corpus.demonstrations(0, 20), labelled(900_000)
    language = pretrain.train(PretrainConfig(steps=3, batch=4, block=32), SHAPE, texts, 0, silent)
    sft.train(SftConfig(steps=3, batch=4), language, shown, 0, silent)
    reward.train(RewardConfig(epochs=1), tuned(), rows, 0, silent)
    about = replace(given(), comparisons=rows)
    dpo.train(DpoConfig(epochs=1), about, 0, silent)
    trained = ppo.train(PPO, about, 0, silent).policy.network
    assert not equal(weights(trained), weights(tuned().network))
    assert {x.dtype for x in weights(trained)} == {torch.float32}


# --- compiling ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what PyTorch does for it
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_blocks_give_the_same_gradients() -> None:
    compiled = gradients(HardwareConfig(compile=True), clone(tuned()))
    assert near(gradients(HardwareConfig(), clone(tuned())), compiled, 1e-4)


# --- what is not here -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        (HardwareConfig(device="cuda"), "hardware.device is cuda, but PyTorch finds no GPU"),
        (HardwareConfig(attention="flash_attention_2"), "there is no package flash_attn"),
        (HardwareConfig(compile=True), r"there is no C\+\+ compiler"),
    ],
)
def test_what_is_not_here_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardware: HardwareConfig, said: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=said):
        run.prepare(Config(hardware=hardware))
    assert not (tmp_path / "models").exists()


def test_shared_rows_are_refused_where_attention_cannot_keep_them_apart(tmp_path: Path) -> None:
    run_ = small(tmp_path, sft={"packing": 64}, hardware={"attention": "flash_attention_2"})
    with pytest.raises(ConfigError, match=r"sft.packing is 64, and hardware.attention flash_attention_2"):
        run.bootstrap(run_)


def test_processes_that_are_not_told_where_to_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for name in ("RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but there is no RANK, MASTER_PORT: launch by"):
        run.prepare(Config())
    monkeypatch.setenv("WORLD_SIZE", "")  # said by who says nothing
    run.prepare(Config())


@pytest.mark.parametrize("command", ["config", "card", "report", "tensorboard", "tasks", "answer"])
def test_a_command_for_one_process_refuses_several(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {
        "config": [],
        "card": ["--name", "x"],
        "report": ["--out", "page"],
        "tensorboard": ["--name", "x", "--out", "runs"],
        "tasks": ["--model", "x"],
        "answer": ["--model", "x", "--prompts", "p", "--out", "a"],
    }[command]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    registry = [] if command == "config" else ["--registry", "models"]
    assert main([command, *registry, *more]) == 1
    assert "2 processes were launched for a command that runs in one" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_what_fails_in_one_process_only_is_told_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.__main__.ALIKE_S", 0.0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(["bootstrap", "--registry", str(tmp_path), "--name", "s", "--set", "nothing=1"]) == 1
    assert capsys.readouterr().err.startswith("process 1: ConfigError: there is no setting nothing")


def test_attention_that_is_asked_for_is_used_and_gives_the_same(tmp_path: Path) -> None:
    made = run.bootstrap(small(tmp_path, name="plain"))
    eager = run.bootstrap(small(tmp_path, name="eager", hardware={"attention": "eager"}))
    assert eager.config["hardware"]["attention"] == "eager"
    assert made.config["hardware"]["attention"] == "auto"
    assert eager.weights_sha256 != made.weights_sha256  # the same but for its last bits
    devices.use(HardwareConfig(attention="eager"))
    assert devices.placed(clone(base()).network).config._attn_implementation == "eager"


def test_auto_is_recorded_as_the_device_that_it_stood_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices.use(HardwareConfig(device="auto"))
    assert devices.recorded()["device"] == "cpu"
    assert devices.recorded()["processes"] == 1


# --- one process as a sum of one ------------------------------------------------------------------------------


def test_the_shares_of_all_processes_are_the_minibatch_each_row_once_and_as_many_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for rows in (1, 2, 7, 12):
        for count in (1, 2, 3, 5):
            monkeypatch.setattr(processes, "count", lambda count=count: count)
            found, sizes = [], set()
            for place in range(count):
                monkeypatch.setattr(processes, "place", lambda place=place: place)
                mine, counts = processes.share(rows)
                found += mine[counts.bool()].tolist()
                sizes.add(len(mine))
            assert found == list(range(rows))
            assert len(sizes) == 1
