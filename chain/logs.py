"""The logs of a range as one node gave them: each was asked for, stands there once, and is one of our events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from chain.errors import ChainError, MissingLogError, RpcError
from chain.events import Event, decode
from chain.ranges import Range
from chain.rpc import Rpc
from chain.types import Address
from chain.wire import Log


def asked_for(found: Range, addresses: Sequence[Address]) -> list[Log]:
    """Return the logs of a range in the chain's order.

    A MissingLogError where one was not asked for, comes twice, or is of another block than the headers beside it.
    """
    first, last = found.first, found.last
    ends = {first.number: first.hash, last.number: last.hash}
    logs, places = found.logs, [(log.block, log.index) for log in found.logs]
    if any(place >= following for place, following in pairwise(places)):
        logs = sorted(logs, key=lambda log: (log.block, log.index))
        places.sort()
    before = (-1, -1)
    for at, log in zip(places, logs, strict=True):
        wanted = first.number <= at[0] <= last.number and log.address.lower() in addresses
        if not wanted or log.removed or at <= before:
            raise MissingLogError(
                f"{found.source} sent a log of {log.address} that was not asked for (block {at[0]}, log {at[1]})"
            )
        if at[0] in ends and ends[at[0]] != log.block_hash:
            raise _torn(found.source, at[0], log.block_hash, ends[at[0]])
        before = at
    return logs


def events_of(rpc: Rpc, found: Range, addresses: Sequence[Address]) -> list[Event]:
    """Return the events of a range in the chain's order; a MissingLogError names the node whose logs are none of ours."""
    try:
        logs = asked_for(found, addresses)
        times = _times(rpc, found.source, logs)
        return [decode(log, times[log.block_number]) for log in logs]
    except (MissingLogError, RpcError):
        raise
    except (ChainError, ValueError) as error:
        raise MissingLogError(f"{found.source} sent what is no log of ours: {error}") from error


def _times(rpc: Rpc, source: str, logs: Sequence[Log]) -> dict[str, int]:
    """Return the timestamp of each block with logs, by its number in hex: from the logs, where the node says it there."""
    times: dict[str, int] = {}
    hashes: dict[int, Log] = {}
    for log in logs:
        if log.block_number not in times:
            if log.block_timestamp is None:
                hashes[log.block] = log
            else:
                times[log.block_number] = int(log.block_timestamp, 16)
    for block in rpc.blocks(sorted(hashes)):
        log = hashes[block.number]
        if block.hash != log.block_hash:
            raise _torn(source, block.number, log.block_hash, block.hash)
        times[log.block_number] = block.timestamp
    return times


def _torn(source: str, number: int, log: str, header: str) -> MissingLogError:
    return MissingLogError(
        f"{source} sent a log of block {number} with hash {log}, and the block's header with hash {header}: "
        "it contradicts itself, or the chain changed meanwhile. Ask again, or use another node"
    )
