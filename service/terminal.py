"""The terminal that the command line and the demo write to; wide enough for its tables when it is a file."""

from __future__ import annotations

import sys
import time

from chain.reason import HUNDREDTH, shown
from service.hostile import SafeConsole

out = SafeConsole(highlight=False, width=None if sys.stdout.isatty() else 120)


def show_score(score: int) -> str:
    """Return ppm of a sixth of a comparison, as scores and surpluses have it, in comparisons, rounded down.

    As the sentences of `chain.surplus` and `chain.reason` are, so that no table says another number than they do.
    """
    return shown(score // HUNDREDTH)


def show_wait(seconds: int) -> str:
    """Return how long something takes, for people: "3 min"; rounded up, so that nobody comes back too early."""
    for size, name, limit in ((1, "s", 120), (60, "min", 120), (3600, "h", 48)):
        amount = -(-max(seconds, 0) // size)
        if amount < limit:
            return f"{amount} {name}"
    return f"{-(-seconds // 86_400)} days"


def show_date(timestamp: int) -> str:
    """Return Unix seconds as day and time of day on this machine: "2026-03-01 14:05"."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(timestamp))


def show_when(timestamp: int, now: int) -> str:
    """Return Unix seconds as a date with how long that is from `now`: "2026-03-01 14:05 (in 3 min)"."""
    left = timestamp - now
    return f"{show_date(timestamp)} ({f'in {show_wait(left)}' if left >= 0 else f'{show_wait(-left)} ago'})"


def show_span(seconds: int) -> str:
    """Return a length of time to the second, and for people: "604800 s (7 days)"."""
    said = show_wait(seconds)
    return said if said == f"{seconds} s" else f"{seconds} s ({said})"


def show_time(timestamp: int) -> str:
    """Return Unix seconds as the time of day on this machine: "14:05"."""
    return time.strftime("%H:%M", time.localtime(timestamp))
