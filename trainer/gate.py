"""Whether a new policy takes the place of the one that it came from, by how often people liked its answer better.

The rule is an exact sign test, looked at once: when `needed` comparisons between the two have been judged, the
candidate is promoted if a coin would win so often, or oftener, in at most ALPHA of all cases; otherwise it is rolled
back, for what is not shown to be better costs nothing to leave out. Looking once is a part of the rule: who looks
after every comparison promotes a coin far oftener than ALPHA.

What it errs in, exact, at 800 comparisons: a candidate whose answer is judged better with probability .50 is promoted
in .022 of all cases (at any count in at most .025), one of .55 in .79, of .58 in .99, one of .45 in less than one of a
million. A candidate that truly wins .7, by judges of whom 82 % are right, is judged better with probability
.7 · .82 + .3 · .18 = .63: promoted by 200 comparisons in .94 of all cases.

Comparisons are taken as independent. Several pairs of one ranking share their answers, so that they say less than as
many pairs on their own; so do several on one prompt, as the policies differ in which prompts they answer well. The
rates above are then those of fewer comparisons, and a coin is promoted more often than ALPHA. The service counts one
vote a task, each on another prompt, so that there the rates are as they stand (`service/promotion.py`).
"""

from __future__ import annotations

from typing import Literal

from trainer.errors import ConfigError

Decision = Literal["promoted", "rolled back", "waiting"]
"""What became of a candidate."""

ALPHA = 0.025
"""Share of coins that may be promoted, the one-sided error of a 95 % interval."""


def luck(won: int, lost: int) -> float:
    """Return the probability that a coin wins so often or oftener: P(X >= won), X of Binomial(won + lost, 1/2).

    Raises:
        ConfigError: a count is negative.
    """
    if min(won, lost) < 0:
        raise ConfigError(f"{won} won and {lost} lost are no counts: neither can be negative")
    ways, total = 1, 0  # integers, so that nothing is rounded but the quotient
    for k in range(lost + 1):  # X >= won is as likely as at most `lost` losses
        total += ways
        ways = ways * (won + lost - k) // (k + 1)
    return total / (1 << (won + lost))


def decide(won: int, lost: int, needed: int) -> Decision:
    """Return what becomes of a candidate that was judged better `won` times and worse `lost` times.

    Args:
        won: comparisons with the incumbent in which the candidate's answer was judged better.
        lost: those in which it was judged worse; equal answers count for neither.
        needed: comparisons below which nothing is decided.

    Raises:
        ConfigError: a count is negative.
    """
    chance = luck(won, lost)
    if won + lost < needed:
        return "waiting"
    return "promoted" if chance <= ALPHA else "rolled back"
