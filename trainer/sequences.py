"""Prompts and answers as padded tensors: in a batch all prompts end, and all answers begin, at one column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer import devices, losses
from trainer.model import PAD, LanguageModel, positions

LOGITS = 2**26
"""Most logits that are held at once, 256 MB."""


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

    def to(self, device: torch.device) -> Batch:
        """Return the same on a device."""
        return Batch(self.tokens.to(device), self.mask.to(device), self.width)


def answer_logits(language: LanguageModel, batch: Batch) -> Tensor:
    """Return logits [B, R, V] of the answers' tokens."""
    kept = batch.answers.shape[1] + 1
    with devices.passing(language.network):
        logits: Tensor = language.network(
            input_ids=batch.tokens,
            attention_mask=batch.mask,
            position_ids=positions(batch.mask),
            use_cache=False,
            logits_to_keep=kept,
        ).logits
    return devices.full(logits[:, -kept:-1])  # some networks keep them all


def answer_logprobs(language: LanguageModel, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Return log π of the answers' tokens [B, R]."""
    return torch.cat(
        [
            losses.token_logprobs(answer_logits(language, part), part.answers, temperature=temperature)
            for part in parts(language, batch)
        ]
    )


def parts(language: LanguageModel, batch: Batch) -> Iterator[Batch]:
    """Yield a batch some rows at a time, in order: a real vocabulary's logits for all at once would fill the memory."""
    for rows in torch.split(torch.arange(len(batch.tokens)), rows_at_once(language, batch.answers.shape[1])):
        yield batch.rows(rows)


def rows_at_once(language: LanguageModel, tokens: int) -> int:
    """Return for how many rows of so many tokens all logits may be held."""
    vocabulary: int = language.network.config.vocab_size
    return max(1, LOGITS // max(1, tokens * vocabulary))


def encode(language: LanguageModel, text: str) -> list[int]:
    """Return a text's tokens, and none that the template would add."""
    ids: list[int] = language.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def encode_prompt(language: LanguageModel, prompt: str) -> list[int]:
    """Return what the template puts around a prompt; one over the limit keeps its end, where the question usually is."""
    template = language.template
    return [*template.before, *encode(language, prompt)[-language.limits.prompt_tokens :], *template.between]


def encode_answer(language: LanguageModel, answer: str) -> list[int]:
    """Return the answer's tokens and the end; an answer over the limit keeps its beginning."""
    return [*encode(language, answer)[: language.limits.answer_tokens - 1], language.template.end]


def decode(language: LanguageModel, tokens: Sequence[int]) -> str:
    """Return the text of an answer's tokens, without special ones and outer spaces."""
    text: str = language.tokenizer.decode(list(tokens), skip_special_tokens=True)
    return text.strip()


def answer_texts(language: LanguageModel, batch: Batch) -> list[str]:
    """Return the texts of a batch's answers; what fills a row is in none, whatever that token says."""
    kept = batch.answer_mask.bool()
    return [decode(language, row[mask].tolist()) for row, mask in zip(batch.answers, kept, strict=True)]


def pad(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Batch:
    """Lay out B prompts and their B answers; what fills a row is masked, so any token serves."""
    width, length = max(map(len, prompts)), max(map(len, answers))
    tokens = torch.full((len(prompts), width + length), PAD)
    mask = torch.zeros_like(tokens)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        begin, end = width - len(prompt), width + len(answer)
        tokens[row, begin:end] = torch.tensor([*prompt, *answer])
        mask[row, begin:end] = 1
    return Batch(tokens, mask, width)


def join(batches: Sequence[Batch]) -> Batch:
    """Return several batches as one, their prompts ending and their answers beginning at one column again."""
    width = max(batch.width for batch in batches)
    tokens, mask = (
        beside([functional.pad(x, (width - batch.width, 0)) for batch, x in zip(batches, of, strict=True)])
        for of in ([batch.tokens for batch in batches], [batch.mask for batch in batches])
    )
    return Batch(tokens, mask, width)


def beside(rows: Sequence[Tensor]) -> Tensor:
    """Return several tensors [B, R] as one [ΣB, max R], zeros after the shorter ones."""
    longest = max(x.shape[1] for x in rows)
    return torch.cat([functional.pad(x, (0, longest - x.shape[1])) for x in rows])


def truncated(language: LanguageModel, answers: Sequence[str]) -> float:
    """Return the share of answers that are longer than the limit."""
    limit = language.limits.answer_tokens - 1
    return sum(len(encode(language, answer)) > limit for answer in answers) / max(len(answers), 1)
