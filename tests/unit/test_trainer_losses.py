"""The losses against numbers worked out by hand, and their laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer import losses


def rows(*numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_a_masked_mean_ignores_what_is_masked_and_is_zero_where_all_is() -> None:
    x = rows([1.0, 2.0, 99.0])
    assert losses.masked_mean(x, rows([1, 1, 0])).item() == 1.5
    assert losses.masked_mean(x, rows([0, 0, 0])).item() == 0.0


def test_whitening_gives_mean_0_and_deviation_1_within_the_mask_and_0_outside() -> None:
    # 1 and 3 have mean 2 and variance 1, so they become -1 and 1.
    assert losses.whiten(rows([1.0, 3.0, 50.0]), rows([1, 1, 0])).tolist() == [
        pytest.approx([-1.0, 1.0, 0.0], abs=1e-7)
    ]


def test_log_probabilities_are_those_of_the_tempered_softmax() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)]]])
    token = torch.tensor([[1]])
    assert losses.token_logprobs(logits, token).item() == pytest.approx(math.log(3 / 4), abs=1e-6)
    # At temperature ½ the odds are squared: 9 to 1.
    assert losses.token_logprobs(logits, token, temperature=0.5).item() == pytest.approx(
        math.log(9 / 10), abs=1e-6
    )


def test_the_supervised_loss_counts_the_masked_tokens_only() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, -5.0], [0.0, 0.0]]], requires_grad=True)
    loss = losses.next_token_loss(logits, torch.tensor([[1, 1, 0]]), torch.tensor([[1.0, 0.0, 1.0]]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 1].tolist() == [0.0, 0.0]
    # d/dlogits of cross entropy is softmax minus one-hot, here halved by the mean over two tokens.
    assert gradient[0, 0].tolist() == pytest.approx([0.25 / 2, -0.25 / 2])


def test_the_preference_loss_is_the_weighted_mean_of_minus_log_sigmoid() -> None:
    # Margins log 3 and -log 3: sigmoid 3/4 and 1/4, losses log 4/3 and log 4, with weights 3 and 1.
    chosen, rejected = torch.tensor([math.log(3.0), 0.0]), torch.tensor([0.0, math.log(3.0)])
    loss = losses.preference_loss(chosen, rejected, torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4, abs=1e-6)


def test_a_comparison_of_weight_zero_does_nothing() -> None:
    chosen, rejected = (
        torch.tensor([0.3, -7.0], requires_grad=True),
        torch.tensor([0.1, 9.0], requires_grad=True),
    )
    loss = losses.preference_loss(chosen, rejected, torch.tensor([0.4, 0.0]))
    alone = losses.preference_loss(chosen[:1], rejected[:1], torch.tensor([0.4]))
    assert loss.item() == pytest.approx(alone.item())
    gradients = torch.autograd.grad(loss, (chosen, rejected))
    assert gradients[0][1] == gradients[1][1] == 0.0
    assert gradients[0][0] != 0.0


def test_a_margin_is_a_lead_that_counts_for_nothing() -> None:
    chosen, rejected, weights = torch.tensor([1.5, 0.2]), torch.tensor([0.0, 0.7]), torch.tensor([1.0, 2.0])
    margins = torch.tensor([0.5, 2.0])
    loss = losses.preference_loss(chosen, rejected, weights, margins)
    assert loss.item() == pytest.approx(losses.preference_loss(chosen - margins, rejected, weights).item())
    assert loss > losses.preference_loss(chosen, rejected, weights)


def test_only_comparisons_of_weight_zero_give_loss_zero_and_no_gradient() -> None:
    chosen = torch.tensor([0.3], requires_grad=True)
    loss = losses.preference_loss(chosen, torch.tensor([0.1]), torch.tensor([0.0]))
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, chosen)[0].item() == 0.0


@given(st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4), st.integers(1, 4)), min_size=1, max_size=6))
def test_a_comparison_of_weight_w_is_w_comparisons_of_weight_one(
    pairs: list[tuple[float, float, int]],
) -> None:
    copies = [(a, b) for a, b, weight in pairs for _ in range(weight)]
    a, b, w = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    c, d = (torch.tensor(column, dtype=torch.float64) for column in zip(*copies, strict=True))
    weighted = losses.preference_loss(a, b, w).item()
    assert weighted == pytest.approx(losses.preference_loss(c, d, torch.ones(len(c))).item(), rel=1e-9)


def test_the_kl_estimators_by_hand() -> None:
    # π = 1/2 and π_ref = 1/4: k1 = log 2; r = π_ref/π = 1/2, so k3 = 1/2 - 1 + log 2.
    ours, reference = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    assert losses.kl_k1(ours, reference).item() == pytest.approx(math.log(2), abs=1e-6)
    assert losses.kl_k3(ours, reference).item() == pytest.approx(math.log(2) - 0.5, abs=1e-6)
    # KL((1/2, 1/2), (1/4, 3/4)) = ½·log 2 + ½·log 2/3.
    p, q = torch.zeros(1, 1, 2), torch.tensor([[[0.0, math.log(3.0)]]])
    assert losses.kl_exact(p, q).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=5), st.lists(st.floats(-3, 3), min_size=5, max_size=5))
def test_both_estimators_are_unbiased(left: list[float], right: list[float]) -> None:
    p, q = (torch.tensor(x[: len(left)], dtype=torch.float64).log_softmax(0) for x in (left, right))
    exact = losses.kl_exact(p, q).item()
    assert (p.exp() * losses.kl_k1(p, q)).sum().item() == pytest.approx(exact, abs=1e-9)
    assert (p.exp() * losses.kl_k3(p, q)).sum().item() == pytest.approx(exact, abs=1e-9)
    assert losses.kl_k3(p, q).min() >= -1e-12


def test_the_score_is_paid_at_the_last_token_and_kl_at_each() -> None:
    mask = rows([1, 1, 0], [1, 1, 1])
    rewards = losses.token_rewards(
        torch.tensor([5.0, 7.0], dtype=torch.float64), rows([1, 2, 9], [1, 0, -3]), mask, 0.1
    )
    assert rewards.tolist() == [pytest.approx([-0.1, 4.8, 0.0]), pytest.approx([-0.1, 0.0, 7.3])]


def test_advantages_by_hand() -> None:
    # d = 1, λ = ½, rewards 0 0 1, values 1 2 3: δ = 1, 1, -2; A₃ = -2, A₂ = 1 - 1 = 0, A₁ = 1 + 0 = 1.
    advantages, returns = losses.gae(rows([0, 0, 1]), rows([1, 2, 3]), rows([1, 1, 1]), discount=1.0, lam=0.5)
    assert advantages.tolist() == [[1.0, 0.0, -2.0]]
    assert returns.tolist() == [[2.0, 2.0, 1.0]]


@st.composite
def episodes(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]], list[int]]:
    width = draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(1, width), min_size=1, max_size=3))
    row = st.lists(st.integers(-4, 4).map(float), min_size=width, max_size=width)
    block = st.lists(row, min_size=len(lengths), max_size=len(lengths))
    return draw(block), draw(block), lengths


@given(episodes(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.9, 1.0]))
def test_advantages_equal_the_definition_as_a_double_sum_and_ignore_padding(
    drawn: tuple[list[list[float]], list[list[float]], list[int]], discount: float, lam: float
) -> None:
    rewards, values, lengths = drawn
    mask = torch.tensor([[1.0 if t < n else 0.0 for t in range(len(rewards[0]))] for n in lengths])
    advantages, returns = losses.gae(rows(*rewards), rows(*values), mask, discount=discount, lam=lam)
    for row, n in enumerate(lengths):
        padded = [*values[row][:n], 0.0]
        delta = [rewards[row][t] + discount * padded[t + 1] - padded[t] for t in range(n)]
        for t in range(n):
            expected = sum((discount * lam) ** (k - t) * delta[k] for k in range(t, n))
            assert advantages[row, t].item() == pytest.approx(expected)
            assert returns[row, t].item() == pytest.approx(expected + values[row][t])
        assert not advantages[row, n:].any()
        assert not returns[row, n:].any()


def test_the_clipped_policy_loss_by_hand() -> None:
    # Ratios 1.5, 1.5, 0.5, 0.5 with A = 1, -1, 1, -1 and ε = 0.2:
    # min(1.5, 1.2) = 1.2; min(-1.5, -1.2) = -1.5; min(0.5, 0.8) = 0.5; min(-0.5, -0.8) = -0.8. Sum -0.6.
    ratios = rows([1.5, 1.5, 0.5, 0.5])
    loss, clipped = losses.policy_loss(
        ratios.log(), torch.zeros_like(ratios), rows([1, -1, 1, -1]), torch.ones_like(ratios), 0.2
    )
    assert loss.item() == pytest.approx(0.6 / 4)
    assert clipped.item() == pytest.approx(2 / 4)


def test_the_policy_gradient_is_zero_exactly_where_clipping_acts() -> None:
    logprobs = rows([1.5, 1.5, 0.5, 0.5, 1.0]).log().requires_grad_()
    advantages, mask = rows([1, -1, 1, -1, 1]), torch.ones(1, 5, dtype=torch.float64)
    loss, _ = losses.policy_loss(logprobs, torch.zeros(1, 5, dtype=torch.float64), advantages, mask, 0.2)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    # Where it is free, d(-r·A/5)/d(log π) = -r·A/5.
    assert gradient[0].tolist() == pytest.approx([0.0, 0.3, -0.1, 0.0, -0.2])


def test_padding_takes_no_part_in_the_policy_loss() -> None:
    logprobs = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    loss, _ = losses.policy_loss(logprobs, torch.zeros(1, 2), rows([1, 1000]), rows([1, 0]), 0.2)
    assert loss.item() == -1.0
    assert torch.autograd.grad(loss, logprobs)[0].tolist() == [[-1.0, 0.0]]


def test_the_clipped_value_loss_by_hand() -> None:
    # V = 1, V_old = 0, ε = 0.2, so V_clip = 0.2. R = 1: max(0, 0.64) = 0.64. R = -1: max(4, 1.44) = 4.
    values, old = rows([1.0, 1.0, 77.0]), rows([0.0, 0.0, 0.0])
    loss = losses.value_loss(values, old, rows([1.0, -1.0, 0.0]), rows([1, 1, 0]), 0.2)
    assert loss.item() == pytest.approx(0.5 * (0.64 + 4.0) / 2)


def test_the_value_gradient_is_zero_where_clipping_acts() -> None:
    values = rows([0.9, 1.0, 0.1]).requires_grad_()
    loss = losses.value_loss(values, rows([0, 0, 0]), rows([1.0, -1.0, 1.0]), rows([1, 1, 1]), 0.2)
    # Free values have gradient (V - R)/3.
    assert torch.autograd.grad(loss, values)[0][0].tolist() == pytest.approx([0.0, 2 / 3, -0.9 / 3])
