"""What a wallet has earned against what it has proven, from the integers of its bundle line, in words too; pure.

`score.pay` says how they follow from each other; here nothing is computed again: what chance may explain is what
the published integers leave between them (H = G - chance - entry, SPEC 3.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final, Self

from chain.reason import HUNDREDTH, shown
from chain.types import ONE, Params

MOST: Final = 1 << 20
"""Comparisons beyond which nobody is told how many more it takes: nothing that far off is known."""


@dataclass(frozen=True, slots=True)
class Surplus:
    """A wallet's surplus after an epoch, in ppm of a sixth of a comparison."""

    earned: int
    """G: by how much it agreed with what is true beyond what a coin and the length of the texts would have."""
    chance: int
    """What of that chance may explain: `z` standard deviations of pure guessing."""
    entry: int
    """c0, which each wallet leaves unpaid once, so that a new name is worth nothing."""
    stands: int
    """H, what is left of it; below 0 where it is not enough."""
    proven: int
    """The highest that this has ever been, 0 at first: all that was paid for so far."""

    @classmethod
    def of(cls, line: Mapping[str, Any], params: Params) -> Self:
        """Return what a bundle's `wallet` line says, under the parameters of its epoch."""
        earned, stands, entry = int(line["payG"]), int(line["h"]), params.c0 * ONE
        return cls(earned, earned - entry - stands, entry, stands, int(line["payHmax"]))

    @property
    def held_back(self) -> int:
        """What was earned and is not proven; 0 where more was proven once than is earned by now."""
        return max(0, self.earned - self.proven)

    @property
    def missing(self) -> int:
        """What it must grow by, beyond what chance may explain by then, before anything more is paid."""
        return self.proven - self.stands


def in_words(surplus: Surplus, params: Params) -> str:
    """Return the account in one sentence; its numbers, in comparisons with two decimals, add up to the last one.

    Earned, entry and what stands are rounded down, and what chance may explain is what these leave.
    """
    earned, entry, stands, proven = (
        x // HUNDREDTH for x in (surplus.earned, surplus.entry, surplus.stands, surplus.proven)
    )
    chance = earned - entry - stands
    said = (
        f"its surplus is {shown(earned)}, {_times(params)} standard deviation is {shown(chance)}, "
        f"and {shown(entry)} are the price of entry: "
    )
    if surplus.stands > 0 and not surplus.missing:
        return f"{said}{shown(stands)} are proven"
    if not surplus.proven:
        return f"{said}that leaves {shown(stands)}, and nothing is proven until it is above 0"
    return (
        f"{said}that leaves {shown(stands)}, and {shown(proven)} were proven before: "
        f"{shown(proven - stands)} are missing before more is paid"
    )


def _times(params: Params) -> str:
    if params.z_den != 1:
        return f"{params.z_num}/{params.z_den} of its"
    return "twice its" if params.z_num == 2 else f"{params.z_num} times its"


def next_payment(earned: int, variance: int, comparisons: int, proven: int, params: Params) -> int | None:
    """Return after how many more sixths of a comparison a wallet is paid again, if it goes on as it did so far.

    G, V and the comparisons are those of all its epochs. G grows like the work and chance like its root, so there
    is such a number for everybody whose surplus is above 0; None for others, and beyond `MOST` comparisons.
    """
    if earned <= 0 or comparisons <= 0:
        return None

    def paid(more: int) -> bool:
        work = comparisons + more
        chance = isqrt(variance * work // comparisons) * 1000 * params.z_num // params.z_den
        return earned * work // comparisons - chance - params.c0 * ONE > proven

    low, high = 0, 6 * MOST
    if not paid(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if paid(middle) else (middle, high)
    return high
