"""Why a HapticScore is 0, in words, from the integers that the epoch's bundle publishes of a wallet; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.types import ONE

COMPARISON: Final = 6 * ONE
"""In the unit of G, H and W: ppm of a sixth of one."""
HUNDREDTH: Final = COMPARISON // 100


def why_zero(wallet: Mapping[str, Any]) -> str:
    """Return what a bundle's `wallet` row scored nothing for, every cause of it; nothing where it scored."""
    if int(wallet["score"]):
        return ""
    proven, stake = int(wallet["w"]), int(wallet["stake"])
    causes = [] if proven else [_unproven(wallet)]
    if not stake:
        causes.append(
            "no stake stood behind it over the epoch: only stake counts that stands while the epoch runs"
        )
    if proven and stake:
        causes.append(
            f"its stake over the epoch is too little to count: {stake} of the token's smallest units"
        )
    return "; ".join(causes)


def _unproven(wallet: Mapping[str, Any]) -> str:
    """Return why W is 0: nothing compared, nothing to hold it against, or H not above the mark (SPEC 3.6)."""
    if not wallet["comparisons"]:
        return "nothing was compared: every ranking of it was a tie or flagged"
    if not int(wallet["d"]):
        return (
            "nothing says whether it was right: nobody whose word counts compared the same, and none was gold"
        )
    h, mark = int(wallet["h"]), int(wallet["payHmax"])
    stands = f"H, its agreement beyond the reach of chance, stands at {_comparisons(h)} comparisons"
    luck = (
        ""
        if int(wallet["deltaG"]) > 0
        else "; in this epoch it agreed with the others no more than a coin does"
    )
    if mark:
        return f"it proved nothing new: {stands}, and {_comparisons(mark)} were scored before{luck}"
    return (
        f"its quality is not proven yet: {stands}, and counts above 0; more careful rankings raise it{luck}"
    )


def _comparisons(value: int) -> str:
    """Return ppm of a sixth of a comparison in comparisons, rounded down: 0 is never reached early."""
    return shown(value // HUNDREDTH)


def shown(hundredths: int) -> str:
    """Return hundredths of a comparison with two decimals."""
    whole, part = divmod(abs(hundredths), 100)
    return f"{'-' if hundredths < 0 else ''}{whole}.{part:02d}"
