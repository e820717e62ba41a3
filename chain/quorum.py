"""Before money moves, several nodes must say the same by themselves: the hash of a block, the number of logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chain.errors import NodeError, QuorumError, RpcError
from chain.rpc import Rpc
from chain.transport import RpcAnswerError, RpcTimeoutError
from chain.types import Address, BlockRef, Hash32

WIDEST = 10_000
"""Most blocks asked for at once; what many providers allow."""


class Said(NamedTuple):
    """What one node says of a range of blocks."""

    node: str
    hash: Hash32
    """Of the block that money is computed at."""
    logs: int

    def __str__(self) -> str:
        return f"{self.node}: block {self.hash}, {self.logs} logs"


def agree(
    rpc: Rpc,
    addresses: Sequence[Address],
    topics: Sequence[str],
    first: int,
    last: int,
    block: BlockRef,
    wanted: int,
) -> None:
    """Ask `wanted` nodes, each by itself, for the hash of `block` and the number of logs from `first` to `last`.

    A NodeError names who says what where they differ, from each other or from `block`; a QuorumError says who
    does not answer where fewer than `wanted` do.
    """
    nodes = rpc.each()
    said: list[Said] = []
    silent: list[str] = []
    for node in nodes:
        if len(said) == wanted:
            break
        try:
            found = node.block(block.number).hash
            said.append(Said(node.name, found, _count(node, addresses, topics, first, last)))
        except RpcError as error:
            silent.append(str(error))
    if len(said) < wanted:
        why = "; ".join(silent) or f"{len(nodes)} can be asked ({', '.join(n.name for n in nodes) or 'none'})"
        raise QuorumError(
            f"{wanted} nodes must agree on block {block.number} before money moves, {len(said)} answered: {why}. "
            "Give HAPTIC_RPC_URL more nodes, or lower HAPTIC_RPC_QUORUM"
        )
    if {each.hash for each in said} != {block.hash} or len({each.logs for each in said}) > 1:
        raise NodeError(
            f"the nodes do not agree on block {block.number}, which was read as {block.hash}, and the logs of "
            f"blocks {first} to {last}: {'; '.join(map(str, said))}. Nothing was closed: find out who is wrong "
            "and take its URL away"
        )


def _count(node: Rpc, addresses: Sequence[Address], topics: Sequence[str], first: int, last: int) -> int:
    """Return how many logs a node says there are, asked for in ranges that shrink where it refuses."""
    at, width, total = first, WIDEST, 0
    while at <= last:
        end = min(at + width - 1, last)
        try:
            total += len(node.logs(addresses, at, end, topics))
        except (RpcAnswerError, RpcTimeoutError):
            if end == at:
                raise
            width = (end - at + 1) // 2
            continue
        at, width = end + 1, min(width + width // 4 + 1, WIDEST)
    return total
