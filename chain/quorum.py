"""Before money moves, several nodes must say by themselves what is stored here: the hash of a block, and all events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from sqlmodel import Session

from chain import ledger
from chain.deployment import Deployment
from chain.errors import MissingLogError, NodeError, QuorumError, RpcError
from chain.events import Event, topics
from chain.logs import events_of
from chain.ranges import read_ranges
from chain.rpc import Rpc
from chain.types import BlockRef, Hash32


class Said(NamedTuple):
    """What one node says of a range of blocks."""

    node: str
    hash: Hash32
    """Of the block that money is computed at."""
    settled: bool
    """The block is the last before the epoch's end, and that cannot change any more."""
    events: int
    difference: str
    """The first event that is not as it is stored, in words; empty where all are."""

    def __str__(self) -> str:
        doubt = "" if self.settled else ", which is not, or not yet for good, the last before the end"
        return f"{self.node}: block {self.hash}{doubt}, {self.events} events, {self.difference or 'as they are stored'}"


def agree(
    rpc: Rpc,
    session: Session,
    deployment: Deployment,
    first: int,
    block: BlockRef,
    wanted: int,
    end: int,
) -> None:
    """Ask `wanted` nodes, each by itself, for the hash of `block` and the events from block `first` up to it.

    Every event must be the one that is stored, and each node must hold `block` for the last before `end` (Unix seconds)
    and have a final one after it.

    A NodeError names who says what, and the first event that differs, where they do not; a QuorumError says who
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
            said.append(
                Said(node.name, here, settled, *_compare(node, session, deployment, first, block.number))
            )
        except RpcError as error:
            silent.append(str(error))
    if len(said) < wanted:
        why = "; ".join(silent) or f"{len(nodes)} can be asked ({', '.join(n.name for n in nodes) or 'none'})"
        raise QuorumError(
            f"{wanted} nodes must agree on block {block.number} before money moves, {len(said)} answered: {why}. "
            "Give HAPTIC_RPC_URL more nodes, or lower HAPTIC_RPC_QUORUM"
        )
    same = all(each.hash == block.hash and not each.difference for each in said)
    if not same or not all(each.settled for each in said):
        raise NodeError(
            f"the nodes do not agree on block {block.number}, read as {block.hash}, and the events of blocks {first} to "
            f"{block.number}, as they are stored here: {'; '.join(map(str, said))}. Nothing was closed: find out who is "
            "wrong. If it is a node, take its URL away; if it is what is stored, `haptic index --anew`"
        )


def _place(node: Rpc, number: int, end: int) -> tuple[Hash32, bool]:
    """Return a block's hash, and whether the node holds it for the last before `end`, for good."""
    here, after, final = node.blocks([number, number + 1, "finalized"])
    return here.hash, here.timestamp < end <= min(after.timestamp, final.timestamp)


def _compare(node: Rpc, session: Session, deployment: Deployment, first: int, last: int) -> tuple[int, str]:
    """Return how many events a node says there are, and the first that is not as it is stored, in words."""
    addresses = [deployment.vault, deployment.distributor]
    count, found = 0, ""
    for part in read_ranges(node, addresses, topics(), first, last):
        try:
            theirs = [ledger.kept(event) for event in events_of(node, part, addresses)]
        except MissingLogError as error:
            return count, found or str(error)
        count += len(theirs)
        found = found or _difference(ledger.events(session, part.first.number, part.last.number), theirs)
    return count, found


def _difference(stored: Sequence[Event], said: Sequence[Event]) -> str:
    """Return in words the first event that the two have not in common; nothing where they are the same."""
    for mine, its in zip_longest(stored, said):
        if mine == its:
            continue
        if its is None or (mine is not None and _at(mine) < _at(its)):
            return f"without {mine}, which is stored"
        if mine is None or _at(its) < _at(mine):
            return f"with {its}, which is not stored"
        return f"with {its}, which is stored as {mine}"
    return ""


def _at(event: Event) -> tuple[int, int]:
    return event.block, event.log_index
