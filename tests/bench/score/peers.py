"""The rules that HapticScore is held against: labels by other aggregators, pay by other networks' formulas.

The pay rules are literal readings of public formulas in the terms of this bench, not the networks' software: what
they share is that stake weights pay, or truth, directly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from crowdkit.aggregation import MACE, DawidSkene

from chain.types import Address
from tests.bench.score.crowd import Floats
from tests.bench.score.items import Ints
from tests.bench.score.season import Played

# -- labels --------------------------------------------------------------------------------------------------------


def majority(played: Played) -> Ints:
    """Return the sign of the plain count; 0 where it is even."""
    return _weighted(played, np.ones(len(played.found.wallets)))


def stake_weighted(played: Played) -> Ints:
    """Return the side on which more stake stands, as a token vote does."""
    return _weighted(played, played.amounts)


def _weighted(played: Played, weights: Floats) -> Ints:
    rows = played.rows
    counted = np.bincount(rows["pair"], rows["x"] * weights[rows["wallet"]], len(played.truth))
    return np.sign(counted).astype(np.int64)


def dawid_skene(season: Sequence[Played]) -> Ints:
    """Return the last epoch's labels by crowd-kit's DawidSkene (1979).

    It reads all epochs' answers and gold at once, which no rule that pays at every close can.
    """
    gold = pd.Series(
        {
            (p.number << 32) + n: pair.gold
            for p in season
            for n, pair in enumerate(p.found.pairs)
            if pair.gold
        },
        dtype="int64",
    )
    return _labels(fitted(DawidSkene(n_iter=50), _answers(season), gold if len(gold) else None), season[-1])


def mace(season: Sequence[Played]) -> Ints:
    """Return the same by crowd-kit's MACE (Hovy et al. 2013), which takes no gold."""
    return _labels(fitted(MACE(n_restarts=2, n_iter=50), _answers(season)), season[-1])


def fitted(model: Any, answers: pd.DataFrame, *gold: pd.Series | None) -> pd.Series:
    """Return the labels by task that one of crowd-kit's models finds."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # crowd-kit 1.4.2 uses what pandas 3 calls deprecated; its answers are the same
        labels: pd.Series = model.fit(answers, *gold).labels_
    return labels


def _answers(season: Sequence[Played]) -> pd.DataFrame:
    def of(p: Played) -> pd.DataFrame:
        wallets = np.array(p.found.wallets)[p.rows["wallet"]]
        return pd.DataFrame(
            {"task": p.rows["pair"] + (p.number << 32), "worker": wallets, "label": p.rows["x"]}
        )

    return pd.concat([of(p) for p in season])


def _labels(labels: pd.Series, last: Played) -> Ints:
    found: Ints = labels.reindex(np.arange(len(last.truth)) + (last.number << 32)).to_numpy().astype(np.int64)
    return found


# -- pay -----------------------------------------------------------------------------------------------------------


def agreement(played: Played) -> Floats:
    """Return the share of each wallet's comparisons that agree with the majority: what others call quality."""
    rows, size = played.rows, len(played.found.wallets)
    agreed = rows["w"] * (rows["x"] == majority(played)[rows["pair"]])
    return np.bincount(rows["wallet"], agreed, size) / np.maximum(work(played), 1)


def work(played: Played) -> Floats:
    """Return what each wallet judged, in sixths of a comparison."""
    return np.array([r.comparisons for r in played.result.wallets], dtype=float)


class Rules:
    """Pay of one epoch after the other; what burnt stake there is stays burnt."""

    def __init__(self) -> None:
        self._left: dict[Address, float] = {}

    def haptic(self, played: Played) -> Floats:
        """Return what the production code paid."""
        return np.array([played.paid[w] for w in played.found.wallets], dtype=float)

    def literal(self, played: Played) -> Floats:
        """Return stake x quality x count, as the idea of paying staked feedback is first written down."""
        return played.amounts * agreement(played) * work(played)

    def root(self, played: Played) -> Floats:
        """Return √stake x quality x count: quadratic dampening (Buterin, Hitzig, Weyl 2019), cheap to split around."""
        return np.sqrt(played.amounts) * agreement(played) * work(played)

    def numerai(self, played: Played) -> Floats:
        """Return stake x signed score where positive; a negative one burns stake (docs.numer.ai, "Staking").

        payout = stake x clip(factor x score, ±5 %); the score here is 2·agreement - 1 instead of a correlation.
        """
        change = np.clip(2 * agreement(played) - 1, -0.05, 0.05)
        left = np.array([self._left.get(w, 1.0) for w in played.found.wallets])
        paid: Floats = played.amounts * left * np.maximum(change, 0)
        self._left |= dict(
            zip(played.found.wallets, (left * (1 + np.minimum(change, 0))).tolist(), strict=True)
        )
        return paid

    def yuma(self, played: Played) -> Floats:
        """Return stake x the answers that stand after clipping to the consensus (Bittensor, "Yuma Consensus").

        A weight counts up to the level that wallets with half of the stake support (κ = 1/2): of answers of ±1 that
        leaves those on the side with more stake. Dividends follow stake x what was left.
        """
        rows, size = played.rows, len(played.found.wallets)
        stands = rows["w"] * (rows["x"] == stake_weighted(played)[rows["pair"]])
        return played.amounts * np.bincount(rows["wallet"], stands, size)

    def named(self) -> Mapping[str, Callable[[Played], Floats]]:
        """Return the rules by the names of the tables."""
        return {
            "HapticScore": self.haptic, "stake·qual·count": self.literal, "√stake·qual·count": self.root,
            "Numerai-like": self.numerai, "Yuma-like": self.yuma,
        }  # fmt: skip


RULES: Final = tuple(Rules().named())
