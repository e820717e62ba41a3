"""How far a reward can be trusted: reward and gold of the best of n answers, by the divergence that each n costs.

Picking the best of ever more answers by the reward model raises its own score for sure; where gold stops following, the
reward is over-optimised (Gao et al. 2023, whose x axis this is: log n - (n - 1)/n nats). Gold is measured with and
never trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer import gold
from trainer.best_of_n import kl_bound
from trainer.config import EvaluateConfig
from trainer.model import Judge, LanguageModel
from trainer.reward import score
from trainer.sampler import sample
from trainer.sequences import answer_texts, encode_prompt


@dataclass(frozen=True, slots=True)
class Point:
    """The best of n answers by the reward model."""

    n: int
    """Answers that one is picked of."""
    kl: float
    """Nats from the model that drew them."""
    reward: float
    """Mean reward of the picked one."""
    gold: float
    """Its mean gold reward."""


def curve(
    config: EvaluateConfig, language: LanguageModel, judge: Judge, prompts: Sequence[str], seed: int
) -> list[Point]:
    """Return points for n = 1, 2, 4, … up to `curve_samples`, from one set of answers; none where that is 0.

    Args:
        config: on how much.
        language: who draws the answers.
        judge: who picks.
        prompts: of which the first `curve_prompts` are used.
        seed: of the answers.
    """
    if not config.curve_samples:
        return []
    generator = torch.Generator().manual_seed(seed)
    asked = list(prompts[: config.curve_prompts])
    encoded = [encode_prompt(language, prompt) for prompt in asked]
    answers: list[list[tuple[bool, float, float]]] = [[] for _ in asked]
    for _ in range(
        config.curve_samples
    ):  # a draw of each prompt at a time, so that memory does not grow with n
        drawn = sample(language, encoded, temperature=config.temperature, generator=generator)
        texts = answer_texts(language, drawn.batch)
        rows = zip(asked, drawn.finished.tolist(), score(judge, drawn.batch).tolist(), texts, strict=True)
        for mine, (prompt, ended, reward, text) in zip(answers, rows, strict=True):
            mine.append((ended, reward, gold.score(prompt, text)))
    # As in `best_of_n`, an answer that was cut off is taken only where no other ended.
    ranked = [sorted(mine, key=lambda row: row[:2]) for mine in answers]
    sizes = [2**power for power in range(config.curve_samples.bit_length())]
    return [
        Point(
            n,
            kl_bound(n),
            _mean([expected_best([row[1] for row in mine], n) for mine in ranked]),
            _mean([expected_best([row[2] for row in mine], n) for mine in ranked]),
        )
        for n in sizes
    ]


def expected_best(values: Sequence[float], n: int) -> float:
    """Return the mean value of the last of n draws without replacement from values in the order of preference.

    Over all C(N, n) subsets, the one in place i (from 0) is the last of C(i, n - 1): no subset has to be drawn, and
    all N answers serve every n (Nakano et al. 2021, appendix I).
    """
    of = math.comb(len(values), n)
    return sum(value * (math.comb(place, n - 1) / of) for place, value in enumerate(values))


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / max(len(numbers), 1)
