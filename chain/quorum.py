"""Before money moves, several nodes must say the same by themselves: the hash of a block, and the logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chain.errors import NodeError, QuorumError, RpcError
from chain.hashing import keccak256
from chain.ranges import read_ranges
from chain.rpc import Rpc
from chain.types import Address, BlockRef, Hash32


class Said(NamedTuple):
    """What one node says of a range of blocks."""

    node: str
    hash: Hash32
    """Of the block that money is computed at."""
    settled: bool
    """The block is the last before the epoch's end, and that cannot change any more."""
    logs: int
    digest: str
    """keccak256 of what the logs say and where they stand."""

    def __str__(self) -> str:
        doubt = "" if self.settled else ", which is not, or not yet for good, the last before the end"
        return f"{self.node}: block {self.hash}{doubt}, {self.logs} logs ({self.digest[:10]})"


def agree(
    rpc: Rpc,
    addresses: Sequence[Address],
    topics: Sequence[str],
    first: int,
    last: int,
    block: BlockRef,
    wanted: int,
    end: int | None = None,
) -> None:
    """Ask `wanted` nodes, each by itself, for the hash of `block` and the logs from `first` to `last`.

    With `end` (Unix seconds) each must also hold `block` for the last before it, and have a final one after it.

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
            here, settled = _place(node, block.number, end)
            said.append(Said(node.name, here, settled, *_logs(node, addresses, topics, first, last)))
        except RpcError as error:
            silent.append(str(error))
    if len(said) < wanted:
        why = "; ".join(silent) or f"{len(nodes)} can be asked ({', '.join(n.name for n in nodes) or 'none'})"
        raise QuorumError(
            f"{wanted} nodes must agree on block {block.number} before money moves, {len(said)} answered: {why}. "
            "Give HAPTIC_RPC_URL more nodes, or lower HAPTIC_RPC_QUORUM"
        )
    same = len({(each.hash, each.digest) for each in said}) == 1 and said[0].hash == block.hash
    if not same or not all(each.settled for each in said):
        raise NodeError(
            f"the nodes do not agree on block {block.number}, which was read as {block.hash}, and the logs of "
            f"blocks {first} to {last}: {'; '.join(map(str, said))}. Nothing was closed: find out who is wrong "
            "and take its URL away"
        )


def _place(node: Rpc, number: int, end: int | None) -> tuple[Hash32, bool]:
    """Return a block's hash, and whether the node holds it for the last before `end`, for good."""
    if end is None:
        return node.block(number).hash, True
    here, after, final = node.blocks([number, number + 1, "finalized"])
    return here.hash, here.timestamp < end <= min(after.timestamp, final.timestamp)


def _logs(
    node: Rpc, addresses: Sequence[Address], topics: Sequence[str], first: int, last: int
) -> tuple[int, str]:
    """Return how many logs a node says there are, and a hash of them, in ranges that the node takes."""
    count, digest = 0, b""
    for part in read_ranges(node, addresses, topics, first, last):
        for log in sorted(part.logs, key=lambda log: (log.block, log.index)):
            said = f"{log.block} {log.index} {log.address} {' '.join(log.topics)} {log.data}".lower()
            digest, count = keccak256(digest + said.encode()), count + 1
    return count, digest.hex()
