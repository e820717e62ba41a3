"""Stage 1: next-token prediction on plain text, from random weights."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer import losses
from trainer.config import ModelConfig, PretrainConfig
from trainer.model import END, LanguageModel, build, train_tokenizer
from trainer.optimise import Stepper
from trainer.progress import Progress, Report

LOG_EVERY = 20
"""Steps between two progress lines."""


def train(
    config: PretrainConfig, shape: ModelConfig, texts: list[str], seed: int, report: Report
) -> LanguageModel:
    """Train a tokenizer and a language model on texts and return them.

    Raises:
        DivergenceError: the loss is no longer a number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    language = build(shape, train_tokenizer(texts, shape.vocabulary))
    stream = _stream(language, texts)
    stepper = Stepper(list(language.network.parameters()), config.learning_rate, config.steps)
    for step in range(1, config.steps + 1):
        blocks = _blocks(stream, config, generator)
        logits = language.network(input_ids=blocks[:, :-1], use_cache=False).logits
        loss = losses.next_token_loss(logits, blocks[:, 1:], torch.ones(blocks[:, 1:].shape))
        stepper.step(loss)
        if step % LOG_EVERY == 0 or step == config.steps:
            report(Progress("pretrain", step, config.steps, {"loss": loss.item()}))
    language.network.train(mode=False)
    return language


def _stream(language: LanguageModel, texts: list[str]) -> Tensor:
    """Return all texts' tokens in one row, an <end> after each."""
    return torch.tensor(
        [token for item in language.tokenizer.encode_batch(texts) for token in [*item.ids, END]]
    )


def _blocks(stream: Tensor, config: PretrainConfig, generator: torch.Generator) -> Tensor:
    """Cut random blocks of `block` + 1 tokens from the stream [batch, block + 1]."""
    starts = torch.randint(0, len(stream) - config.block - 1, (config.batch, 1), generator=generator)
    return stream[starts + torch.arange(config.block + 1)]
