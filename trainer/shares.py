"""Shares with their 95 % intervals, as metrics by name."""

from __future__ import annotations

import math

from trainer.rating import Z_95


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); (0, 1) where nothing was observed."""
    if n == 0:
        return 0.0, 1.0
    share, spread = successes / n, Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return centre - half, centre + half


def share(successes: float, n: int, name: str) -> dict[str, float]:
    """Return a share and, under `name_low`, `name_high` and `name_n`, its interval and what it was counted over."""
    low, high = wilson(successes, n)
    return {name: successes / max(n, 1), f"{name}_low": low, f"{name}_high": high, f"{name}_n": float(n)}
