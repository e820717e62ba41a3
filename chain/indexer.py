"""Copies the contracts' events into the ledger, finalized blocks only, and checks them against the chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from chain import ledger
from chain.contracts import call, call_each
from chain.deployment import Deployment
from chain.errors import ChainError, DeploymentError, ReorgError, StakeMismatchError
from chain.events import Event, decode, topics
from chain.rpc import Rpc
from chain.stake import StakeAccount, fold, stake_seconds
from chain.transport import RpcAnswerError
from chain.types import Address, BlockRef
from chain.wire import Log

WIDEST = 10_000
"""Most blocks asked for at once; what many providers allow."""
MOST_LOGS = 20_000
"""When an answer holds more logs, the next range is narrower: memory stays flat."""


@dataclass(frozen=True, slots=True)
class IndexResult:
    """How far an indexing run came."""

    head: int
    """The node's latest block."""
    finalized: int
    """The node's latest finalized block."""
    indexed_to: int
    """The last block in the ledger, or one before the deployment's first if none is."""
    events: int
    """Events that this run stored."""


def index(
    rpc: Rpc,
    session_factory: Callable[[], Session],
    deployment: Deployment,
    progress: Callable[[int, int], None] | None = None,
) -> IndexResult:
    """Bring the ledger up to the finalized block; can be killed anywhere and run again.

    Each range's events and the checkpoint are one transaction; `progress` gets (indexed, finalized) after it.
    A ReorgError where a block that was final has changed; a ChainError where a log is missing.
    """
    chain_id = rpc.chain_id()
    if chain_id != deployment.chain_id:
        raise DeploymentError(
            f"{rpc.name} is chain {chain_id}, the deployment is on chain {deployment.chain_id}"
        )
    head, finalized = rpc.blocks(["latest", "finalized"])
    with session_factory() as session:
        known = ledger.checkpoint(session, deployment)
        at = None if known is None else (known.number, known.hash)
    _unchanged(rpc, at, head)
    total, width = 0, WIDEST
    indexed = deployment.from_block - 1 if at is None else at[0]
    while indexed < finalized.number:
        end = min(indexed + width, finalized.number)
        try:
            events, last = _events(rpc, deployment, indexed + 1, end, None if at is None else at[1])
        except RpcAnswerError:
            # Providers word "too many results" in many ways; a narrower range cures all of them.
            if end == indexed + 1:
                raise
            width = max((end - indexed) // 2, 1)
            continue
        if end == finalized.number and last.hash != finalized.hash:
            raise _reorg(end, finalized.hash, last.hash)
        with session_factory() as session:
            # The checkpoint first: if another indexer was here, that is said, and not that a log is missing.
            ledger.advance(session, deployment, None if at is None else at[0], last)
            ledger.add_events(session, events)
            session.commit()
        at, indexed, total = (last.number, last.hash), end, total + len(events)
        width = _next_width(width, len(events))
        if progress is not None:
            progress(indexed, finalized.number)
    return IndexResult(head.number, finalized.number, indexed, total)


def stake_at(session: Session, block: int) -> dict[Address, StakeAccount]:
    """Return every account's stake as folded from the events up to and with `block`."""
    changes = ledger.stake_changes(session, block)
    return fold(changes, changes[-1].timestamp if changes else 0)


def check_stake(
    rpc: Rpc, deployment: Deployment, folded: Mapping[Address, StakeAccount], block: BlockRef, at: int
) -> None:
    """Compare folded stake with the vault's own storage at `block`: balances, their total, stake-seconds.

    Stake-seconds are read at the time `at`, which is not before the block's. A StakeMismatchError names the
    account, what was folded and what the vault holds.
    """
    vault = deployment.stake_vault()
    accounts = sorted(folded)
    stakes = call_each(rpc, vault, "stakedOf", [(a,) for a in accounts], block=block)
    seconds = call_each(rpc, vault, "stakeSecondsOf", [(a, at) for a in accounts], block=block)
    for account, staked, integral in zip(accounts, stakes, seconds, strict=True):
        mine = folded[account]
        _equal(block, f"the stake of {account}", mine.staked, staked)
        _equal(block, f"the stake-seconds of {account} at {at}", stake_seconds(mine, at), integral)
    total = sum(account.staked for account in folded.values())
    _equal(block, "the stake of all accounts together", total, call(rpc, vault, "totalStaked", block=block))


def snapshot_block(rpc: Rpc, epoch_end: int) -> BlockRef | None:
    """Return the last block before `epoch_end` (Unix seconds), or None while that may still change.

    It is settled once a finalized block has a timestamp of `epoch_end` or later (SPEC 1).
    """
    after = rpc.block("finalized")
    if after.timestamp < epoch_end:
        return None
    before = rpc.block(0)
    if before.timestamp >= epoch_end:
        raise ChainError(
            f"chain {rpc.chain_id()} has no block before {epoch_end}: the epoch ended before it began"
        )
    while after.number - before.number > 1:
        middle = rpc.block((before.number + after.number) // 2)
        if middle.timestamp < epoch_end:
            before = middle
        else:
            after = middle
    return before


def _unchanged(rpc: Rpc, at: tuple[int, str] | None, head: BlockRef) -> None:
    """Check that the checkpoint is still on the chain; a node that lags behind it is no reorg."""
    if at is None or head.number < at[0]:
        return
    found = rpc.block(at[0])
    if found.hash != at[1]:
        raise _reorg(at[0], at[1], found.hash)


def _events(
    rpc: Rpc, deployment: Deployment, start: int, end: int, parent: str | None
) -> tuple[list[Event], BlockRef]:
    """Return the events of a range, in order, and its last block; `parent` is the hash it must build on."""
    addresses = [deployment.vault, deployment.distributor]
    logs, first, last = rpc.logs_between(addresses, start, end, topics())
    if parent is not None and first.parent_hash != parent:
        raise _reorg(start - 1, parent, first.parent_hash)
    logs.sort(key=lambda log: (log.block, log.index))
    _check_logs(rpc, logs, addresses, first, last)
    times = _times(rpc, logs)
    return [decode(log, times[log.block]) for log in logs], last


def _check_logs(
    rpc: Rpc, logs: Sequence[Log], addresses: Sequence[Address], first: BlockRef, last: BlockRef
) -> None:
    """Refuse logs that were not asked for, come twice, or are of other blocks than the headers."""
    ends = {first.number: first.hash, last.number: last.hash}
    before = (-1, -1)
    for log in logs:
        at = (log.block, log.index)
        wanted = first.number <= log.block <= last.number and log.address.lower() in addresses
        if not wanted or log.removed or at <= before:
            raise ChainError(f"{rpc.name} sent a log that was not asked for (block {at[0]}, log {at[1]})")
        if ends.get(log.block, log.block_hash) != log.block_hash:
            raise _reorg(log.block, ends[log.block], log.block_hash)
        before = at


def _times(rpc: Rpc, logs: Sequence[Log]) -> dict[int, int]:
    """Return the timestamp of each block with logs: from the logs if the node puts it there, else headers."""
    times = {log.block: int(log.block_timestamp, 16) for log in logs if log.block_timestamp is not None}
    hashes = {log.block: log.block_hash for log in logs if log.block not in times}
    for block in rpc.blocks(sorted(hashes)):
        if block.hash != hashes[block.number]:
            raise _reorg(block.number, hashes[block.number], block.hash)
        times[block.number] = block.timestamp
    return times


def _next_width(width: int, found: int) -> int:
    if found > MOST_LOGS:
        return max(width * MOST_LOGS // found, 1)
    return min(width + width // 4 + 1, WIDEST)


def _reorg(number: int, before: str, now: str) -> ReorgError:
    return ReorgError(
        f"block {number} was final with hash {before} and is now {now}: nothing was written. Compare with "
        "another node: if this one is wrong, use the other; if the chain itself changed, stop and index anew"
    )


def _equal(block: BlockRef, what: str, folded: int, vault: int) -> None:
    if folded != vault:
        raise StakeMismatchError(
            f"at block {block.number}, {what} is {folded} by the indexed events and {vault} in the vault: "
            "an event is missing or false; use another node and index again from an empty database"
        )
