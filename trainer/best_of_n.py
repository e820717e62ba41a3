"""Best of n: draw n answers and keep the one that the reward model likes best. No weight changes.

Its divergence from the policy that draws is at most log n - (n - 1)/n nats (Stiennon et al. 2020, appendix; that it
is a bound: Beirami et al. 2024), so it shows how good a reward model is at a known price.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trainer.model import Judge, LanguageModel
from trainer.reward import score
from trainer.sampler import Samples, sample


def best_of_n(
    language: LanguageModel,
    reward: Judge,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Samples, torch.Tensor]:
    """Draw n answers to each of B encoded prompts; return them all and the rows [B] of the best finished ones.

    Answer k of prompt b is row b·n + k. An answer that was cut off is taken only where no other ended.
    """
    samples = sample(
        language, [p for p in prompts for _ in range(n)], temperature=temperature, generator=generator
    )
    scores = score(reward, samples.batch)
    ended = torch.where(samples.finished, scores, scores - 1e6)
    best = ended.view(len(prompts), n).argmax(dim=1)
    return samples, best + n * torch.arange(len(prompts), device=best.device)


def kl_bound(n: int) -> float:
    """Return the most nats per answer that the best of n differs by from one draw."""
    return math.log(n) - (n - 1) / n
