"""Stage 2: supervised fine-tuning, which teaches the form of an answer; only the answer's tokens count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainer import devices, losses, processes
from trainer.checkpoint import NOTHING, Keep, Parts
from trainer.config import HardwareConfig, SftConfig
from trainer.corpus import Demonstration
from trainer.errors import ConfigError
from trainer.model import LanguageModel, clone, merged
from trainer.optimise import Stepper
from trainer.packing import pack, packed_loss
from trainer.progress import Progress, Report
from trainer.sequences import answer_logits, encode_answer, encode_prompt, pad

LOG_EVERY = 20
"""Steps between two progress lines."""


def check(config: SftConfig, hardware: HardwareConfig) -> None:
    """Raise a ConfigError where rows are shared, and the attention does not know which token may see which."""
    if config.packing and hardware.attention == "flash_attention_2":
        raise ConfigError(
            f"sft.packing is {config.packing}, and hardware.attention flash_attention_2, which cannot keep the prompts "
            "of a row apart: set sft.packing=0, or hardware.attention=sdpa"
        )


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
    learner = replace(language, network=devices.trained(language.network))
    stepper = Stepper(learner.network.parameters(), learning_rate, steps)
    learner.network.train()
    parts: Parts = {"model": learner.network, "stepper": stepper, "generator": generator}
    begun = keep.load(parts, step=0, loss=0.0)
    value: float = begun["loss"]
    for step in range(begun["step"] + 1, steps + 1):
        drawn = torch.randint(0, len(pairs), (batch,), generator=generator).tolist()
        value = stepper.step(answer_loss(learner, [pairs[row] for row in drawn], packing)).item()
        if step % LOG_EVERY == 0 or step == steps:
            report(Progress(stage, step, steps, {"loss": value}))
        keep.save(parts, step, steps, loss=value)
    processes.collect(learner.network, language.network)
    language.network.train(mode=False)
    return value


def answer_loss(
    language: LanguageModel, pairs: Sequence[tuple[list[int], list[int]]], packing: int
) -> Tensor:
    """Return this process's part of the mean -log π of the answers' tokens.

    With `packing` the pairs share rows of so many tokens, and the processes share those rows.
    """
    if packing:
        packed = pack(pairs, packing).to(language.device)
        mine = packed.rows(*processes.share(len(packed.tokens)))
        return packed_loss(language, mine) * processes.part(mine.before_answers, packed.before_answers)
    batch = pad([prompt for prompt, _ in pairs], [answer for _, answer in pairs]).to(language.device)
    share, counts = processes.share(len(pairs))
    rows = batch.rows(share)
    mask = rows.answer_mask * counts.to(rows.mask.device).unsqueeze(1)
    loss = losses.next_token_loss(answer_logits(language, rows), rows.answers, mask)
    return loss * processes.part(mask, batch.answer_mask)
