"""Packing: demonstrations that share a row teach exactly what they teach each in a row of its own."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toys import base, tuned
from trainer import corpus, sft
from trainer.config import SftConfig
from trainer.model import LanguageModel, clone
from trainer.packing import arrange, pack
from trainer.progress import Progress, silent
from trainer.sequences import encode_answer, encode_prompt

TOKENS = st.integers(0, 300)
PAIRS = st.lists(
    st.tuples(
        st.lists(TOKENS, min_size=1, max_size=9),
        st.lists(TOKENS, min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=6,
)
Tokens = tuple[list[int], list[int]]


def taught(language: LanguageModel, pairs: list[Tokens], packing: int) -> list[torch.Tensor]:
    """Return the loss and every weight's gradient."""
    network = language.network
    network.zero_grad()
    loss = sft.answer_loss(language, pairs, packing)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in network.parameters())]


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(1, 60))
def test_packed_loss_and_gradients_are_those_of_rows_of_their_own(pairs: list[Tokens], width: int) -> None:
    language = clone(tuned())
    language.network.double()
    for one, other in zip(taught(language, pairs, 0), taught(language, pairs, width), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 60))
def test_every_sequence_has_one_place_and_rows_are_as_wide_as_asked_or_hold_one(
    lengths: list[int], width: int
) -> None:
    rows = arrange(lengths, width)
    assert sorted(n for row in rows for n in row) == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[n] for n in row) <= width for row in rows)
    # No two rows could have been one.
    loads = sorted(sum(lengths[n] for n in row) for row in rows)
    assert len(loads) == 1 or loads[0] + loads[1] > width


def test_no_sequence_sees_another_and_each_counts_from_its_own_beginning() -> None:
    packed = pack([([1, 5], [6, 3]), ([1], [7, 3])], width=8)
    assert packed.tokens.tolist() == [[1, 5, 6, 3, 1, 7, 3]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert packed.before_answers.int().tolist() == [[0, 1, 1, 0, 1, 1, 0]]
    assert packed.visible[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1, 1, 1],
    ]


def test_packed_training_ends_where_the_other_does_with_less_padding() -> None:
    config, shown = SftConfig(steps=20, batch=16), corpus.demonstrations(0, 200)
    log: dict[int, list[Progress]] = {0: [], 128: []}
    for packing, lines in log.items():
        sft.train(replace(config, packing=packing), base(), shown, 1, lines.append)
    assert abs(log[0][-1].metrics["loss"] - log[128][-1].metrics["loss"]) < 1e-3
    pairs = [(encode_prompt(base(), d.prompt), encode_answer(base(), d.answer)) for d in shown[:16]]
    longest = max(len(p) for p, _ in pairs) + max(len(a) for _, a in pairs)
    assert pack(pairs, 128).tokens.numel() < 16 * longest


def test_adapters_learn_from_packed_rows_too() -> None:
    shown = corpus.demonstrations(0, 40)
    config = SftConfig(steps=2, batch=4, lora_rank=2, packing=64)
    once, again = (sft.train(config, base(), shown, 1, silent).network.state_dict() for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert any(not torch.equal(once[name], w) for name, w in base().network.state_dict().items())
