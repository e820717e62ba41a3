"""What a season came to: pay and work of each kind of contributor under every rule, and how many labels were true."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from chain.collector import paused
from chain.score import haptic_score
from chain.types import Address, Wei
from tests.bench.score import peers
from tests.bench.score.season import RULES, Played, Season, play


class Tally:
    """A season that was played; its epochs are counted and let go."""

    @paused()
    def __init__(self, season: Season, *, estimators: bool = False, slow: bool = False) -> None:
        self.season, self.kind_of = season, season.crowd.kind_of()
        self.pay: dict[tuple[str, str, int], float] = defaultdict(float)
        """Share of the epoch's pool by rule, kind and epoch."""
        self.work: dict[tuple[str, int], float] = defaultdict(float)
        """Sixths of comparisons by kind and epoch."""
        self.surplus: dict[str, float] = defaultdict(float)
        """What was proven, W, by kind: what stake is then held against."""
        self.stake: dict[str, float] = defaultdict(float)
        self.earned: dict[Address, float] = defaultdict(float)
        """What HapticScore gave each wallet, in pools."""
        self.judged: dict[Address, float] = defaultdict(float)
        self.proven: dict[tuple[str, int], int] = defaultdict(int)
        """Wallets of a kind that were paid anything up to an epoch."""
        self.right: dict[str, float] = {}
        """Share of true labels in the last epoch, by who made them."""
        rules, kept = peers.Rules(), []
        for played in play(season):
            self._count(played, rules)
            if estimators:
                kept.append(played)
        self._last = played
        self.right |= {
            "HapticScore": played.right(played.labels), "majority": played.right(peers.majority(played)),
            "stake-weighted": played.right(peers.stake_weighted(played)),
        }  # fmt: skip
        if estimators:
            self.right["DawidSkene"] = played.right(peers.dawid_skene(kept))
        if slow:
            self.right["MACE"] = played.right(peers.mace(kept))

    def _count(self, played: Played, rules: peers.Rules) -> None:
        kinds = [self.kind_of[w] for w in played.found.wallets]
        work, epoch = peers.work(played), played.number
        for rule, formula in rules.named().items():
            paid = formula(played)
            shares = paid / max(paid.sum(), 1e-300)
            for kind, share in zip(kinds, shares.tolist(), strict=True):
                self.pay[rule, kind, epoch] += share
            if rule == "HapticScore":
                for wallet, share in zip(played.found.wallets, shares.tolist(), strict=True):
                    self.earned[wallet] += share
        for kind, result in zip(kinds, played.result.wallets, strict=True):
            self.surplus[kind] += result.w
        for wallet, kind, done, held in zip(
            played.found.wallets, kinds, work.tolist(), played.amounts.tolist(), strict=True
        ):
            self.work[kind, epoch] += done
            self.judged[wallet] += done
            self.stake[kind] += held
            self.proven[kind, epoch] += self.earned[wallet] > 0

    def per_work(
        self, kind: str, rule: str = "HapticScore", since: int = 0, until: int | None = None
    ) -> float:
        """Return a kind's pay per unit of work in some epochs; the average honest worker's is 1."""
        epochs = range(since, self.season.epochs if until is None else until)

        def rate(name: str) -> float:
            done = sum(self.work[name, e] for e in epochs)
            return sum(self.pay[rule, name, e] for e in epochs) / done if done else 0.0

        return rate(kind) / rate("average") if rate("average") else math.inf if rate(kind) else 0.0

    def share(self, kind: str, rule: str = "HapticScore") -> float:
        """Return a kind's share of all pools."""
        return sum(self.pay[rule, kind, e] for e in range(self.season.epochs)) / self.season.epochs

    def share_of_work(self, kind: str) -> float:
        """Return a kind's share of all comparisons."""
        return sum(v for (k, _), v in self.work.items() if k == kind) / sum(self.work.values())

    def share_of_proven(self, kind: str) -> float:
        """Return a kind's share of all proven surplus."""
        return self.surplus[kind] / sum(self.surplus.values())

    def share_of_stake(self, kind: str) -> float:
        """Return a kind's share of all stake."""
        return self.stake[kind] / sum(self.stake.values())

    def of_people(self, people: list[int]) -> float:
        """Return what people earned with all their wallets together, in pools."""
        wallets = {w for n in people for w in self.season.crowd.wallets[n]}
        return sum(self.earned[w] for w in sorted(wallets))

    def rate_of_people(self, people: list[int]) -> float:
        """Return what people earned per unit of work; the average honest worker's is 1."""
        wallets = {w for n in people for w in self.season.crowd.wallets[n]}
        average = [w for w, kind in self.kind_of.items() if kind == "average"]
        rates = [
            sum(self.earned[w] for w in ws) / sum(self.judged[w] for w in ws)
            for ws in (sorted(wallets), average)
        ]
        return rates[0] / rates[1]

    def late_ratio(self) -> float:
        """Return the late stakers' last score, as a share of what their stake would have given had it been there."""
        crowd, last = self.season.crowd, self._last
        proven = {w: r.w for w, r in zip(last.found.wallets, last.result.wallets, strict=True)}
        had = would = 0
        for n in crowd.people("stakes late"):
            (wallet,) = crowd.wallets[n]
            had += last.scores.get(wallet, 0)
            full = Wei(int(crowd.stakes[n] * 10**18))
            would += haptic_score(proven.get(wallet, 0), full, last.lam, RULES.params)
        return had / would if would else float("nan")

    def paid_by(self, kind: str, epoch: int) -> float:
        """Return the share of a kind's wallets that were paid anything up to an epoch."""
        return self.proven[kind, epoch] / max(1, len(self.season.crowd.people(kind)))


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Return mean and standard deviation over seeds."""
    found = np.array(values)
    if np.isinf(found).any():
        return math.inf, 0.0
    return float(found.mean()), float(found.std(ddof=1)) if len(values) > 1 else 0.0
