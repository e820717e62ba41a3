"""The experiments of the attack bench: each plays seasons of one seed and yields figures for the tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

from tests.bench.score import crowd as c
from tests.bench.score.peers import RULES
from tests.bench.score.season import Season
from tests.bench.score.tally import Tally


class Figure(NamedTuple):
    """One number of one seed, and where it stands."""

    table: str
    row: str
    column: str
    value: float


@dataclass(frozen=True, slots=True)
class Size:
    """How large the simulated network is."""

    wallets: int = 1000
    tasks: int = 4000
    epochs: int = 4
    slow: bool = True
    """With MACE, on the first seed."""
    grid: bool = True
    """Rings of every share, with every amount of gold; else of a fifth only."""


LABELS: Final = "Labels: share that are true in the last epoch, not counting gold (MACE: the first seed only)"
PAY: Final = "Pay per unit of work, all epochs together (average honest worker = 1)"
RING_PAY: Final = "A ring that shares a wrong key: its pay per unit of work"
RING_LABELS: Final = "The same rings: true labels by HapticScore (by majority)"
SPLITS: Final = "One person's work and stake split over wallets: pay, in one wallet = 1"
MERGES: Final = "People who share one wallet: pay, apart = 1"
WHALES: Final = "Whales: much stake, 0.7 % of the work; share of the pool"
IDLE_WHALES: Final = (c.LAZY_WHALE.name, c.EXPERT_WHALE.name, f"one whale: {c.CLICKER.name}")
"""Those with little work each; one who does seven people's work as well as they would is no attack (see `WHALES`)."""
TIME: Final = "Time: who comes late, who stops trying"
PROOF: Final = "Paid when proven: share of wallets that were paid anything by the end of an epoch"
LIMITS: Final = "Limits: what it does not, or hardly, withstand"


class Bench:
    """All experiments of one seed; a season that several need is played once."""

    def __init__(self, seed: int, size: Size, *, slow: bool) -> None:
        self.seed, self.size, self.slow = seed, size, slow

    def _play(self, shares: tuple[tuple[c.Kind, float], ...], gold: float | None = None) -> Tally:
        return Tally(self._season(c.of_shares(self.seed, self.size.wallets, shares), gold))

    def _season(self, people: c.Population, gold: float | None = None) -> Season:
        return Season(people, self.size.tasks, self.size.epochs, gold)

    def _estimated(self, shares: tuple[tuple[c.Kind, float], ...]) -> Tally:
        season = self._season(c.of_shares(self.seed, self.size.wallets, shares))
        return Tally(season, estimators=True, slow=self.slow)

    @cached_property
    def benign(self) -> Tally:
        """The crowd without anyone hostile."""
        return self._estimated(c.BENIGN)

    @cached_property
    def mixed(self) -> Tally:
        """The crowd of everybody."""
        return self._play(c.everybody(self.size.epochs))

    def labels(self) -> Iterator[Figure]:
        """Labels against other aggregators."""
        worlds: dict[str, Callable[[], Tally]] = {
            "benign": lambda: self.benign,
            "10 % adversaries": lambda: self._estimated(c.with_hostile(c.ADVERSARY, 0.1)),
            "30 % adversaries": lambda: self._estimated(c.with_hostile(c.ADVERSARY, 0.3)),
            "20 % ring": lambda: self._estimated(c.with_hostile(c.RING, 0.2)),
        }
        for name, world in worlds.items():
            found = world().right
            for aggregator, share in found.items():
                yield Figure(LABELS, name, aggregator, share)
            yield Figure(LABELS, name, "over majority", found["HapticScore"] - found["majority"])

    def pay(self) -> Iterator[Figure]:
        """Pay of everybody against other rules, whales' and latecomers' too."""
        tally, half = self.mixed, self.size.epochs // 2
        for kind, _ in c.everybody(self.size.epochs):
            for rule in RULES:
                yield Figure(PAY, kind.name, rule, tally.per_work(kind.name, rule))
        yield Figure(
            TIME, "stake that comes at 95 % of the last epoch: score, in time = 1", "", tally.late_ratio()
        )
        turned = c.TURNED.name
        yield Figure(
            TIME, "expert, then clicks: pay per work while an expert", "", tally.per_work(turned, until=half)
        )
        yield Figure(TIME, "expert, then clicks: pay per work after", "", tally.per_work(turned, since=half))
        for name in ("expert", "average", "poor", "random clicker"):
            for epoch in range(self.size.epochs):
                yield Figure(PROOF, name, f"epoch {epoch}", self.benign.paid_by(name, epoch))

    def whales(self) -> Iterator[Figure]:
        """Whales that click, and whales that are the best of judges."""
        fifty = tuple((k, s * 0.95) for k, s in c.BENIGN)
        worlds = {
            c.LAZY_WHALE.name: self.mixed,
            c.EXPERT_WHALE.name: self._play((*fifty, (c.EXPERT_WHALE, 0.05))),
        }
        for kind in (c.CLICKER, c.AVERAGE, c.EXPERT):
            people = c.one_whale(kind, self.seed, self.size.wallets)
            worlds[people.kinds[-1].name] = Tally(self._season(people))
        for name, tally in worlds.items():
            yield Figure(WHALES, name, "of stake", tally.share_of_stake(name))
            yield Figure(WHALES, name, "of work", tally.share_of_work(name))
            yield Figure(WHALES, name, "of proven W", tally.share_of_proven(name))
            for rule in RULES:
                yield Figure(WHALES, name, rule, tally.share(name, rule))

    def rings(self) -> Iterator[Figure]:
        """Rings by share and gold."""
        shares, golds = ((0.1, 0.2, 0.3, 0.4), (0.0, 0.02, 0.05)) if self.size.grid else ((0.2,), (0.0, 0.02))
        for share in shares:
            for gold in golds:
                tally = self._play(c.with_hostile(c.RING, share), gold)
                row, column = f"ring of {share:.0%}", f"gold {gold:.0%}"
                yield Figure(RING_PAY, row, column, tally.per_work(c.RING.name))
                yield Figure(RING_LABELS, row, column, tally.right["HapticScore"])
                yield Figure(RING_LABELS, row, f"({column})", tally.right["majority"])

    def splits(self) -> Iterator[Figure]:
        """The same answers, given from one wallet, or from several."""
        base = self.benign
        people = base.season.crowd
        some = {kind.name: people.people(kind.name)[1::3][:30] for kind, _ in c.BENIGN}
        everyone = [n for chosen in some.values() for n in chosen]
        clicks = f"{c.CLICKER.name}: pay per work"
        yield Figure(SPLITS, clicks, "in one", base.rate_of_people(some[c.CLICKER.name]))
        for parts in (2, 5, 20):
            tally = Tally(self._season(replace(people, splits=tuple((n, parts) for n in everyone))))
            yield Figure(SPLITS, clicks, f"over {parts}", tally.rate_of_people(some[c.CLICKER.name]))
            for kind in (c.EXPERT.name, c.AVERAGE.name, c.POOR.name):
                before, after = base.of_people(some[kind]), tally.of_people(some[kind])
                yield Figure(SPLITS, kind, f"over {parts}", after / before if before else math.inf)

    def merges(self) -> Iterator[Figure]:
        """Several people's work and stake in one wallet."""
        base = self.benign
        people = base.season.crowd
        expert, average, poor, clicker = (people.people(kind.name) for kind, _ in c.BENIGN)
        count = max(1, self.size.wallets // 100)
        groups: dict[str, list[tuple[int, ...]]] = {
            "2 experts": [tuple(expert[2 * n : 2 * n + 2]) for n in range(count)],
            "5 average": [tuple(average[5 * n : 5 * n + 5]) for n in range(count)],
            "5 poor": [tuple(poor[5 * n : 5 * n + 5]) for n in range(count)],
            "an expert and a clicker": [(expert[-1 - n], clicker[n]) for n in range(count)],
        }
        merged = tuple(g for found in groups.values() for g in found)
        tally = Tally(self._season(replace(people, merged=merged)))
        for name, found in groups.items():
            together = [n for g in found for n in g]
            yield Figure(MERGES, name, "", tally.of_people(together) / max(base.of_people(together), 1e-12))

    def limits(self) -> Iterator[Figure]:
        """What breaks it, or leans on what it cannot see."""
        leaning = tuple((replace(k, length=0.5 * k.truth), 0.95 * s) for k, s in c.BENIGN)
        few = ((c.AVERAGE, 0.30), (c.EXPERT, 0.05), (c.POOR, 0.15), (c.CLICKER, 0.50))
        worlds: list[tuple[str, c.Kind, tuple[tuple[c.Kind, float], ...], float | None]] = [
            ("ring of 40 %, no gold", c.RING, c.with_hostile(c.RING, 0.4), 0.0),
            ("ring of 20 % that knows 2 % gold", c.INFORMED, c.with_hostile(c.INFORMED, 0.2), 0.02),
            ("ring of 20 % by an arbitrary key, 2 % gold", c.KEYED, c.with_hostile(c.KEYED, 0.2), 0.02),
            ("ring of 40 % by an arbitrary key, no gold", c.KEYED, c.with_hostile(c.KEYED, 0.4), 0.0),
            ("10 % recognise the models", c.RECOGNISES, c.with_hostile(c.RECOGNISES, 0.1), None),
            ("all lean to the longer; 5 % only pick it", c.PICKS_LONGER, (*leaning, (c.PICKS_LONGER, 0.05)), None),
            ("half of all click", c.CLICKER, few, None),
        ]  # fmt: skip
        for name, kind, shares, gold in worlds if self.size.grid else worlds[1:3]:
            tally = self._play(shares, gold)
            yield Figure(LIMITS, name, "its pay per work", tally.per_work(kind.name))
            yield Figure(LIMITS, name, "share of work", tally.share_of_work(kind.name))
            yield Figure(LIMITS, name, "share of pool", tally.share(kind.name))
            yield Figure(LIMITS, name, "true labels", tally.right["HapticScore"])
            yield Figure(LIMITS, name, "by majority", tally.right["majority"])

    def all(self) -> Iterator[Figure]:
        """Run everything."""
        for experiment in (
            self.labels,
            self.pay,
            self.whales,
            self.rings,
            self.splits,
            self.merges,
            self.limits,
        ):
            yield from experiment()
