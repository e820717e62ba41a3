"""What trl's own RewardTrainer and DPOTrainer get on a fixed batch of comparisons: `make oracle-trl`.

trl 1.16. Its collators lay out the tokens and its `compute_loss` computes; nothing is put in its way.
"""

from __future__ import annotations

import tempfile

import tiny
import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference as DpoCollator
from trl.trainer.reward_trainer import DataCollatorForPreference as RewardCollator

PAIRS, BETA = 6, 0.3
MARGINS = (0.0, 0.4, 1.1, 2.0, 0.1, 3.0)
COMMON = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
    "save_strategy": "no",
}  # fmt: skip


def comparisons() -> list[dict[str, list[int]]]:
    """Return prompts of 2 to 5 tokens with two answers of 1 to 7, each ending with <end>."""
    source = torch.Generator().manual_seed(7)

    def words(count: int) -> list[int]:
        return torch.randint(4, tiny.WORDS, (count,), generator=source).tolist()

    return [
        {
            "prompt": [1, *words(row % 4), 2],
            "chosen": [*words(row), tiny.END],
            "rejected": [*words(6 - row), tiny.END],
        }
        for row in range(PAIRS)
    ]


def reward(rows: list[dict[str, list[int]]], folder: str) -> dict[str, Tensor]:
    """Return the reward model's weights, loss and gradients, without margins and with."""
    model = tiny.scalar(1)
    found = tiny.weights(model, "reward/weights")
    whole = [{f"{side}_ids": row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in rows]
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(output_dir=folder, **COMMON),
        train_dataset=Dataset.from_list(whole),
        processing_class=tiny.tokenizer(),
    )
    loss, outputs = trainer.compute_loss(model, RewardCollator(tiny.PAD)(whole), return_outputs=True)
    loss.backward()
    found |= {"reward/loss": loss, "reward/scores": outputs.logits.squeeze(-1)}
    found |= tiny.gradients(model, "reward/gradients")
    model.zero_grad()
    led = [row | {"margin": margin} for row, margin in zip(whole, MARGINS, strict=True)]
    loss = trainer.compute_loss(model, RewardCollator(tiny.PAD)(led))
    loss.backward()
    found |= {"reward/margins": torch.tensor(MARGINS), "reward/loss_by_margins": loss}
    return found | tiny.gradients(model, "reward/gradients_by_margins")


def dpo(rows: list[dict[str, list[int]]], folder: str) -> dict[str, Tensor]:
    """Return the policy's and the reference's weights, the loss and the gradients."""
    policy = tiny.policy(0)
    reference = tiny.near(policy, 3)
    found = tiny.weights(policy, "dpo/weights/policy") | tiny.weights(reference, "dpo/weights/reference")
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(output_dir=folder, beta=BETA, **COMMON),
        train_dataset=Dataset.from_list([{"prompt": "w5 ", "chosen": "w6", "rejected": "w7"}]),
        processing_class=tiny.tokenizer(),
    )
    ids = [{f"{name}_ids": tokens for name, tokens in row.items()} for row in rows]
    loss = trainer.compute_loss(policy, DpoCollator(tiny.PAD)(ids))
    loss.backward()
    return found | {"dpo/loss": loss} | tiny.gradients(policy, "dpo/gradients")


if __name__ == "__main__":
    drawn = comparisons()
    tokens = {
        f"tokens/{number}/{name}": torch.tensor(ids)
        for number, row in enumerate(drawn)
        for name, ids in row.items()
    }
    with tempfile.TemporaryDirectory() as place:
        vectors = tokens | reward(drawn, place) | dpo(drawn, place)
    tiny.write("trl_preferences.safetensors", vectors, {"pairs": PAIRS, "beta": BETA})
    print({name: vectors[name].item() for name in ("reward/loss", "reward/loss_by_margins", "dpo/loss")})
