"""Reads a chain's logs range by range: as wide as the node takes, the next one fetched while the last is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from chain.rpc import Rpc
from chain.transport import RpcAnswerError, RpcTimeoutError
from chain.types import Address, BlockRef
from chain.wire import Log

FIRST: Final = 64
"""Blocks asked for at first."""
WIDEST: Final = 10_000
"""Most blocks asked for at once; what many providers allow."""
MOST_LOGS: Final = 6_000
"""Logs that one answer should hold, or somewhat more: memory stays flat."""


@dataclass(frozen=True, slots=True)
class Range:
    """The logs of all blocks from `first` to `last`, both included."""

    first: BlockRef
    last: BlockRef
    logs: list[Log]
    source: str
    """Name of the node that gave them."""


@dataclass(slots=True)
class Width:
    """How many blocks are asked for at once: less where a node refuses or sends much, then more again, slowly."""

    blocks: int = field(default_factory=lambda: min(FIRST, WIDEST))
    refused: bool = False

    def shrink(self, by: int) -> None:
        """A range of `blocks` was refused."""
        self.blocks, self.refused = max(self.blocks // by, 1), True

    def took(self, blocks: int, logs: int) -> None:
        """A range of so many blocks was answered with so many logs."""
        if logs > MOST_LOGS:
            self.blocks = max(blocks * MOST_LOGS // logs, 1)
            return
        # What was refused once is not far above: until then by four, and no wider than the logs allow.
        wider = blocks + blocks // 4 + 1 if self.refused else 4 * blocks
        room = wider if not logs else max(blocks * MOST_LOGS // logs, 1)
        self.blocks = max(min(wider, room, WIDEST), min(blocks, WIDEST))


def read_ranges(
    rpc: Rpc, addresses: Sequence[Address], topics: Sequence[str], start: int, end: int
) -> Iterator[Range]:
    """Yield the logs of all blocks from `start` to `end` in order; an RpcError where no width helps."""
    width = Width()

    def ask(first: int) -> Range:
        while True:
            last = min(first + width.blocks - 1, end)
            try:
                logs, head, tail = rpc.logs_between(addresses, first, last, topics)
            except (RpcAnswerError, RpcTimeoutError) as error:
                # Providers word "too many results" in many ways; a narrower range cures all of them.
                if last == first:
                    raise
                width.blocks = last - first + 1
                width.shrink(2 if isinstance(error, RpcAnswerError) else 8)
            else:
                width.took(last - first + 1, len(logs))
                return Range(head, tail, logs, rpc.source)

    if start > end:
        return
    with ThreadPoolExecutor(1, "fetch") as ahead:
        following: Future[Range] | None = ahead.submit(ask, start)
        while following is not None:
            found = following.result()
            following = ahead.submit(ask, found.last.number + 1) if found.last.number < end else None
            yield found
