"""Two answers before a judge, asked in both orders, so that a judge who likes a place is seen and gains nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainer import gold
from trainer.shares import share

PairJudge = Callable[[str, str, str], float]
"""Prompt, first answer, second answer: 1 if the first is better, 0 if the second is, 0.5 for a tie."""


def by_gold(prompt: str, first: str, second: str) -> float:
    """Judge by the gold reward, which sees no order."""
    ours, theirs = gold.score(prompt, first), gold.score(prompt, second)
    return 1.0 if ours > theirs else 0.5 if ours == theirs else 0.0


def win_rate(
    judge: PairJudge, prompts: Sequence[str], ours: Sequence[str], theirs: Sequence[str], name: str
) -> dict[str, float]:
    """Return how often our answers win, and how often the verdict follows the place instead.

    Each pair is shown twice, once with ours first. With a and b the two verdicts for the first place, ours scores
    (a + 1 - b) / 2, so that a judge who always takes one place gives .5; |a + b - 1| is 1 where both verdicts name
    the same place, 0 where they name the same answer.

    Returns:
        The share `name` with its interval, ties as half, and `name_position_bias` with its own.
    """
    wins = biased = 0.0
    for prompt, our, their in zip(prompts, ours, theirs, strict=True):
        a, b = judge(prompt, our, their), judge(prompt, their, our)
        wins += (a + 1 - b) / 2
        biased += abs(a + b - 1)
    return share(wins, len(prompts), name) | share(biased, len(prompts), f"{name}_position_bias")
