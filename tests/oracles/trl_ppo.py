"""What trl's own PPOTrainer gets in one update on fixed answers, step by step: `make oracle-trl`.

trl 1.12, the last with PPO. Three things are put in its way and nothing is copied out of it: its generation
returns given answers (with the logits of its own forward pass), its permutation is PyTorch's of a seed, and its
whitening, backward pass and log first let its local variables be read.
"""

from __future__ import annotations

import sys
import tempfile
from types import FrameType
from typing import Any

import numpy as np
import tiny
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

EPISODES, ANSWER, SEED = 8, 6, 11
SETTINGS = {
    "clip": 0.2, "value_clip": 0.05, "value_weight": 0.3, "discount": 0.97, "gae_lambda": 0.9, "kl_coefficient": 0.2,
    "temperature": 0.7, "epochs": 2, "minibatch": 4, "learning_rate": 0.02, "adam_epsilon": 1e-5, "seed": SEED,
}  # fmt: skip
TAKEN = (
    "queries", "responses", "logprobs", "ref_logprobs", "values", "scores", "padding_mask", "padding_mask_p1",
    "rewards", "advantages", "returns",
)  # fmt: skip
"""Local variables of `PPOTrainer.train` that are kept as it whitens advantages."""


def answers(*, ragged: bool) -> Tensor:
    """Return answers [EPISODES, ANSWER] that end with <end>: all at the limit, or at 1, 2, … tokens and one cut off."""
    drawn = torch.randint(4, tiny.WORDS, (EPISODES, ANSWER), generator=torch.Generator().manual_seed(5))
    for row in range(EPISODES):
        last = min(row, ANSWER) if ragged else ANSWER - 1
        if last < ANSWER:
            drawn[row, last] = tiny.END
            drawn[row, last + 1 :] = tiny.PAD
    return drawn


def prompts() -> list[list[int]]:
    """Return prompts of 2 to 5 tokens."""
    source = torch.Generator().manual_seed(6)
    return [
        [1, *torch.randint(4, tiny.WORDS, (row % 4,), generator=source).tolist(), 2]
        for row in range(EPISODES)
    ]


class Still(torch.optim.lr_scheduler.LambdaLR):
    """A learning rate that stays."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer, lambda _: 1.0)


class Reader(TrainerCallback):
    """Keeps trl's local variables as it goes; `found` is what the file will hold."""

    def __init__(self, case: str) -> None:
        self.case, self.step, self.found = case, 0, {}

    def rollout(self, frame: FrameType, whitened: Tensor) -> None:
        for name in TAKEN:
            self.found[f"{self.case}/{name}"] = frame.f_locals[name].clone()
        self.found[f"{self.case}/whitened"] = whitened.clone()

    def minibatch(self, frame: FrameType, models: torch.nn.Module) -> None:
        local, place = frame.f_locals, f"{self.case}/{self.step}"
        self.found[f"{place}/rows"] = torch.as_tensor(local["micro_batch_inds"])
        for name in ("pg_loss", "vf_loss", "new_logprobs", "vpred"):
            self.found[f"{place}/{name}"] = local[name].clone()
        self.found |= tiny.gradients(models.policy, f"{place}/gradients/policy")
        self.found |= tiny.gradients(models.value_model, f"{place}/gradients/critic")
        self.step += 1


def update(case: str, *, ragged: bool) -> dict[str, Tensor]:
    """Run one update of trl's PPOTrainer and return all that was read."""
    policy, reward, critic = tiny.policy(0), tiny.scalar(1), tiny.scalar(2)
    reference = tiny.near(policy, 3)
    found = {}
    for name, model in {"policy": policy, "reference": reference, "reward": reward, "critic": critic}.items():
        found |= tiny.weights(model, f"weights/{name}")
    reader = Reader(case)

    def given(model: Any, queries: Tensor, _: int, pad: int, __: Any) -> tuple[Tensor, Tensor]:
        rows = torch.cat([queries, answers(ragged=ragged)], dim=1)
        logits = ppo_trainer.forward(model, rows, pad).logits[:, queries.shape[1] - 1 : -1]
        return rows, logits / (SETTINGS["temperature"] + 1e-7)

    def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:  # noqa: FBT001, FBT002
        whitened = original_whiten(values, mask, shift_mean)
        reader.rollout(sys._getframe(1), torch.masked_fill(whitened, ~mask, 0))
        return whitened

    source = torch.Generator().manual_seed(SEED)
    original_whiten = ppo_trainer.masked_whiten
    ppo_trainer.batch_generation = torch.no_grad()(given)
    ppo_trainer.masked_whiten = whiten
    np.random.permutation = lambda n: torch.randperm(n, generator=source).numpy()
    adam = torch.optim.Adam(
        [*policy.parameters(), *critic.parameters()],
        lr=SETTINGS["learning_rate"],
        eps=SETTINGS["adam_epsilon"],
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                per_device_train_batch_size=EPISODES,
                gradient_accumulation_steps=1,
                num_mini_batches=EPISODES // SETTINGS["minibatch"],
                num_ppo_epochs=SETTINGS["epochs"],
                total_episodes=EPISODES,
                num_sample_generations=0,
                response_length=ANSWER,
                stop_token="eos",
                temperature=SETTINGS["temperature"],
                kl_coef=SETTINGS["kl_coefficient"],
                cliprange=SETTINGS["clip"],
                cliprange_value=SETTINGS["value_clip"],
                vf_coef=SETTINGS["value_weight"],
                gamma=SETTINGS["discount"],
                lam=SETTINGS["gae_lambda"],
            ),
            processing_class=tiny.tokenizer(),
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=critic,
            train_dataset=Dataset.from_list([{"input_ids": ids} for ids in prompts()]),
            eval_dataset=Dataset.from_list([{"input_ids": ids} for ids in prompts()]),
            optimizers=(adam, Still(adam)),
        )
        backward, log = trainer.accelerator.backward, trainer.log

        def read_backward(loss: Tensor) -> None:
            backward(loss)
            reader.minibatch(sys._getframe(1), trainer.accelerator.unwrap_model(trainer.model))

        def read_log(metrics: dict[str, float]) -> None:
            reader.found[f"{case}/clipped"] = sys._getframe(1).f_locals["pg_clipfrac_stats"].flatten().clone()
            log(metrics)

        trainer.accelerator.backward, trainer.log = read_backward, read_log
        trainer.train()
    ppo_trainer.masked_whiten = original_whiten
    after = tiny.weights(policy, f"{case}/after/policy") | tiny.weights(critic, f"{case}/after/critic")
    return found | reader.found | after


if __name__ == "__main__":
    vectors = update("full", ragged=False) | update("ragged", ragged=True)
    tiny.write("trl_ppo.safetensors", vectors, SETTINGS)
    print("share clipped:", {case: vectors[f"{case}/clipped"].tolist() for case in ("full", "ragged")})
