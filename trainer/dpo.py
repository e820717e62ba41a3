"""Direct preference optimisation (Rafailov et al. 2023): the policy learns from comparisons without a reward model.

Each comparison counts by its label's confidence, 2c - 1, as in the reward model, and for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer import losses
from trainer.checkpoint import NOTHING, Keep, Parts
from trainer.config import DpoConfig
from trainer.method import Given, Outcome
from trainer.model import LanguageModel, clone
from trainer.optimise import Stepper, batches
from trainer.preferences import Comparison
from trainer.progress import Progress, Report
from trainer.sequences import Batch, answer_logprobs, encode_answer, encode_prompt, pad

LOG_EVERY = 20
"""Steps between two progress lines."""


def train(config: DpoConfig, given: Given, seed: int, report: Report, keep: Keep = NOTHING) -> Outcome:
    """Raise what people chose above what they rejected, relative to the parent.

    Raises:
        DivergenceError: the loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    policy, rows = clone(given.parent, config), given.comparisons
    order = batches(len(rows), config.batch, config.epochs, generator)
    stepper = Stepper(policy.network.parameters(), config.learning_rate, len(order))
    parts: Parts = {"policy": policy.network, "stepper": stepper}
    begun = keep.load(parts, step=0, metrics={"loss": 0.0, "accuracy": 0.0, "margin": 0.0})
    metrics, done = begun["metrics"], begun["step"]
    for step, drawn in enumerate(order[done:], start=done + 1):
        loss, metrics = _loss(config, policy, given.parent, [rows[row] for row in drawn])
        stepper.step(loss)
        if step % LOG_EVERY == 0 or step == len(order):
            report(Progress("dpo", step, len(order), metrics))
        keep.save(parts, step, len(order), metrics=metrics)
    return Outcome(policy, metrics | {"steps": float(len(order))})


def _loss(
    config: DpoConfig, policy: LanguageModel, anchor: LanguageModel, rows: Sequence[Comparison]
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of some comparisons, both answers of each in one pass, and how well they are ordered."""
    prompts = [encode_prompt(policy, row.prompt) for row in rows]
    answers = [encode_answer(policy, row.chosen) for row in rows]
    answers += [encode_answer(policy, row.rejected) for row in rows]
    batch = pad(prompts * 2, answers)
    with torch.no_grad():
        base = _sequence_logprobs(anchor, batch)
    chosen, rejected = (config.beta * (_sequence_logprobs(policy, batch) - base)).chunk(2)
    loss = losses.preference_loss(chosen, rejected, torch.tensor([row.weight for row in rows]))
    gap = (chosen - rejected).detach()
    right = (gap > 0).float().mean().item()
    return loss, {"loss": loss.item(), "accuracy": right, "margin": gap.mean().item()}


def _sequence_logprobs(language: LanguageModel, batch: Batch) -> Tensor:
    """Return log π of whole answers [B]."""
    return (answer_logprobs(language, batch) * batch.answer_mask).sum(dim=1)
