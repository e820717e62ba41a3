"""The blocks that are not final yet, as one node sees them: shown as such, and never money.

Each block's parent must be the block before; what a reorg takes out is told as `Orphaned`, what comes in as
`Appended`. Logs are asked for by the block's hash, and only where its bloom may name the contracts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from chain.bloom import may_hold
from chain.deployment import Deployment
from chain.errors import ReorgError, RpcError
from chain.events import Event, Staked, UnstakeCancelled, UnstakeRequested, decode, topics
from chain.rpc import Rpc
from chain.types import Address, BlockRef, Wei

CHUNK = 100
"""Headers asked for at once."""


@dataclass(frozen=True, slots=True)
class Appended:
    """A block came in, with these events of ours."""

    block: BlockRef
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Orphaned:
    """A block is not on the chain any more; what happened in it did not happen."""

    block: BlockRef
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Final:
    """A block is final: the ledger has its events from now on."""

    block: BlockRef


Change: TypeAlias = Appended | Orphaned | Final


@dataclass(slots=True)
class Head:
    """The blocks above the finalized one."""

    rpc: Rpc
    deployment: Deployment
    blocks: list[Appended] = field(default_factory=list)
    """Oldest first, each the parent of the next."""
    finalized: BlockRef | None = None

    def staked(self) -> dict[Address, Wei]:
        """Return the stake of every account whose stake changed in a block that is not final."""
        kinds = Staked | UnstakeRequested | UnstakeCancelled
        return {e.account: e.staked for seen in self.blocks for e in seen.events if isinstance(e, kinds)}

    def follow(self) -> list[Change]:
        """Look once, and return what changed since the last look, in order; what is known is kept where it raises.

        An RpcError where the node lags or changes its mind while it is asked; a ReorgError where what was final is not.
        """
        head, finalized = self.rpc.blocks(["latest", "finalized"])
        known = self.finalized
        if known is not None and finalized.number < known.number:
            raise RpcError(
                f"{self.rpc.name} lags: block {known.number} was final already; wait or use another node"
            )
        if known is not None and finalized.number == known.number and finalized.hash != known.hash:
            raise ReorgError(
                f"block {known.number} was final with hash {known.hash} and is now {finalized.hash}: compare with "
                "another node"
            )
        orphaned = self._orphaned(head)
        alive = self.blocks[: len(self.blocks) - len(orphaned)]
        kept = [seen for seen in alive if seen.block.number > finalized.number]
        fresh = list(self._fresh(kept[-1].block if kept else finalized, head))
        changes: list[Change] = [Orphaned(seen.block, seen.events) for seen in reversed(orphaned)]
        changes += [Final(seen.block) for seen in alive[: len(alive) - len(kept)]]
        self.blocks, self.finalized = kept + fresh, finalized
        return changes + fresh

    def _orphaned(self, head: BlockRef) -> list[Appended]:
        """Return the blocks at the end that are not on the node's chain any more."""
        good, step = len(self.blocks), 1
        while good:
            some = self.blocks[max(0, good - step) : good]
            there = [seen.block.number for seen in some if seen.block.number <= head.number]
            hashes = {block.hash for block in self.rpc.blocks(there)}
            alive = [place for place, seen in enumerate(some) if seen.block.hash in hashes]
            good += (alive[-1] + 1 if alive else 0) - len(some)
            if alive:
                break
            step = CHUNK
        return self.blocks[good:]

    def _fresh(self, after: BlockRef, head: BlockRef) -> Iterator[Appended]:
        """Yield the blocks after one that is on the chain, up to the head."""
        last = after
        addresses = [self.deployment.vault, self.deployment.distributor]
        for start in range(after.number + 1, head.number + 1, CHUNK):
            found = self.rpc.headers(range(start, min(start + CHUNK, head.number + 1)))
            for parent, child in pairwise([last, *(block for block, _ in found)]):
                if child.parent_hash != parent.hash:
                    raise RpcError(
                        f"{self.rpc.name}: block {child.number} does not follow from block {parent.number}: the chain "
                        "changed meanwhile; look again"
                    )
            for block, bloom in found:
                maybe = bloom is None or may_hold(bloom, addresses, topics())
                logs = self.rpc.logs_of_block(block, addresses, topics()) if maybe else []
                logs.sort(key=lambda log: log.index)
                yield Appended(block, tuple(decode(log, block.timestamp) for log in logs))
            last = found[-1][0]
