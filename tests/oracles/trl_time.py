"""How long trl takes: `python tests/oracles/trl_time.py reward|ppo FOLDER`, the peer of `tests.bench.trl`, run in `.trl`.

FOLDER holds models that `from_pretrained` reads and `task.json`. CPU seconds of one thread, without loading and the
first steps; the last line printed is JSON.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

torch.set_num_threads(1)

COMMON = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
    "save_strategy": "no", "logging_strategy": "no",
}  # fmt: skip


class Clock(TrainerCallback):
    """CPU seconds at the end of each step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.at.append(time.process_time())


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "policy" / "tokenizer.json"),
        pad_token="<pad>",
        eos_token="<end>",
        padding_side="left",
    )


def scalar(folder: Path) -> LlamaForSequenceClassification:
    return LlamaForSequenceClassification.from_pretrained(folder / "scalar", dtype=torch.float32)


def reward(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train a reward model and return the CPU seconds at each step, and the accuracy on what was held out."""
    from trl import RewardConfig, RewardTrainer

    clock, model = Clock(), scalar(folder)
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=task["batch"],
            num_train_epochs=task["epochs"],
            learning_rate=task["learning_rate"],
            weight_decay=task["weight_decay"],
            adam_beta2=0.98,
            max_grad_norm=1.0,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.01},
            warmup_steps=0.1,
            max_length=None,
            **COMMON,
        ),
        train_dataset=Dataset.from_list(task["train"]),
        eval_dataset=Dataset.from_list(task["held_out"]),
        processing_class=tokenizer(folder),
        callbacks=[clock],
    )
    trainer.train()
    return {"at": clock.at, "accuracy": trainer.evaluate()["eval_accuracy"]}


def ppo(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run PPO and return the CPU seconds at each update, and those of generation."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    clock, policy = Clock(), LlamaForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    reference = LlamaForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    generate, generation_s, lengths = ppo_trainer.batch_generation, [], []

    def timed(model: Any, queries: torch.Tensor, *others: Any) -> Any:
        began = time.process_time()
        found = generate(model, queries, *others)
        generation_s.append(time.process_time() - began)
        lengths.append((found[0][:, queries.shape[1] :] != 0).sum(dim=1).float().mean().item())
        return found

    ppo_trainer.batch_generation = timed
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=task["episodes"],
            gradient_accumulation_steps=1,
            num_mini_batches=task["episodes"] // task["minibatch"],
            num_ppo_epochs=task["epochs"],
            total_episodes=task["episodes"] * task["updates"],
            num_sample_generations=0,
            response_length=task["tokens"],
            stop_token="eos",
            temperature=1.0,
            learning_rate=task["learning_rate"],
            **COMMON,
        ),
        processing_class=tokenizer(folder),
        model=policy,
        ref_model=reference,
        reward_model=scalar(folder),
        value_model=scalar(folder),
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in task["prompts"]]),
        eval_dataset=Dataset.from_list([{"input_ids": ids} for ids in task["prompts"]]),
        callbacks=[clock],
    )
    gc.freeze()  # trl collects garbage in each update: at this size walking through what was imported is half of it
    trainer.train()
    return {"at": clock.at, "generation_s": generation_s, "lengths": lengths}


if __name__ == "__main__":
    place = Path(sys.argv[2])
    work = {"reward": reward, "ppo": ppo}[sys.argv[1]]
    print(json.dumps(work(json.loads((place / f"{sys.argv[1]}.json").read_text()), place)))
