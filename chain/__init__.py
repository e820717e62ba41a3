"""What the chain knows and what follows from it: stake, score, payout; never imports service or trainer."""

from __future__ import annotations

import sys

import py_ecc  # noqa: F401  (eth-account loads it, and loading it sets Python's recursion limit to 100,000)

MAX_DEPTH = 1000
"""Python's own limit. With the other, JSON nested deeply enough ends the process instead of being refused."""
sys.setrecursionlimit(MAX_DEPTH)
