"""Several prompts with their answers in one row, so that little is padding; none of them sees another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import devices, losses
from trainer.model import PAD, LanguageModel

Pair = tuple[Sequence[int], Sequence[int]]
"""A prompt and its answer as tokens."""


@dataclass(frozen=True, slots=True)
class Packed:
    """B rows of T tokens, each holding whole sequences one after another, and then padding."""

    tokens: Tensor
    """Token ids [B, T]."""
    positions: Tensor
    """Each token's place in its own sequence [B, T], from 0."""
    sequence: Tensor
    """Which of its row's sequences a token is of [B, T], from 1; 0 is padding."""
    before_answers: Tensor
    """Whether the next token is an answer's [B, T]."""

    @property
    def visible(self) -> Tensor:
        """Return whether token t may look at token s [B, T, T]: s is of the same sequence, and no later."""
        return (self.sequence.unsqueeze(2) == self.sequence.unsqueeze(1)).tril()

    def rows(self, index: Tensor, counts: Tensor) -> Packed:
        """Return some of the rows, of whose answers only those count that `counts` [rows] says."""
        before = self.before_answers[index] & counts.bool().to(self.tokens.device).unsqueeze(1)
        return Packed(self.tokens[index], self.positions[index], self.sequence[index], before)

    def to(self, device: torch.device) -> Packed:
        """Return the same on a device."""
        return Packed(
            self.tokens.to(device),
            self.positions.to(device),
            self.sequence.to(device),
            self.before_answers.to(device),
        )


def arrange(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Return which sequences share a row of `width` tokens: the longest first, each where it first fits.

    One that is longer than a row has one of its own.
    """
    rows: list[tuple[int, list[int]]] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        place = next((n for n, (used, _) in enumerate(rows) if used + lengths[number] <= width), len(rows))
        if place == len(rows):
            rows.append((0, []))
        used, members = rows[place]
        rows[place] = used + lengths[number], [*members, number]
    return [members for _, members in rows]


def pack(pairs: Sequence[Pair], width: int) -> Packed:
    """Lay out prompts and their answers in rows of `width` tokens; a longer pair makes the rows as long."""
    lengths = [len(prompt) + len(answer) for prompt, answer in pairs]
    rows = arrange(lengths, width)
    longest = max(sum(lengths[number] for number in row) for row in rows)
    tokens = torch.full((len(rows), longest), PAD)
    positions, sequence = torch.zeros_like(tokens), torch.zeros_like(tokens)
    before = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, members in enumerate(rows):
        begin = 0
        for place, number in enumerate(members, start=1):
            (prompt, answer), end = pairs[number], begin + lengths[number]
            tokens[row, begin:end] = torch.tensor([*prompt, *answer])
            positions[row, begin:end] = torch.arange(lengths[number])
            sequence[row, begin:end] = place
            before[row, begin + len(prompt) - 1 : end - 1] = True
            begin = end
    return Packed(tokens, positions, sequence, before)


def packed_loss(language: LanguageModel, packed: Packed) -> Tensor:
    """Return the mean -log π of the answers' tokens: what `losses.next_token_loss` is of the same pairs, padded."""
    network = language.network
    mask = torch.zeros(packed.visible.shape, dtype=network.dtype, device=packed.tokens.device)
    mask = mask.masked_fill(~packed.visible, torch.finfo(network.dtype).min).unsqueeze(1)
    at = packed.before_answers
    # The head computes what is asked for only: of most tokens, a prompt's and padding's, nothing is.
    hook = network.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0][at],))  # type: ignore[no-untyped-call]
    with hook, devices.passing(network):
        logits: Tensor = network(
            input_ids=packed.tokens, attention_mask=mask, position_ids=packed.positions, use_cache=False
        ).logits
    logits, wanted = devices.full(logits), packed.tokens.roll(-1, dims=1)[at]
    return losses.next_token_loss(logits, wanted, torch.ones_like(wanted, dtype=logits.dtype))
