"""GRPO and RLOO by trl: what trl is given is ours to the token, and what comes back follows from the seed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import _telemetry
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from tests.toys import GRPO, PROMPTS, RLOO, equal, given, judge, tuned, weights
from trainer import by_trl, devices, grpo, reward, rloo, run
from trainer.config import Config, GroupConfig, HardwareConfig
from trainer.errors import ConfigError, DivergenceError
from trainer.method import Outcome
from trainer.model import END
from trainer.progress import Progress, silent
from trainer.sequences import encode_answer, encode_prompt, pad

METHODS: dict[str, tuple[Callable[..., Outcome], GroupConfig]] = {
    "grpo": (grpo.train, GRPO),
    "rloo": (rloo.train, RLOO),
}
both = pytest.mark.parametrize("method", METHODS)


def trained(method: str, seed: int = 0, log: Callable[[Progress], None] = silent, **changes: Any) -> Outcome:
    """Train, and log what was measured; the toys' answers are long enough to be told of."""
    train, config = METHODS[method]
    return train(replace(config, **changes), given(), seed, lambda line: None if line.note else log(line))


@both
def test_the_reward_rises_and_nothing_that_was_given_is_changed(method: str) -> None:
    log: list[Progress] = []
    before, says = weights(tuned().network) + weights(judge()), tuned().network.config.to_dict()
    policy = trained(
        method, log=log.append, steps=8, episodes=64, minibatch=32, learning_rate=1e-2, beta=0.0
    ).policy
    assert [(line.stage, line.step, line.of) for line in log] == [(method, n + 1, 8) for n in range(8)]
    assert log[-1].metrics["reward"] > log[0].metrics["reward"] + 0.2
    assert equal(before, weights(tuned().network) + weights(judge()))
    assert says == tuned().network.config.to_dict() == policy.network.config.to_dict()


@both
def test_the_weights_follow_from_the_seed(method: str) -> None:
    once, again, other = (weights(trained(method, seed).policy.network) for seed in (3, 3, 4))
    assert equal(once, again)
    assert not equal(once, other)


@both
def test_adapters_learn_and_the_base_stays(method: str) -> None:
    config = replace(Config(), method=method, **{method: replace(METHODS[method][1], lora_rank=2)})
    policy = run.improve(config, given(), 0, silent).policy.network
    before = tuned().network.model
    assert not torch.equal(policy.model.layers[0].mlp.up_proj.weight, before.layers[0].mlp.up_proj.weight)
    assert torch.equal(policy.model.embed_tokens.weight, before.embed_tokens.weight)


def test_trl_sees_prompts_as_our_template_lays_them_out() -> None:
    texts = [*PROMPTS[:3], "how " * 100, "<end> <pad>"]
    found = by_trl._Prompts.of(tuned())(text=texts)["input_ids"]
    assert found == [encode_prompt(tuned(), text) for text in texts]


def test_trl_is_paid_what_our_reward_model_says_of_the_very_tokens_and_a_fixed_price_where_they_do_not_end() -> (
    None
):
    answers = [encode_answer(tuned(), "It was lovely."), encode_answer(tuned(), "It was awful.")[:-1]]
    told: dict[str, float] = {}
    found = by_trl._reward(replace(GRPO, unfinished_reward=-7.0), given())(
        prompts=PROMPTS[:2],
        completion_ids=answers,
        log_metric=told.__setitem__,
        completions=[],
        trainer_state=None,
    )
    batch = pad([encode_prompt(tuned(), prompt) for prompt in PROMPTS[:2]], answers)
    assert answers[0][-1] == END
    assert found == [pytest.approx(reward.score(judge(), batch)[0].item()), -7.0]
    assert told == {"finished": 0.5}


@both
def test_answers_are_no_longer_than_ours(method: str) -> None:
    log: list[Progress] = []
    trained(method, log=log.append)
    assert all(0 < line.metrics["length"] <= tuned().limits.answer_tokens for line in log)


@pytest.mark.parametrize("tokens", [1, 60])
@both
def test_answers_that_do_not_end_are_told_of_once_and_others_not(method: str, tokens: int) -> None:
    log: list[Progress] = []
    train, config = METHODS[method]
    parent = replace(tuned(), limits=replace(tuned().limits, answer_tokens=tokens))
    metrics = train(config, replace(given(), parent=parent), 0, log.append).metrics
    notes = [line.note for line in log if line.note]
    if tokens == 1:
        assert metrics["finished"] == 0.0
        assert [note.partition(",")[0] for note in notes] == [
            "100% of the last answers do not end within the limit"
        ]
    else:
        assert metrics["finished"] > 0.5
        assert notes == []


def test_the_anchor_is_the_parent_and_without_a_penalty_there_is_none() -> None:
    log: list[Progress] = []
    trained("rloo", log=log.append)
    assert log[0].metrics["kl_anchor"] == 0.0  # of its first rollout, before any step
    assert log[1].metrics["kl_anchor"] != 0.0
    assert "kl_anchor" not in trained("rloo", beta=0.0).metrics


@pytest.fixture
def hardware() -> Iterator[Callable[[HardwareConfig], None]]:
    tuned()  # made on plain hardware, whatever a test asks for
    yield devices.use
    devices.use(HardwareConfig())


@both
def test_trl_trains_in_half_precision_where_that_is_asked_for(
    method: str, hardware: Callable[[HardwareConfig], None]
) -> None:
    hardware(HardwareConfig(precision="bfloat16"))
    found = set()

    def note(module: nn.Module, _given: Any, result: Any) -> None:
        if isinstance(module, nn.Linear) and module.out_features != 1:  # a reward model's head is whole
            found.add(result.dtype)

    with register_module_forward_hook(note):
        policy = trained(method).policy
    assert found == {torch.bfloat16}
    assert {x.dtype for x in weights(policy.network)} == {torch.float32}


@both
def test_trl_computes_activations_again_where_that_is_asked_for_and_ends_in_the_same_weights(
    method: str, hardware: Callable[[HardwareConfig], None]
) -> None:
    ends, kept = [], [0, 0]
    for run_, checkpointed in enumerate((False, True)):
        hardware(HardwareConfig(gradient_checkpointing=checkpointed))

        def keep(x: Tensor, run_: int = run_) -> Tensor:
            kept[run_] += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            ends.append(weights(trained(method).policy.network))
    assert equal(*ends)
    assert kept[1] < 0.9 * kept[0]


def test_the_anchor_has_the_attention_that_is_asked_for(
    hardware: Callable[[HardwareConfig], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(HardwareConfig(attention="eager"))
    made, found = by_trl._trainer, []
    monkeypatch.setattr(by_trl, "_trainer", lambda *given: found.append(made(*given)) or found[-1])
    trained("grpo", steps=1)
    assert found[0].ref_model.config._attn_implementation == "eager"


@both
def test_what_trl_would_leave_out_is_refused(method: Any) -> None:
    with pytest.raises(ConfigError, match=f"hardware.compile is set, but method {method} is run by trl"):
        run.prepare(replace(Config(), method=method, hardware=HardwareConfig(compile=True)), improving=True)


@both
def test_nothing_is_sent_printed_or_left_behind(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)  # where it is set, trl sends nothing of itself
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    trained(method, steps=1)
    assert _telemetry._TELEMETRY_THREAD is None
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minibatch": 7}, r"episodes is 16: it must be a multiple of {}.minibatch, 7"),
        ({"group": 3}, r"episodes is 16: it must be a multiple of {}.group, 3"),
    ],
)
@both
def test_a_rollout_that_cannot_be_cut_is_refused_before_anything_is_trained(
    method: Any, changes: dict[str, Any], said: str
) -> None:
    settings: Any = {method: replace(METHODS[method][1], **changes)}
    with pytest.raises(ConfigError, match=method + "." + said.format(method)):
        run.prepare(replace(Config(), method=method, **settings), improving=True)
    run.prepare(
        replace(Config(), **settings), improving=True
    )  # of a method that is not asked for nothing is wanted


@both
def test_without_trl_it_is_said_how_to_get_it_before_anything_is_trained(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_trl, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"method {method} is run by trl.*pip install -e '\.\[trl\]'"):
        run.prepare(replace(Config(), method=method), improving=True)
    run.prepare(Config(), improving=True)
    run.prepare(replace(Config(), method=method))  # of what needs no method


def test_a_training_that_diverges_is_an_error() -> None:
    with pytest.raises(DivergenceError, match="lower the learning rate of this stage"):
        trained("rloo", learning_rate=1e30, steps=4)


def test_fewer_prompts_than_a_rollout_asks_are_asked_again() -> None:
    few = replace(given(), prompts=PROMPTS[:3])
    log: list[Progress] = []
    grpo.train(GRPO, few, 0, log.append)
    assert len(log) == GRPO.steps
