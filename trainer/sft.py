"""Stage 2: supervised fine-tuning, which teaches the form of an answer; only the answer's tokens count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer import losses
from trainer.checkpoint import NOTHING, Keep, Parts
from trainer.config import SftConfig
from trainer.corpus import Demonstration
from trainer.model import LanguageModel, clone, merged
from trainer.optimise import Stepper
from trainer.packing import pack, packed_loss
from trainer.progress import Progress, Report
from trainer.sequences import answer_logits, encode_answer, encode_prompt, pad

LOG_EVERY = 20
"""Steps between two progress lines."""


def train(
    config: SftConfig,
    base: LanguageModel,
    demonstrations: Sequence[Demonstration],
    seed: int,
    report: Report,
    keep: Keep = NOTHING,
) -> LanguageModel:
    """Return a copy of the base that answers as the demonstrations do.

    Raises:
        DivergenceError: the loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    language = clone(base, config)
    pairs = [(encode_prompt(base, item.prompt), encode_answer(base, item.answer)) for item in demonstrations]
    fit(
        language, pairs, config.steps, config.batch, config.learning_rate, generator, report, keep,
        packing=config.packing,
    )  # fmt: skip
    return merged(language)


def fit(
    language: LanguageModel,
    pairs: Sequence[tuple[list[int], list[int]]],
    steps: int,
    batch: int,
    learning_rate: float,
    generator: torch.Generator,
    report: Report,
    keep: Keep = NOTHING,
    *,
    stage: str = "sft",
    packing: int = 0,
) -> float:
    """Teach a model in place to answer as encoded pairs of prompt and answer do, `batch` a step; return the last loss."""
    stepper = Stepper(language.network.parameters(), learning_rate, steps)
    language.network.train()
    parts: Parts = {"model": language.network, "stepper": stepper, "generator": generator}
    begun = keep.load(parts, step=0, loss=0.0)
    value: float = begun["loss"]
    for step in range(begun["step"] + 1, steps + 1):
        drawn = torch.randint(0, len(pairs), (batch,), generator=generator).tolist()
        loss = answer_loss(language, [pairs[row] for row in drawn], packing)
        stepper.step(loss)
        value = loss.item()
        if step % LOG_EVERY == 0 or step == steps:
            report(Progress(stage, step, steps, {"loss": value}))
        keep.save(parts, step, steps, loss=value)
    language.network.train(mode=False)
    return value


def answer_loss(
    language: LanguageModel, pairs: Sequence[tuple[list[int], list[int]]], packing: int
) -> Tensor:
    """Return the mean -log π of the answers' tokens; with `packing`, of pairs that share rows of so many tokens."""
    if packing:
        return packed_loss(language, pack(pairs, packing))
    rows = pad([prompt for prompt, _ in pairs], [answer for _, answer in pairs])
    return losses.next_token_loss(answer_logits(language, rows), rows.answers, rows.answer_mask)
