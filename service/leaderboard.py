"""The leaderboard: wallets by the surplus per comparison that their work shows for certain, never by volume alone.

A wallet's surplus is a sum of judgements whose truth is not known to anybody, and few of them prove little: whoever
was right ten times of ten may have been lucky. So a quality stands between two bounds, and the order goes by the lower
one (Miller, "How Not To Sort By Average Rating", 2009).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from math import sqrt
from typing import Final, NamedTuple

from service.once import Once

SIXTH: Final = 6_000_000
"""One comparison in the unit of the score, ppm of a sixth of one."""
SQUARE: Final = SIXTH**2 / 1_000_000
"""The square of one comparison in the unit of deltaV."""
Z: Final = 2
"""Standard deviations to each side: 95 of 100 intervals hold the true quality, or more."""
LEAST: Final = 20
"""Comparisons below which a wallet stands on no leaderboard by quality: its interval is as wide as the scale."""
WINDOWS: Final = (0, 1, 2, 4, 13)
"""Epochs that a leaderboard may look back over, 0: all; few, because each is put together once a close for everybody."""
KEPT: Final = 2 * len(WINDOWS)
"""Leaderboards that are kept: all that can be asked for, of the last closed epoch and, to turn pages, the one before."""


class Interval(NamedTuple):
    """A quality with the bounds that it is certain to stand between."""

    quality: float
    low: float
    high: float


class Merit(NamedTuple):
    """What a wallet's work came to over some epochs."""

    wallet: str
    epochs: int
    comparisons: int
    """In sixths."""
    surplus: float
    """The sum of deltaG."""
    variance: float
    """The sum of deltaV: of the squares of each judgement's surplus."""

    @property
    def interval(self) -> Interval:
        """The surplus per comparison, about 0 for a coin and 1 for who is always right and never in doubt."""
        return interval(self.surplus / SIXTH, self.variance / SQUARE, self.comparisons / 6)


def interval(surplus: float, squares: float, comparisons: float) -> Interval:
    """Return the surplus per comparison and its bounds, from the sum of judgements and that of their squares.

    Judgements are independent draws, so the sum's standard error is at most the root of the sum of their squares: it
    is that of guessing, wider than that about the mean, and the one that HapticScore itself pays by (SPEC 3.6). Of few
    draws it knows too little: four right ones and four wrong ones in a row have the same squares. As Agresti and
    Coull (1998) do for shares, after Wilson (1927), Z² comparisons of a guess are added that earned nothing: the
    middle moves toward 0, and the bounds are never narrower than they allow.
    """
    work = comparisons + Z**2
    middle, spread = surplus / work, Z * sqrt(squares + Z**2) / work
    return Interval(surplus / comparisons if comparisons else 0.0, middle - spread, middle + spread)


class Board:
    """The wallets of some epochs that compared enough, the highest lower bound first, then by address."""

    def __init__(self, found: Iterable[Merit]) -> None:
        enough = [m for m in found if m.comparisons >= 6 * LEAST]
        enough.sort(key=lambda m: (-m.interval.low, m.wallet))
        # As columns: a hundred thousand wallets take 13 MB, and 30 as records.
        self._wallets = [m.wallet for m in enough]
        self._counts = array("q", (n for m in enough for n in (m.epochs, m.comparisons)))
        self._sums = array("d", (x for m in enough for x in (m.surplus, m.variance)))

    def __len__(self) -> int:
        return len(self._wallets)

    def page(self, after: int, limit: int) -> Iterator[tuple[int, Merit]]:
        """Yield the places after one, at most so many, each with its wallet."""
        for i in range(after, min(after + limit, len(self))):
            yield (
                i + 1,
                Merit(self._wallets[i], *self._counts[2 * i : 2 * i + 2], *self._sums[2 * i : 2 * i + 2]),
            )


class Boards:
    """Leaderboards, each put together once: what it is made of changes when an epoch is closed."""

    def __init__(self) -> None:
        self._made: Once[tuple[str, int], Board] = Once(KEPT)

    def find(self, closed: str, first: int, read: Callable[[], Iterable[Merit]]) -> Board:
        """Return the leaderboard from epoch `first` on to the one of the dataHash `closed`, from `read` if it is new."""
        return self._made.find((closed, first), lambda: Board(read()))
