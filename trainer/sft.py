"""Stage 2: supervised fine-tuning, which teaches the form of an answer; only the answer's tokens count."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer import losses
from trainer.config import SftConfig
from trainer.corpus import Demonstration
from trainer.model import LanguageModel, clone
from trainer.optimise import Stepper
from trainer.progress import Progress, Report
from trainer.sequences import answer_logits, encode_answer, encode_prompt, pad

LOG_EVERY = 20
"""Steps between two progress lines."""


def train(
    config: SftConfig, base: LanguageModel, demonstrations: Sequence[Demonstration], seed: int, report: Report
) -> LanguageModel:
    """Return a copy of the base that answers as the demonstrations do.

    Raises:
        DivergenceError: the loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    language = clone(base)
    pairs = [(encode_prompt(base, item.prompt), encode_answer(base, item.answer)) for item in demonstrations]
    stepper = Stepper(language.network.parameters(), config.learning_rate, config.steps)
    language.network.train()
    for step in range(1, config.steps + 1):
        drawn = torch.randint(0, len(pairs), (config.batch,), generator=generator).tolist()
        batch = pad([pairs[row][0] for row in drawn], [pairs[row][1] for row in drawn])
        loss = losses.next_token_loss(answer_logits(language, batch), batch.answers, batch.answer_mask)
        stepper.step(loss)
        if step % LOG_EVERY == 0 or step == config.steps:
            report(Progress("sft", step, config.steps, {"loss": loss.item()}))
    language.network.train(mode=False)
    return language
