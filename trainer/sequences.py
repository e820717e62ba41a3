"""Prompts and answers as padded tensors: in a batch all prompts end, and all answers begin, at one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.model import ANSWER, END, PAD, PROMPT, LanguageModel, hidden


@dataclass(frozen=True, slots=True)
class Batch:
    """B sequences of P prompt tokens, padded on the left, and R answer tokens, padded on the right."""

    tokens: Tensor
    """Token ids [B, P + R]."""
    mask: Tensor
    """1 where `tokens` is no padding [B, P + R]."""
    width: int
    """P, the column at which answers begin."""

    @property
    def answers(self) -> Tensor:
        """Return the answers' tokens [B, R]."""
        return self.tokens[:, self.width :]

    @property
    def answer_mask(self) -> Tensor:
        """Return 1 where an answer has a token [B, R], as floats."""
        return self.mask[:, self.width :].float()

    def before_answers(self, x: Tensor) -> Tensor:
        """Return the columns of x [B, P + R, …] that predict the answers' tokens [B, R, …]: each one earlier."""
        return x[:, self.width - 1 : -1]

    def last(self, x: Tensor) -> Tensor:
        """Return x [B, P + R] at each answer's last token [B]."""
        column = self.width + self.mask[:, self.width :].sum(dim=1) - 1
        return x.gather(1, column.unsqueeze(1)).squeeze(1)

    def rows(self, index: Tensor) -> Batch:
        """Return some of the sequences."""
        return Batch(self.tokens[index], self.mask[index], self.width)


def answer_logits(language: LanguageModel, batch: Batch) -> Tensor:
    """Return logits [B, R, V] of the answers' tokens."""
    state = batch.before_answers(hidden(language.network.model, batch.tokens, batch.mask))
    logits: Tensor = language.network.lm_head(state)
    return logits


def encode_prompt(language: LanguageModel, prompt: str) -> list[int]:
    """Return <prompt> … <answer>; a prompt over the limit keeps its end, where the question usually is."""
    ids: list[int] = language.tokenizer.encode(prompt).ids
    return [PROMPT, *ids[-language.limits.prompt_tokens :], ANSWER]


def encode_answer(language: LanguageModel, answer: str) -> list[int]:
    """Return the answer's tokens and <end>; an answer over the limit keeps its beginning."""
    ids: list[int] = language.tokenizer.encode(answer).ids
    return [*ids[: language.limits.answer_tokens - 1], END]


def decode(language: LanguageModel, tokens: Sequence[int]) -> str:
    """Return the text of an answer's tokens, without special ones and outer spaces."""
    text: str = language.tokenizer.decode(list(tokens), skip_special_tokens=True)
    return text.strip()


def pad(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Batch:
    """Lay out B prompts and their B answers."""
    width, length = max(map(len, prompts)), max(map(len, answers))
    tokens = torch.full((len(prompts), width + length), PAD)
    mask = torch.zeros_like(tokens)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        begin, end = width - len(prompt), width + len(answer)
        tokens[row, begin:end] = torch.tensor([*prompt, *answer])
        mask[row, begin:end] = 1
    return Batch(tokens, mask, width)


def truncated(language: LanguageModel, answers: Sequence[str]) -> float:
    """Return the share of answers that are longer than the limit."""
    limit = language.limits.answer_tokens - 1
    return sum(len(language.tokenizer.encode(answer).ids) > limit for answer in answers) / max(
        len(answers), 1
    )
