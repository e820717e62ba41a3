"""The reward model's batches: a ranking's answers are encoded once, and nothing but time depends on it."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.toys import judge, tuned
from trainer import reward
from trainer.model import Scorer, hidden
from trainer.reward import _Pair
from trainer.sequences import pad


def pair(a: int, b: int, *, prompt: int = 5, weight: float = 1.0, log_odds: float = 0.0) -> _Pair:
    """Return a comparison of answers of a + 1 and b + 1 tokens to a prompt of 4."""
    return _Pair([1, prompt, prompt, 2], [10 + a] * a + [3], [10 + b] * b + [3], weight, log_odds)


def ranking(k: int, prompt: int = 5) -> list[_Pair]:
    """Return the pairs of a ranking of k answers, of different weights and log-odds."""
    return [
        pair(a, b, prompt=prompt, weight=1 / (n + 1), log_odds=n / 2)
        for n, (a, b) in enumerate(combinations(range(k), 2))
    ]


def gradients(model: Scorer) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_a_rankings_loss_and_gradient_are_the_weighted_mean_of_its_pairs_each_on_its_own(
    margin: float,
) -> None:
    model, pairs = judge().double(), ranking(4)
    together, accuracy = reward._loss(model, pairs, margin)
    together.backward()
    found = gradients(model)
    model.zero_grad()
    alone = [reward._loss(model, [one], margin) for one in pairs]
    total = sum(one.weight for one in pairs)
    apart = sum(one.weight * loss for one, (loss, _) in zip(pairs, alone, strict=True)) / total
    apart.backward()
    assert together.item() == pytest.approx(apart.item(), abs=1e-6)
    assert accuracy == pytest.approx(sum(right for _, right in alone) / len(pairs))
    assert any(g.abs().max() > 1e-3 for g in found)
    for one, other in zip(found, gradients(model), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("k", "pairs"), [(2, 1), (4, 6), (6, 15)])
def test_each_answer_of_a_ranking_is_encoded_once(k: int, pairs: int) -> None:
    model, rows = judge(), []
    model.trunk.register_forward_pre_hook(
        lambda _, __, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    ranked = ranking(k)
    reward._loss(model, ranked)
    assert (len(ranked), rows) == (pairs, [k])


def test_pairs_are_grouped_where_they_share_an_answer_to_one_prompt() -> None:
    """However late the pair comes that links them; the same answer to another prompt links nothing."""
    pairs = [pair(1, 2), pair(3, 4), pair(1, 2, prompt=6), pair(5, 6), pair(2, 3)]
    found = {frozenset(map(id, group)) for group in reward._rankings(pairs)}
    wanted = [[pairs[0], pairs[1], pairs[4]], [pairs[2]], [pairs[3]]]
    assert found == {frozenset(map(id, group)) for group in wanted}


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_batches_hold_every_pair_once_and_are_of_one_size_but_for_one(
    rankings: int, size: int, seed: int
) -> None:
    groups = [ranking(2 + n % 4, prompt=n) for n in range(1, rankings + 1)]
    drawn = reward._batches(groups, size, torch.Generator().manual_seed(seed))
    pairs = [one for group in groups for one in group]
    assert sorted(id(one) for batch in drawn for one in batch) == sorted(map(id, pairs))
    sizes = sorted(map(len, drawn))
    assert sizes[1:] == [size] * (len(sizes) - 1)
    assert len(drawn) == -(-len(pairs) // size)


def test_a_batch_holds_rankings_whole_and_answers_of_about_one_length_in_an_order_that_changes() -> None:
    groups = [[pair(n, n + 1, prompt=p) for p in (5, 6)] for n in range(64)]
    orders = []
    for seed in (0, 1):
        drawn = reward._batches(groups, 8, torch.Generator().manual_seed(seed))
        lengths = [sorted({len(one.chosen) for one in batch}) for batch in drawn]
        assert all(one == list(range(one[0], one[0] + 4)) for one in lengths)
        orders.append([one[0] for one in lengths])
        assert orders[-1] != sorted(orders[-1])
    assert orders[0] != orders[1]


def test_what_is_padded_on_the_right_changes_no_state_before_it() -> None:
    trunk, rows = tuned().network.model, [[1, 9, 2, 30, 3], [1, 8, 2, 40, 41, 42, 3]]
    batch = pad([[]] * 2, rows)
    with torch.no_grad():
        together = hidden(trunk, batch.tokens, batch.mask)
        for row, tokens in enumerate(rows):
            alone = hidden(trunk, torch.tensor([tokens]), torch.ones(1, len(tokens)))
            assert torch.allclose(together[row, : len(tokens)], alone[0], atol=1e-5)
