"""Whether the chain itself stands still, by this machine's clock: an index that keeps up with nothing looks well."""

from __future__ import annotations

from typing import NamedTuple

from chain.types import BlockRef
from service.terminal import show_wait


class Patience(NamedTuple):
    """Seconds that blocks may be old before that is told; 0 never tells."""

    head_s: int
    """Of the newest block."""
    final_s: int
    """Of the newest block that is final."""


PATIENT = Patience(600, 7200)
"""Fifty of Ethereum's slots without a block, and six times what its blocks take to become final."""
DEVNET = Patience(0, 0)
"""A devnet makes a block when somebody sends something: it stands still honestly, for as long as nobody does."""


def stall(head: BlockRef, finalized: BlockRef, clock: float, patience: Patience) -> str:
    """Return in words that the chain stands still, or no block becomes final; nothing where it goes on.

    `clock` is this machine's, Unix seconds. What a node says of a block is not more than its time: whether the node
    is frozen or the chain is, another node tells.
    """
    age = int(clock) - head.timestamp
    if 0 < patience.head_s < age:
        return (
            f"the chain stands still: block {head.number}, the newest, was made {show_wait(age)} ago by this machine's "
            "clock; is the node in step with others, and the clock right?"
        )
    age = int(clock) - finalized.timestamp
    if 0 < patience.final_s < age:
        return (
            f"no block becomes final: block {finalized.number}, the newest that is, was made {show_wait(age)} ago, and "
            f"the head is at {head.number}; what counts here waits for it"
        )
    return ""
