"""Plays epochs with a crowd: its rankings go through the production functions, as at every close of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from chain.epoch import FAST
from chain.feedback import Comparisons, comparisons
from chain.rules import Rules
from chain.stake import Change, fold, mean_stake, stake_seconds
from chain.types import ONE, Address, EpochScore, Ratio, WalletState, Wei
from tests.bench.score.crowd import Floats, Population
from tests.bench.score.items import Answers, Ints, gold_of, items_of, qualities

DAY: Final = 86_400
POOL: Final = Wei(10**18)
"""Revenue of each epoch."""
RULES: Final = Rules()


@dataclass(frozen=True)
class Season:
    """A crowd and how long, on how much and with how much gold it works."""

    crowd: Population
    tasks: int
    epochs: int = 4
    gold: float | None = None
    """Share of gold tasks; None for that of the rules: 5 % for three epochs, then 2 %."""
    overlap: int = RULES.overlap


@dataclass(frozen=True)
class Played:
    """An epoch that was played: what came in, what the score makes of it, and what was true."""

    number: int
    found: Comparisons
    result: EpochScore
    stakes: dict[Address, Wei]
    scores: dict[Address, int]
    paid: dict[Address, Wei]
    lam: Ratio
    truth: Ints
    """+1 where the first response of a pair is the better, else -1."""
    rows: dict[str, Ints] = field(repr=False)
    """The columns of the comparisons as arrays, for the rules that ours is held against."""

    @property
    def labels(self) -> Ints:
        """The score's labels."""
        return np.array([p.label for p in self.result.pairs])

    @property
    def open(self) -> Ints:
        """Numbers of the pairs that are not gold: only there a label is news."""
        return np.flatnonzero(np.array([p.gold for p in self.found.pairs]) == 0)

    @property
    def amounts(self) -> Floats:
        """The stakes in tokens, in the order of the wallets."""
        return np.array([self.stakes[w] / 1e18 for w in self.found.wallets])

    def right(self, labels: Ints) -> float:
        """Return the share of labels that are true; no label counts as half of one."""
        said = labels[self.open] * self.truth[self.open]
        return float((said > 0).mean() + (said == 0).mean() / 2)


def _changes(season: Season) -> list[Change]:
    """Return everybody's stake on the chain; who splits a wallet splits its stake, who shares one adds."""
    held: dict[Address, int] = {}
    late: dict[Address, int] = {}
    crowd = season.crowd
    for kind, mine, tokens in zip(crowd.kinds, crowd.wallets, crowd.stakes, strict=True):
        for wallet in mine:
            amount = int(tokens * 10**6) * 10**12 // len(mine)
            if kind.late:
                late[wallet] = amount
            held[wallet] = held.get(wallet, 0) + (10**18 if kind.late else amount)
    at = DAY + (season.epochs - 1) * DAY + DAY * 19 // 20
    first = [Change(w, Wei(v), DAY) for w, v in held.items()]
    return first + [Change(w, Wei(v), at) for w, v in late.items()]


def play(season: Season) -> Iterator[Played]:
    """Yield the epochs of a season one after the other; states, stake and lambda go from one to the next."""
    params, changes = RULES.params, _changes(season)
    answers = Answers(season.crowd, season.tasks, season.overlap)
    states: dict[Address, WalletState] = {}
    lam = Ratio(params.lambda0_num, params.lambda0_den)
    for epoch in range(season.epochs):
        items = items_of(season.crowd.seed, epoch, season.tasks)
        share = season.gold
        if share is None:
            share = (RULES.gold_ppm if epoch < RULES.gold_epochs else RULES.gold_floor_ppm) / ONE
        tasks = {h: t for i in items for h, t in zip(i.names, i.tasks, strict=True)}
        gold = {h: ranks for i in items for h, ranks in gold_of(i, share).items()}
        quality = qualities(season.crowd.seed, epoch, season.tasks)
        found = comparisons(answers.of(epoch, share), tasks, gold)
        result = FAST.score(found, [states.get(w, WalletState()) for w in found.wallets], params)
        starts, ends = (fold(changes, DAY * (epoch + n)) for n in (1, 2))
        stakes = {
            w: mean_stake(
                stake_seconds(starts.get(w), DAY * (epoch + 1)), stake_seconds(ends.get(w), DAY * (epoch + 2)), DAY
            )
            for w in found.wallets
        }  # fmt: skip
        proven = {w: r.w for w, r in zip(found.wallets, result.wallets, strict=True)}
        scores = {w: FAST.haptic_score(proven[w], stakes[w], lam, params) for w in found.wallets}
        paid = FAST.allocate(POOL, scores).shares
        truth = np.array([1 if quality[k.task, k.a] > quality[k.task, k.b] else -1 for k in found.keys])
        c = found.columns
        rows = {
            n: np.frombuffer(getattr(c, n), dtype=np.int64) for n in ("judgement", "wallet", "pair", "x", "w")
        }
        yield Played(epoch, found, result, stakes, scores, paid, lam, truth, rows)
        states |= {w: r.state for w, r in zip(found.wallets, result.wallets, strict=True)}
        lam = FAST.lambda_next(proven, stakes, lam)
