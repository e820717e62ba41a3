"""What a reward model is worth on comparisons it has not seen: accuracy, calibration, and what it owes to length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainer.shares import share, wilson

BINS = 10
"""Rows of the reliability table; its confidences run from one half to 1."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A held-out comparison as the reward model sees it."""

    log_odds: float
    """Of the chosen answer being the better one: below 0 where model and label disagree."""
    scores: tuple[float, float]
    """Rewards of the chosen and the rejected answer."""
    words: tuple[int, int]
    """Their lengths."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Comparisons on which the reward model was about equally sure."""

    low: float
    """Least confidence."""
    high: float
    """Confidence that the next bin begins at."""
    n: int
    """Comparisons."""
    predicted: float
    """Mean confidence in the answer that the model prefers."""
    agreed: float
    """Share whose label agrees with the model; ties as half."""
    agreed_low: float
    """Lower end of its 95 % interval."""
    agreed_high: float
    """Upper end."""


def metrics(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return accuracy, calibration error and length bias by name; `_low`, `_high`, `_n` are a share's interval and count.

    `labels_prefer_longer` and `reward_prefers_longer` are over comparisons of different lengths;
    `reward_accuracy_longer` is over those whose longer answer was chosen, `reward_accuracy_shorter` over the others.
    """
    longer = [pair for pair in pairs if pair.words[0] > pair.words[1]]
    shorter = [pair for pair in pairs if pair.words[0] < pair.words[1]]
    # Of a longer chosen answer the model prefers the longer where it agrees; of a shorter one where it does not.
    prefers = sum(map(_right, longer)) + sum(1 - _right(pair) for pair in shorter)
    return {
        **share(sum(map(_right, pairs)), len(pairs), "reward_accuracy"),
        "reward_calibration_error": calibration_error(pairs),
        **share(len(longer), len(longer) + len(shorter), "labels_prefer_longer"),
        **share(prefers, len(longer) + len(shorter), "reward_prefers_longer"),
        **share(sum(map(_right, longer)), len(longer), "reward_accuracy_longer"),
        **share(sum(map(_right, shorter)), len(shorter), "reward_accuracy_shorter"),
        "reward_length_correlation": length_correlation(pairs),
    }


def reliability(pairs: Sequence[Pair]) -> list[Bin]:
    """Return the ten bins of the reliability table, lowest confidence first, empty ones left out.

    A comparison counts by the model's confidence in the answer it prefers, sigmoid(|log-odds|), which knows nothing
    of the label; a confidence of exactly 1 belongs to the last bin.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for pair in pairs:
        confidence = 1 / (1 + math.exp(-min(abs(pair.log_odds), 500.0)))
        found[min(BINS - 1, int((confidence - 0.5) * 2 * BINS))].append((confidence, _right(pair)))
    bins = []
    for number, rows in enumerate(found):
        if rows:
            confidences, rights = zip(*rows, strict=True)
            low, high = wilson(sum(rights), len(rows))
            bins.append(
                Bin(
                    low=0.5 + number / (2 * BINS),
                    high=0.5 + (number + 1) / (2 * BINS),
                    n=len(rows),
                    predicted=sum(confidences) / len(rows),
                    agreed=sum(rights) / len(rows),
                    agreed_low=low,
                    agreed_high=high,
                )
            )
    return bins


def calibration_error(pairs: Sequence[Pair]) -> float:
    """Return the expected calibration error (Guo et al. 2017): |agreed - predicted| of the bins, weighted by size."""
    gaps = sum(row.n * abs(row.agreed - row.predicted) for row in reliability(pairs))
    return gaps / max(len(pairs), 1)


def length_correlation(pairs: Sequence[Pair]) -> float:
    """Return Pearson's correlation of reward and words over all answers; 0 where either never varies."""
    if not pairs:
        return 0.0
    scores = np.array([score for pair in pairs for score in pair.scores])
    words = np.array([count for pair in pairs for count in pair.words], dtype=np.float64)
    spread = float(scores.std() * words.std())
    return float(((scores - scores.mean()) * (words - words.mean())).mean()) / spread if spread else 0.0


def table(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the reliability table as plain JSON."""
    return [asdict(row) for row in reliability(pairs)]


def _right(pair: Pair) -> float:
    """Return 1 where the model prefers the chosen answer, 0.5 where it prefers neither."""
    return 1.0 if pair.log_odds > 0 else 0.5 if pair.log_odds == 0 else 0.0
