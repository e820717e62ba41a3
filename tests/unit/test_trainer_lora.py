"""Adapters: they alone learn, the base is one memory for all, and what they learned can be added to its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.toys import PPO, equal, given, labelled, tuned, weights
from trainer import lora, model, ppo, reward, run, sft
from trainer.config import Config, DpoConfig, RaftConfig, RewardConfig, SftConfig, TrainedConfig
from trainer.corpus import demonstrations
from trainer.method import Given
from trainer.model import LanguageModel, clone, load, merged, save, scorer
from trainer.optimise import learnable
from trainer.progress import silent
from trainer.sequences import Batch, answer_logits, encode_answer, encode_prompt, pad

LORA = TrainedConfig(lora_rank=3, lora_alpha=6)
LORA_PPO = replace(PPO, lora_rank=3, lora_alpha=6, learning_rate=2e-2)
METHODS = {
    "ppo": replace(Config(), ppo=LORA_PPO),
    "dpo": replace(Config(), method="dpo", dpo=DpoConfig(epochs=1, learning_rate=1e-2, lora_rank=3)),
    "raft": replace(
        Config(),
        method="raft",
        raft=RaftConfig(rounds=1, samples=4, steps=4, learning_rate=1e-2, lora_rank=3),
    ),
}


def batch() -> Batch:
    prompts, answers = ["How was the tea?", "?"], ["It was superb.", "Awful, and cold."]
    return pad([encode_prompt(tuned(), p) for p in prompts], [encode_answer(tuned(), a) for a in answers])


def logits(language: LanguageModel) -> Tensor:
    with torch.no_grad():
        return answer_logits(language, batch())


def linear(network: nn.Module) -> list[nn.Linear]:
    """Return the linear layers within the blocks."""
    return [
        layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear) and "layers" in name
    ]


def adapted() -> LanguageModel:
    """Return a policy whose adapters have learned something."""
    torch.manual_seed(0)
    policy = clone(tuned(), LORA)
    with torch.no_grad():
        for parameter in learnable(policy.network):
            parameter.normal_(std=0.3)
    return policy


def memory(*networks: nn.Module) -> int:
    """Return the bytes of all parameters, each storage once."""
    storages = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for n in networks for p in n.parameters()
    }
    return sum(storages.values())


def learning() -> Given:
    return replace(given(), comparisons=labelled(950_000))


def test_new_adapters_change_nothing_and_trained_ones_do() -> None:
    assert torch.equal(logits(clone(tuned(), LORA)), logits(tuned()))
    assert (logits(adapted()) - logits(tuned())).abs().max() > 0.1


def test_only_adapters_learn_and_they_are_as_many_as_their_rank_says() -> None:
    policy = clone(tuned(), LORA)
    expected = sum(3 * (layer.in_features + layer.out_features) for layer in linear(tuned().network))
    assert sum(p.numel() for p in learnable(policy.network)) == expected
    assert (
        sum(p.numel() for p in learnable(scorer(tuned(), LORA)))
        == expected + tuned().network.config.hidden_size + 1
    )
    assert all(p.requires_grad for p in tuned().network.parameters())


def test_frozen_blocks_hold_their_adapters_too() -> None:
    assert learnable(clone(tuned(), replace(LORA, frozen_layers=1)).network) == []
    whole, upper = (learnable(clone(tuned(), TrainedConfig(frozen_layers=n)).network) for n in (0, 1))
    block = tuned().network.base_model.layers[0]
    assert sum(p.numel() for p in whole) - sum(p.numel() for p in upper) == sum(
        p.numel() for p in block.parameters()
    )


def test_a_merged_model_is_plain_and_says_what_the_adapted_one_says(tmp_path: Path) -> None:
    before = weights(tuned().network)
    policy = adapted()
    plain = merged(policy)
    assert not lora.adapted(plain.network)
    assert logits(plain).flatten().tolist() == pytest.approx(logits(policy).flatten().tolist(), abs=1e-4)
    assert list(plain.network.state_dict()) == list(tuned().network.state_dict())
    assert equal(before, weights(tuned().network))
    save(plain, tmp_path / "model")
    assert torch.equal(logits(load(tmp_path / "model")), logits(plain))


def test_all_models_of_a_training_share_the_memory_of_one_base() -> None:
    one = memory(tuned().network)
    policy, critic, judged = clone(tuned(), LORA), scorer(tuned(), LORA), scorer(tuned(), LORA)
    adapters = sum(4 * p.numel() for m in (policy.network, critic, judged) for p in learnable(m))
    assert memory(tuned().network, policy.network, critic, judged) == one + adapters
    assert memory(tuned().network, merged(policy).network) == 2 * one


def test_a_copy_of_an_adapted_policy_learns_apart_from_it_on_the_same_base() -> None:
    policy = adapted()
    kept = clone(policy)
    before = logits(kept)
    with torch.no_grad():
        for parameter in learnable(policy.network):
            parameter.zero_()
    assert torch.equal(logits(kept), before)
    assert torch.equal(logits(policy), logits(tuned()))
    assert memory(kept.network, tuned().network) == memory(policy.network, tuned().network)


def test_ppo_with_a_shared_base_gives_the_numbers_of_one_with_copies() -> None:
    shared = ppo.train(LORA_PPO, given(), 0, silent)
    apart = ppo.train(LORA_PPO, replace(given(), reference=clone(tuned())), 0, silent)
    assert shared.metrics == apart.metrics
    assert shared.metrics["kl"] > 0
    assert equal(weights(shared.policy.network), weights(apart.policy.network))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_by_adapters_and_hands_back_a_plain_model(method: str) -> None:
    before = weights(tuned().network)
    policy = run.improve(METHODS[method], learning(), 0, silent).policy
    assert equal(before, weights(tuned().network))
    assert not lora.adapted(policy.network)
    for old, new in zip(linear(tuned().network), linear(policy.network), strict=True):
        change = new.weight - old.weight
        assert 0 < torch.linalg.matrix_rank(change, rtol=1e-3) <= 3
    assert torch.equal(tuned().network.lm_head.weight, policy.network.lm_head.weight)


def test_supervised_tuning_by_adapters_lowers_the_loss_and_ends_plain() -> None:
    config = SftConfig(steps=20, learning_rate=2e-2, lora_rank=4)
    log: list[float] = []
    tuned_again = sft.train(
        config, tuned(), demonstrations(1, 100), 0, lambda p: log.append(p.metrics["loss"])
    )
    assert log
    assert not lora.adapted(tuned_again.network)
    assert not torch.equal(logits(tuned_again), logits(tuned()))


def test_a_reward_model_learns_by_adapters_and_is_saved_plain(tmp_path: Path) -> None:
    rows = labelled(950_000)
    config = RewardConfig(epochs=3, learning_rate=1e-2, weight_decay=0.0, lora_rank=3)
    found = reward.train(config, tuned(), rows, 0, silent)
    prompts = [row.prompt for row in rows]
    sides = [
        reward.score_texts(found, tuned(), prompts, [getattr(r, side) for r in rows])
        for side in ("chosen", "rejected")
    ]
    assert (sides[0] > sides[1]).all()
    model.save_judge(found, tmp_path / "reward")
    again = reward.score_texts(
        model.load_judge(tmp_path / "reward", tuned()), tuned(), prompts, [r.chosen for r in rows]
    )
    assert again.tolist() == pytest.approx(sides[0].tolist(), abs=1e-3)


def test_half_precision_teaches_a_reward_model_too() -> None:
    rows = labelled(950_000)
    config = RewardConfig(epochs=2, learning_rate=1e-2, weight_decay=0.0, batch=8, precision="bfloat16")
    found = reward.train(config, tuned(), rows, 0, silent)
    prompts = [row.prompt for row in rows]
    assert (
        reward.score_texts(found, tuned(), prompts, [r.chosen for r in rows])
        > reward.score_texts(found, tuned(), prompts, [r.rejected for r in rows])
    ).all()
    assert all(p.dtype == torch.float32 for p in found.parameters())
