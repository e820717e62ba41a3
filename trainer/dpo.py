"""Direct preference optimisation (Rafailov et al. 2023): the policy learns from comparisons without a reward model.

Each comparison counts by its label's confidence, 2c - 1, as in the reward model, and for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainer import devices, losses, processes
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
    learner = replace(policy, network=devices.trained(policy.network))
    stepper = Stepper(learner.network.parameters(), config.learning_rate, len(order))
    parts: Parts = {"policy": learner.network, "stepper": stepper}
    begun = keep.load(parts, step=0, metrics={"loss": 0.0, "accuracy": 0.0, "margin": 0.0})
    metrics, done = begun["metrics"], begun["step"]
    for step, drawn in enumerate(order[done:], start=done + 1):
        loss, right, gap = _loss(config, learner, given.parent, [rows[row] for row in drawn])
        loss = stepper.step(loss)
        means = processes.total(torch.stack([right, gap])) / len(drawn)
        metrics = {"loss": loss.item(), "accuracy": means[0].item(), "margin": means[1].item()}
        if step % LOG_EVERY == 0 or step == len(order):
            report(Progress("dpo", step, len(order), metrics))
        keep.save(parts, step, len(order), metrics=metrics)
    processes.collect(learner.network, policy.network)
    return Outcome(policy, metrics | {"steps": float(len(order))})


def _loss(
    config: DpoConfig, policy: LanguageModel, anchor: LanguageModel, rows: Sequence[Comparison]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return this process's part of the loss, how many comparisons of its share are right, and their margins' sum.

    Both answers of each go through in one pass.
    """
    prompts = [encode_prompt(policy, row.prompt) for row in rows]
    answers = [encode_answer(policy, row.chosen) for row in rows]
    answers += [encode_answer(policy, row.rejected) for row in rows]
    weights, (share, counts) = torch.tensor([row.weight for row in rows]), processes.share(len(rows))
    batch = pad(prompts * 2, answers).rows(torch.cat([share, share + len(rows)])).to(policy.device)
    with torch.no_grad():
        base = _sequence_logprobs(anchor, batch)
    chosen, rejected = (config.beta * (_sequence_logprobs(policy, batch) - base)).chunk(2)
    mine = weights[share] * counts
    loss = losses.preference_loss(chosen, rejected, mine.to(policy.device))
    gap, counts = (chosen - rejected).detach(), counts.to(policy.device)
    right = ((gap > 0).float() * counts).sum()
    return loss * processes.part(mine, weights).to(policy.device), right, (gap * counts).sum()


def _sequence_logprobs(language: LanguageModel, batch: Batch) -> Tensor:
    """Return log π of whole answers [B]."""
    return (answer_logprobs(language, batch) * batch.answer_mask).sum(dim=1)
