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

from trainer import devices, losses, processes
from trainer.checkpoint import NOTHING, Keep, Parts
from trainer.config import RewardConfig
from trainer.model import Ensemble, Judge, LanguageModel, Scorer, scorer
from trainer.optimise import Stepper
from trainer.preferences import Comparison
from trainer.progress import Progress, Report
from trainer.sampler import sample
from trainer.sequences import Batch, encode_answer, encode_prompt, pad

AT_ONCE = 1 << 16
"""Tokens that are scored in one pass."""
LOG_EVERY = 20
"""Steps between two progress lines."""
WINDOW = 8
"""Batches' worth of groups among which those of a length are put together: enough to save, few enough to stay mixed."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A comparison as tokens."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    weight: float
    log_odds: float = 0.0

    def sequence(self, answer: list[int]) -> tuple[int, ...]:
        """Return prompt and answer, what the reward model reads."""
        return (*self.prompt, *answer)


def train(
    config: RewardConfig,
    sft: LanguageModel,
    comparisons: Sequence[Comparison],
    seed: int,
    report: Report,
    keep: Keep = NOTHING,
) -> Scorer:
    """Train a scalar head and a copy of the SFT model's trunk on comparisons; scores are not yet normalised.

    The trunk is the SFT model's and never the policy's, so that the judge does not share the policy's drift.

    Raises:
        DivergenceError: the loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = scorer(sft, config)
    groups = _rankings([_encode(sft, row) for row in comparisons])
    # All passes are drawn at the beginning, so that a step's number alone says where a run goes on.
    order = [pairs for _ in range(config.epochs) for pairs in _batches(groups, config.batch, generator)]
    learner = devices.trained(model)
    stepper = Stepper(learner.parameters(), config.learning_rate, len(order), config.weight_decay)
    parts: Parts = {"model": learner, "stepper": stepper}
    done = keep.load(parts, step=0)["step"]
    for step, pairs in enumerate(order[done:], start=done + 1):
        with torch.autocast(
            learner.device.type, getattr(torch, config.precision), config.precision != "float32"
        ):
            loss, right = _loss(learner, pairs, config.margin)
        loss = stepper.step(loss)
        if step % LOG_EVERY == 0 or step == len(order):
            accuracy = (processes.total(right) / len(pairs)).item()
            report(Progress("reward", step, len(order), {"loss": loss.item(), "accuracy": accuracy}))
        keep.save(parts, step, len(order))
    processes.collect(learner, model)
    return model


def judge(
    config: RewardConfig,
    sft: LanguageModel,
    comparisons: Sequence[Comparison],
    seed: int,
    report: Report,
    keep: Keep = NOTHING,
) -> Judge:
    """Train `members` reward models, each from a seed of its own; more than one are asked together."""
    members = [
        train(config, sft, comparisons, seed + 7919 * n, report, keep.part(str(n)))
        for n in range(config.members)
    ]
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
    """Return the reward of each answer [B], read at its last token; AT_ONCE tokens at a time, for memory's sake."""
    batch = batch.to(model.device)
    rows = torch.split(torch.arange(len(batch.tokens)), max(1, AT_ONCE // batch.tokens.shape[1]))
    return torch.cat([part.last(model(part.tokens, part.mask)) for part in map(batch.rows, rows)])


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
        log_odds=row.log_odds,
    )


def _rankings(pairs: Sequence[_Pair]) -> list[list[_Pair]]:
    """Return the pairs that share answers together: a ranking of K answers is C(K, 2) of them.

    Pairs that only share their prompt stay apart: together they would make a batch less mixed, and save nothing.
    """
    groups: dict[tuple[int, ...], list[_Pair]] = {}
    for pair in pairs:
        ends = [pair.sequence(answer) for answer in (pair.chosen, pair.rejected)]
        small, large = sorted((groups.setdefault(end, []) for end in ends), key=len)
        if small is not large:
            large += small
            moved = {row.sequence(answer): large for row in small for answer in (row.chosen, row.rejected)}
            groups |= moved | dict.fromkeys(ends, large)
        large.append(pair)
    return list({id(group): group for group in groups.values()}.values())


def _batches(groups: Sequence[list[_Pair]], size: int, generator: torch.Generator) -> list[list[_Pair]]:
    """Return every pair once, `size` to a batch, in a new order.

    A ranking's pairs stay together, so that an answer of several is encoded once (Ouyang et al. 2022, section 3.5),
    and lie beside others of about their length, so that little is padding.
    """
    drawn = [groups[row] for row in torch.randperm(len(groups), generator=generator).tolist()]
    ordered: list[_Pair] = []
    for begin in range(0, len(drawn), WINDOW * size):
        for rows in sorted(drawn[begin : begin + WINDOW * size], key=_length):
            ordered += rows
    batches = [ordered[begin : begin + size] for begin in range(0, len(ordered), size)]
    return [batches[row] for row in torch.randperm(len(batches), generator=generator).tolist()]


def _length(rows: Sequence[_Pair]) -> int:
    """Return the tokens of the longest sequence of some pairs."""
    return max(len(row.prompt) + max(len(row.chosen), len(row.rejected)) for row in rows)


def _loss(model: Scorer, pairs: Sequence[_Pair], margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return this process's part of the weighted loss, and how many pairs of its share are ordered as labelled.

    Each different answer goes through in one pass.
    """
    share, counts = processes.share(len(pairs))
    mine = [pairs[row] for row in share.tolist()]
    whole = [pair.sequence(answer) for pair in mine for answer in (pair.chosen, pair.rejected)]
    place = {sequence: row for row, sequence in enumerate(dict.fromkeys(whole))}
    batch = pad([[]] * len(place), list(place)).to(model.device)
    scores = batch.last(model(batch.tokens, batch.mask))
    chosen, rejected = scores[torch.tensor([place[sequence] for sequence in whole])].view(-1, 2).unbind(1)
    weights = torch.tensor([pair.weight for pair in mine]) * counts
    margins = torch.tensor([margin * pair.log_odds for pair in mine])
    loss = losses.preference_loss(chosen, rejected, weights.to(model.device), margins.to(model.device))
    part = processes.part(weights, torch.tensor([pair.weight for pair in pairs]))
    return loss * part.to(model.device), ((chosen > rejected).float() * counts.to(model.device)).sum()
