"""The bars that a bench is held against: what has to hold, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping


def show(bars: Mapping[str, bool]) -> int:
    """Print a line for each bar, and return how many are missed."""
    for bar, holds in bars.items():
        print(f"{'holds' if holds else 'missed':<7} {bar}")
    return sum(not holds for holds in bars.values())


def hold(bars: Mapping[str, bool]) -> None:
    """Print a line for each bar, and end with an error where one is missed."""
    if missed := show(bars):
        raise SystemExit(f"{missed} of {len(bars)} bars are missed")
