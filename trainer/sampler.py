"""Answers of a language model: drawn here by transformers, or by vLLM where `hardware.generation` says so.

Here a batch is drawn with a key-value cache, and finished answers leave it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from trainer import by_vllm, devices
from trainer.errors import ConfigError, DivergenceError, ParityError
from trainer.losses import token_logprobs
from trainer.model import PAD, LanguageModel, positions
from trainer.sequences import Batch, answer_logprobs, pad

COMPACT = 0.75
"""The batch is compacted when no more than this share of it is still unfinished."""
PARITY = MappingProxyType({"float32": 1e-3, "bfloat16": 0.1})
"""Nats that log-probabilities of sampling and of training may differ by: the worst in float32, the mean in bfloat16,
whose single tokens may be far apart where nothing is wrong. Of n tokens the mean may be .8/√n more."""
SPOILT = "the model's logits are no numbers: lower the learning rate of this stage"
COLDEST = 0.01
"""Temperature below which vLLM would take this one."""
CHECKED = 4
"""Answers of each batch by vLLM that are held against our own pass."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Answers to B prompts."""

    batch: Batch
    """Prompts and answers; an answer that ended has the template's end as its last token."""
    logprobs: Tensor
    """log π of the answers' tokens as they were drawn [B, R]; 0 on padding."""
    finished: Tensor
    """Whether an answer ended within the limit [B]."""


@torch.no_grad()
def sample(
    language: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    temperature: float,
    generator: torch.Generator,
    first: Tensor | None = None,
) -> Samples:
    """Draw one answer to each of B encoded prompts.

    Args:
        language: the model; its limits bound the answers' length.
        prompts: as `sequences.encode_prompt` gives them.
        temperature: divides the logits; at 0 the likeliest token is taken, and its log π is that of temperature 1.
        generator: source of all randomness.
        first: where given, log-weights [V] added to the first token's logits (-inf forbids a token).

    Raises:
        ConfigError: a temperature that vLLM does not draw at.
        DivergenceError: training has spoilt the model.
        GenerationError: vLLM cannot be started with this model, or has ended.
        ParityError: vLLM draws from another distribution than the model's.
    """
    if devices.used().generation == "vllm":
        return _drawn_elsewhere(language, prompts, temperature, generator, first)
    device, start = language.device, pad(prompts, [[]] * len(prompts)).to(language.device)
    limit = language.limits.answer_tokens
    drawn = torch.full((len(prompts), limit), PAD, device=device)
    logprobs, written = torch.zeros(drawn.shape, device=device), torch.zeros_like(drawn)
    rows = torch.arange(len(prompts), device=device)
    unfinished = torch.ones(len(prompts), dtype=torch.bool, device=device)
    tokens, mask, cache = start.tokens, start.mask, DynamicCache(config=language.network.config)
    for step in range(limit):
        logits = _next_logits(language, tokens, mask, cache)
        if step == 0 and first is not None:
            logits = logits + first.to(device)
        if logits.isnan().any():
            raise DivergenceError(SPOILT)
        if temperature:
            chances = (logits / temperature).softmax(dim=-1).to(generator.device)
            token = torch.multinomial(chances, 1, generator=generator).to(device)
        else:
            token = logits.argmax(dim=-1, keepdim=True)
        drawn[rows[unfinished], step] = token[unfinished, 0]
        written[rows[unfinished], step] = 1
        logprobs[rows[unfinished], step] = token_logprobs(
            logits.unsqueeze(1), token, temperature=temperature or 1.0
        )[unfinished, 0]
        unfinished = unfinished & (token[:, 0] != language.template.end)
        if not unfinished.any():
            break
        if unfinished.float().mean() <= COMPACT:
            keep = unfinished.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            rows, mask, token, unfinished = rows[keep], mask[keep], token[keep], unfinished[keep]
        tokens, mask = token, torch.cat([mask, torch.ones_like(token)], dim=1)
    return _collect(start, drawn, written, logprobs, language.template.end)


def ready(language: LanguageModel) -> None:
    """Draw an answer where it is vLLM that draws, so that what that cannot do is known before any work.

    Raises:
        GenerationError: it cannot be started with this model.
    """
    if devices.used().generation == "vllm":
        sample(language, [language.template.before], temperature=1.0, generator=torch.Generator())


def _next_logits(language: LanguageModel, tokens: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
    """Run the new tokens [B, T] and return logits [B, V] after the last; mask [B, all so far]."""
    with devices.passing(language.network):
        logits: Tensor = language.network(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions(mask)[:, -tokens.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
    return devices.full(logits[:, -1])


def _collect(start: Batch, drawn: Tensor, written: Tensor, logprobs: Tensor, end: int) -> Samples:
    """Cut the columns that no answer reached and join prompts and answers.

    What was written is remembered and not read off the tokens, as what fills a row can be drawn too. The end may be
    that very token: a row is filled after an end only.
    """
    length = int(written.sum(dim=1).max())
    batch = Batch(
        torch.cat([start.tokens, drawn[:, :length]], dim=1),
        torch.cat([start.mask, written[:, :length]], dim=1),
        start.width,
    )
    return Samples(batch, logprobs[:, :length], (drawn == end).any(dim=1))


def _drawn_elsewhere(
    language: LanguageModel,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    generator: torch.Generator,
    first: Tensor | None,
) -> Samples:
    """Let vLLM draw, and hold some of its answers against our own pass."""
    if 0 < temperature < COLDEST:
        raise ConfigError(
            f"temperature {temperature}: vLLM draws at {COLDEST} at least; take that, 0 for the likeliest tokens, or set "
            "hardware.generation to transformers"
        )
    answers, found = by_vllm.draw(
        language, prompts, temperature=temperature, generator=generator, first=first, hardware=devices.used()
    )
    batch = pad(prompts, answers).to(language.device)
    logprobs = torch.zeros(batch.answers.shape, device=language.device)
    for row, values in zip(logprobs, found, strict=True):
        row[: len(values)] = torch.tensor(values)
    some = batch.rows(torch.arange(len(answers))[:CHECKED])
    mask = some.answer_mask
    if first is not None:
        mask[:, 0] = 0  # the model's own pass knows nothing of what was forbidden there
    own = answer_logprobs(language, some, temperature or 1.0)
    if own.isnan().any():
        raise DivergenceError(SPOILT)
    check_parity(own, logprobs[:CHECKED], mask)
    ended = [answer[-1] == language.template.end for answer in answers]
    return Samples(batch, logprobs, torch.tensor(ended, device=language.device))


def check_parity(training: Tensor, sampling: Tensor, mask: Tensor) -> None:
    """Refuse to go on when the two kinds of pass give different log-probabilities."""
    gaps, bound = ((training - sampling) * mask).abs(), PARITY[devices.precision()]
    seen = gaps.max()
    if devices.precision() != "float32":
        count = mask.sum().clamp(min=1)
        seen, bound = gaps.sum() / count, bound + 0.8 / math.sqrt(count)
    if not seen <= bound:
        raise ParityError(
            f"sampling and training log-probabilities differ by {seen:.2e} nats, over {bound:.1e}"
        )
