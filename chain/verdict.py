"""What a closed epoch says of one judgement, pair by pair: what was said, what came out, and what it earned; pure.

The integers are those of the bundle's `pair` and `wallet` lines, the arithmetic is that of `chain.spec`, steps 4 and 5:
the surpluses of all that a wallet judged in an epoch are its deltaG.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from chain.feedback import signs_of
from chain.messages import Ranking
from chain.spec import cons, lw
from chain.types import ONE, Hash32


class Known(NamedTuple):
    """What an epoch came to know of a pair: its `pair` line."""

    gold: int
    """+1 or -1 when the better one was known beforehand, else 0; 0 too where the gold proved wrong."""
    bucket: int
    longer: int
    log_odds: int
    label: int
    confidence: int
    """ppm"""


class Verdict(NamedTuple):
    """One pair of a judgement beside what came out; `a` comes before `b` by hash."""

    a: Hash32
    b: Hash32
    said: int
    """+1 where `a` was ranked better, -1 where `b`, 0 where neither."""
    known: Known
    weight: int
    """In sixths of a comparison, 0 where neither was ranked better."""
    surplus: int
    """What it earned before chance and entry are taken off, ppm of a sixth of a comparison."""

    @property
    def agreed(self) -> bool | None:
        """Whether it says what gold says, or where there is none, the label; None where either says nothing."""
        truth = self.known.gold or self.known.label
        return self.said == truth if self.said and truth else None


def verdicts(
    ranking: Ranking, known: Sequence[Known | None], reliability: int, style_bias: Sequence[int]
) -> list[Verdict]:
    """Return what came of each pair of a ranking that anybody ordered.

    `known` is in the order of the pairs of the task's response hashes; `reliability` is the wallet's own, whose vote
    is taken out of the consensus that it is held against; `style_bias` is m_b per bucket.
    """
    weight = 12 // len(ranking.shown)
    names = combinations(sorted(ranking.shown), 2)
    found = []
    for (a, b), x, pair in zip(names, signs_of(ranking), known, strict=True):
        if pair is not None:
            y = pair.gold * ONE or cons(pair.log_odds - x * lw(reliability))
            surplus = weight * x * (y - pair.longer * style_bias[pair.bucket])
            found.append(Verdict(a, b, x, pair, weight * abs(x), surplus))
    return found
