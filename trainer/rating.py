"""Bradley-Terry ratings of models from their wins, with intervals (Bradley and Terry 1952, Hunter 2004)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.errors import RatingError

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

ROUNDING = 1e-6
"""A step this short that is no shorter than the one before it is rounding."""

_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of comparing two models, once or several times."""

    winner: str
    """The better model; either one, when tied."""
    loser: str
    """The other one."""
    weight: float = 1.0
    """How many comparisons this stands for."""
    tie: bool = False
    """Whether neither won; a tie counts as half a win for each."""


@dataclass(frozen=True, slots=True)
class Rating:
    """The strength of a model in log-odds: P(i beats j) = 1 / (1 + exp(s_j - s_i))."""

    name: str
    """The model."""
    strength: float
    """Natural log-odds; 0 is the phantom of the prior, or the mean of all models without prior."""
    low: float
    """Lower end of the 95 % interval, of how it stands to the mean of all models."""
    high: float
    """Upper end of the 95 % interval."""
    comparisons: float
    """Weight of all comparisons it took part in."""


def rate(results: Iterable[Result], *, prior: float = 0.5, tolerance: float = 1e-10) -> list[Rating]:
    """Return ratings, best first, ties in name order.

    The prior is a phantom opponent of strength 0 against whom every model has won and lost `prior` games:
    the MAP estimate under a symmetric, log-F prior. It keeps the undefeated finite and costs one game's worth.
    Intervals are the normal approximation from the observed information at the estimate.

    Args:
        results: any order; weights must be positive.
        prior: games won and lost against the phantom; with 0 this is plain maximum likelihood.
        tolerance: largest change of a log-strength at which iteration ends.

    Raises:
        RatingError: a weight is not positive, a model met itself, or (prior 0) no finite estimate exists.
    """
    names, wins = _wins(list(results))
    if not names:
        return []
    if prior == 0 and not _connected(wins):
        raise RatingError("some models never lost, or never won, against the rest: rate with a prior above 0")
    strengths = _strengths(wins, prior, tolerance)
    errors = _errors(wins, strengths, prior)
    played = (wins + wins.T).sum(axis=1)
    ratings = [
        Rating(name, float(s), float(s - Z_95 * e), float(s + Z_95 * e), float(n))
        for name, s, e, n in zip(names, strengths, errors, played, strict=True)
    ]
    return sorted(ratings, key=lambda rating: (-rating.strength, rating.name))


def _wins(results: list[Result]) -> tuple[list[str], _Matrix]:
    """Return names and W [n, n], W[i, j] = weight of i's wins over j, ties as half for each."""
    for result in results:
        if not (result.weight > 0 and math.isfinite(result.weight)) or result.winner == result.loser:
            raise RatingError(
                f"{result} is no comparison: two different models and a positive weight are needed"
            )
    names = sorted({name for result in results for name in (result.winner, result.loser)})
    index = {name: number for number, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for result in results:
        i, j = index[result.winner], index[result.loser]
        wins[i, j] += result.weight / 2 if result.tie else result.weight
        wins[j, i] += result.weight / 2 if result.tie else 0.0
    return names, wins


def _strengths(wins: _Matrix, prior: float, tolerance: float) -> _Matrix:
    """Climb the log-likelihood, which is concave, by Newton's steps: Σ_j n_ij P(i beats j) comes to W_i.

    A step changes no gap by more than 1: then it never leads down. Hunter's MM (2004) needs ten thousand steps where
    games are many and the prior is small, because all models together approach the phantom so slowly.
    """
    played, won = wins + wins.T, wins.sum(axis=1) + prior
    s, before = np.zeros(len(wins)), math.inf
    for _ in range(1_000):
        expected = (played * _chance(s[:, None] - s[None, :])).sum(axis=1) + 2 * prior * _chance(s)
        step = np.linalg.pinv(_information(wins, s, prior), hermitian=True) @ (won - expected)
        longest = np.abs(step).max()
        s = s + step * min(1.0, 0.5 / longest) if longest else s
        # Newton's steps shrink until only rounding is left in them.
        if longest < tolerance or before <= longest < ROUNDING:
            return np.asarray(s - s.mean() if prior == 0 else s)
        before = longest
    raise RatingError("the ratings did not converge: use a larger prior")


def _errors(wins: _Matrix, strengths: _Matrix, prior: float) -> _Matrix:
    """Return standard errors of the strengths relative to their mean.

    Roots of the diagonal of PΣP, Σ the (pseudo-)inverse information matrix and P = I - 11ᵀ/n: how far all models
    together lie from the phantom is of no interest, and would widen every interval alike.
    """
    centred = np.eye(len(wins)) - 1 / len(wins)
    covariance = centred @ np.linalg.pinv(_information(wins, strengths, prior), hermitian=True) @ centred
    return np.asarray(np.sqrt(np.diag(covariance)))


def _information(wins: _Matrix, strengths: _Matrix, prior: float) -> _Matrix:
    """Return how the log-likelihood bends at these strengths, [n, n]."""
    weight = (wins + wins.T) * _slope(strengths[:, None] - strengths[None, :])
    return np.asarray(np.diag(weight.sum(axis=1) + 2 * prior * _slope(strengths)) - weight)


def _chance(x: _Matrix) -> _Matrix:
    """Return the logistic function."""
    return np.asarray(1 / (1 + np.exp(-x)))


def _slope(x: _Matrix) -> _Matrix:
    """Return the slope of the logistic function."""
    return np.asarray(1 / (2 + np.exp(x) + np.exp(-x)))


def _connected(wins: _Matrix) -> bool:
    """Say whether everyone can be reached from everyone along wins (Ford 1957: then the maximum is finite)."""
    reach = (wins > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(max(1, len(wins).bit_length())):
        reach = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
    return bool(reach.all())
