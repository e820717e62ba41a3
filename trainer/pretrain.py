"""Stage 1: next-token prediction on plain text, from random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainer import devices, losses, processes
from trainer.checkpoint import NOTHING, Keep, Parts
from trainer.config import ModelConfig, PretrainConfig
from trainer.errors import ConfigError
from trainer.model import LanguageModel, build, train_tokenizer
from trainer.optimise import Stepper
from trainer.progress import Progress, Report

LOG_EVERY = 20
"""Steps between two progress lines."""


def train(
    config: PretrainConfig,
    shape: ModelConfig,
    texts: list[str],
    seed: int,
    report: Report,
    keep: Keep = NOTHING,
) -> LanguageModel:
    """Train a tokenizer and a language model on texts and return them.

    Raises:
        ConfigError: the texts are shorter than a block.
        DivergenceError: the loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    language = build(shape, train_tokenizer(texts, shape.vocabulary))
    stream = encode(language, texts)
    if len(stream) <= config.block + 1:
        raise ConfigError(
            f"pretrain.block is {config.block}, but the text has {len(stream)} tokens: lower it, or raise "
            f"pretrain.documents"
        )
    learner = replace(language, network=devices.trained(language.network))
    stepper = Stepper(list(learner.network.parameters()), config.learning_rate, config.steps)
    parts: Parts = {"model": learner.network, "stepper": stepper, "generator": generator}
    done = keep.load(parts, step=0)["step"]
    for step in range(done + 1, config.steps + 1):
        loss = stepper.step(part_of_text_loss(learner, blocks(stream, config.batch, config.block, generator)))
        if step % LOG_EVERY == 0 or step == config.steps:
            report(Progress("pretrain", step, config.steps, {"loss": loss.item()}))
        keep.save(parts, step, config.steps)
    processes.collect(learner.network, language.network)
    language.network.train(mode=False)
    return language


def encode(language: LanguageModel, texts: Sequence[str]) -> Tensor:
    """Return all texts' tokens in one row, an end after each."""
    encoded = language.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return torch.tensor([token for item in encoded for token in [*item.ids, language.template.end]])


def blocks(stream: Tensor, count: int, block: int, generator: torch.Generator) -> Tensor:
    """Cut `count` random blocks of `block` + 1 tokens from a stream [count, block + 1]."""
    starts = torch.randint(0, len(stream) - block - 1, (count, 1), generator=generator)
    return stream[starts + torch.arange(block + 1)]


def text_loss(language: LanguageModel, blocks: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return the mean -log π of each block's tokens [B, block + 1] but its first, of the blocks that count [B] or all."""
    blocks = blocks.to(language.device)
    with devices.passing(language.network):
        logits = devices.full(language.network(input_ids=blocks[:, :-1], use_cache=False).logits)
    mask = torch.ones(blocks[:, 1:].shape, device=blocks.device)
    if counts is not None:
        mask = mask * counts.to(mask.device).unsqueeze(1)
    return losses.next_token_loss(logits, blocks[:, 1:], mask)


def part_of_text_loss(language: LanguageModel, blocks: Tensor) -> Tensor:
    """Return this process's part of the text loss of some blocks [B, block + 1]."""
    rows, counts = processes.share(len(blocks))
    return text_loss(language, blocks[rows], counts) * (counts.sum() / len(blocks)).item()
