"""Stage 3: the reward model, Bradley-Terry on people's comparisons, each weighted by its label's confidence.

Why weight 2c - 1 and not the soft-label cross entropy: at equal scores both have the same gradient, but the weight
makes a coin's label (c = 1/2) count exactly nothing, where a soft label would pull the two scores together; and
HapticScore's confidences are capped estimates, not calibrated odds that the margin should be held to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import losses
from trainer.config import RewardConfig
from trainer.model import Ensemble, Judge, LanguageModel, Scorer, scorer
from trainer.optimise import Stepper
from trainer.preferences import Comparison
from trainer.progress import Progress, Report
from trainer.sampler import sample
from trainer.sequences import Batch, encode_answer, encode_prompt, pad

LOG_EVERY = 20
"""Steps between two progress lines."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A comparison as tokens."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    weight: float

    @property
    def length(self) -> int:
        """Tokens of the longer side."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def train(
    config: RewardConfig, sft: LanguageModel, comparisons: Sequence[Comparison], seed: int, report: Report
) -> Scorer:
    """Train a scalar head and a copy of the SFT model's trunk on comparisons; scores are not yet normalised.

    The trunk is the SFT model's and never the policy's, so that the judge does not share the policy's drift.

    Raises:
        DivergenceError: the loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = scorer(sft, config)
    steps = config.epochs * -(-len(comparisons) // config.batch)
    stepper = Stepper(model.parameters(), config.learning_rate, steps, config.weight_decay)
    pairs = [_encode(sft, row) for row in comparisons]
    done = 0
    for _ in range(config.epochs):
        for rows in _batches(config, pairs, generator):
            with torch.autocast("cpu", getattr(torch, config.precision), config.precision != "float32"):
                loss, accuracy = _loss(model, [pairs[row] for row in rows])
            stepper.step(loss)
            done += 1
            if done % LOG_EVERY == 0 or done == steps:
                report(Progress("reward", done, steps, {"loss": loss.item(), "accuracy": accuracy}))
    return model


def judge(
    config: RewardConfig, sft: LanguageModel, comparisons: Sequence[Comparison], seed: int, report: Report
) -> Judge:
    """Train `members` reward models, each from a seed of its own; more than one are asked together."""
    members = [train(config, sft, comparisons, seed + 7919 * n, report) for n in range(config.members)]
    return members[0] if len(members) == 1 else Ensemble(members, config.pessimism)


def normalise(
    model: Judge, reference: LanguageModel, prompts: Sequence[str], samples: int, seed: int
) -> None:
    """Shift and scale the scores in place, to mean 0 and deviation 1 on the reference's own answers to prompts.

    So a KL coefficient means the same whatever the scale the reward model ended at.
    """
    generator = torch.Generator().manual_seed(seed)
    encoded = [encode_prompt(reference, prompts[number % len(prompts)]) for number in range(samples)]
    batch = sample(reference, encoded, temperature=1.0, generator=generator).batch
    for member in model.scorers:
        raw = score(member, batch)
        member.shift += raw.mean() * member.scale
        member.scale *= raw.std().clamp(min=1e-6)


@torch.no_grad()
def score(model: Judge, batch: Batch) -> Tensor:
    """Return the reward of each answer [B], read at its last token."""
    return batch.last(model(batch.tokens, batch.mask))


@torch.no_grad()
def score_texts(
    model: Judge, language: LanguageModel, prompts: Sequence[str], answers: Sequence[str]
) -> Tensor:
    """Return the reward of answers given as text [B]."""
    batch = pad([encode_prompt(language, p) for p in prompts], [encode_answer(language, a) for a in answers])
    return score(model, batch)


def _encode(language: LanguageModel, row: Comparison) -> _Pair:
    return _Pair(
        prompt=encode_prompt(language, row.prompt),
        chosen=encode_answer(language, row.chosen),
        rejected=encode_answer(language, row.rejected),
        weight=row.weight,
    )


def _batches(config: RewardConfig, pairs: Sequence[_Pair], generator: torch.Generator) -> list[list[int]]:
    """Return the rows of each batch of one pass, in the order of chance."""
    rows = torch.randperm(len(pairs), generator=generator)
    if config.bucket == 1:
        return [drawn.tolist() for drawn in torch.split(rows, config.batch)]
    batches = [
        part
        for drawn in torch.split(rows, config.batch * config.bucket)
        for part in torch.split(
            torch.tensor(sorted(drawn.tolist(), key=lambda r: pairs[r].length)), config.batch
        )
    ]
    return [batches[n].tolist() for n in torch.randperm(len(batches), generator=generator).tolist()]


def _loss(model: Scorer, pairs: Sequence[_Pair]) -> tuple[Tensor, float]:
    """Return the weighted loss and the plain share of pairs ordered as labelled; both answers in one pass."""
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    batch = pad([pair.prompt for pair in pairs] * 2, answers)
    chosen, rejected = batch.last(model(batch.tokens, batch.mask)).chunk(2)
    loss = losses.preference_loss(chosen, rejected, torch.tensor([pair.weight for pair in pairs]))
    return loss, (chosen > rejected).float().mean().item()
