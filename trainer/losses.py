"""The losses and estimators of all stages as pure functions of tensors; B episodes, T tokens, V words.

Masks hold 1 where a token counts and 0 where it is padding; padding never changes a result.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of x [any shape] where mask [same shape] is 1; 0 where the mask is empty."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Return x [B, T] with mean 0 and deviation 1 over the mask; 0 outside of it.

    x' = (x - mean) / sqrt(var + 1e-8), from Ziegler et al. 2019 (`lm-human-preferences`).
    """
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return log π(token) [B, T] of tokens [B, T] under logits [B, T, V] / temperature."""
    chosen = functional.log_softmax(logits / temperature, dim=-1).gather(-1, tokens.unsqueeze(-1))
    return chosen.squeeze(-1)


def next_token_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross entropy -log π(token) over the mask.

    For SFT the mask has the answer's tokens only, as InstructGPT (Ouyang et al. 2022) trains it; for
    pretraining it is all ones. Shapes: logits [B, T, V], tokens [B, T], mask [B, T].
    """
    return masked_mean(-token_logprobs(logits, tokens), mask)


def preference_loss(
    chosen: Tensor, rejected: Tensor, weights: Tensor, margins: Tensor | float = 0.0
) -> Tensor:
    """Return the Bradley-Terry loss Σ w·(-log sigmoid(s_w - s_l - m)) / Σ w; 0 where all weights are.

    Shapes: scores of the chosen and the rejected answers [B], weights [B] ≥ 0, margins [B]. Christiano et al. 2017
    and Stiennon et al. 2020, with each comparison weighted: one of weight 2 is the same as two of weight 1. The
    margin m, by how much the chosen one has to lead, is that of Llama 2 (Touvron et al. 2023, eq. 2).
    """
    losses = -functional.logsigmoid(chosen - rejected - margins)
    return (weights * losses).sum() / weights.sum().clamp(min=1e-8)


def kl_k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return log π - log π_ref [B, T], the unbiased estimator of KL(π, π_ref) on π's own tokens.

    k1 of Schulman 2020 (joschu.net/blog/kl-approx.html); may be negative, as PPO's penalty needs it to be.
    """
    return logprobs - reference


def kl_k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return r - 1 - log r [B, T] with r = π_ref/π: unbiased, never negative (k3 of Schulman 2020)."""
    ratio = reference - logprobs
    return torch.expm1(ratio) - ratio


def kl_exact(logits: Tensor, reference: Tensor) -> Tensor:
    """Return KL(π, π_ref) = Σ_v π·(log π - log π_ref) [B, T] of next-token logits [B, T, V]."""
    log_p, log_q = functional.log_softmax(logits, dim=-1), functional.log_softmax(reference, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Return r_t [B, T] = -coefficient·kl_t, plus the answer's score at its last token.

    Shapes: scores [B], kl [B, T], mask [B, T] with at least one token in each row. Ziegler et al. 2019, eq. 2.
    """
    last = mask.sum(dim=1).long() - 1
    rewards = -coefficient * kl * mask
    return rewards.scatter_add(1, last.unsqueeze(1), scores.unsqueeze(1))


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns [B, T] by generalised advantage estimation (Schulman et al. 2016).

    δ_t = r_t + d·V_{t+1} - V_t,  A_t = δ_t + d·λ·A_{t+1},  R_t = A_t + V_t; an answer ends with its last token,
    so V and A are 0 beyond it; d is the discount. Shapes: all [B, T], each row of the mask ones, then zeros.
    """
    values, rewards = values * mask, rewards * mask
    following, ahead = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    advantages = torch.zeros_like(values)
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + discount * following - values[:, t]
        ahead = delta + discount * lam * ahead
        advantages[:, t], following = ahead, values[:, t]
    return advantages, (advantages + values) * mask


def policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss and the share of tokens where clipping acts.

    -mean min(r·A, clip(r, 1-ε, 1+ε)·A) with r = exp(log π - log π_old); Schulman et al. 2017, eq. 7. The
    gradient is zero where r has left the interval in the direction that A asks for. Shapes: all [B, T].
    """
    ratio = torch.exp(logprobs - old)
    free, held = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return -masked_mean(torch.minimum(free, held), mask), masked_mean((held < free).float(), mask)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Return ½·mean max((V - R)², (V_clip - R)²) with V_clip = V_old + clip(V - V_old, -ε, ε).

    As in OpenAI's baselines (`ppo2/model.py`). Shapes: all [B, T].
    """
    held = old + (values - old).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (held - returns) ** 2), mask)
