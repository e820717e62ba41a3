"""The terminal that the command line and the demo write to; wide enough for its tables when it is a file."""

from __future__ import annotations

import sys

from rich.console import Console

out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def show_score(score: int) -> str:
    """Return a HapticScore for people, in proven comparisons: its unit is a millionth of a sixth of one."""
    return f"{score / 6_000_000:,.2f}"
