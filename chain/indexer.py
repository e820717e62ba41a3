"""Copies the contracts' events into the ledger, finalized blocks only, and checks them against the chain."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from sqlmodel import Session

from chain import ledger
from chain.bloom import may_hold
from chain.continuity import Last, standing
from chain.contracts import Contract, call, call_each
from chain.deployment import Deployment
from chain.errors import (
    ChainError,
    DeploymentError,
    HapticError,
    MissingLogError,
    ReorgError,
    StakeMismatchError,
)
from chain.events import Event, topics
from chain.logs import events_of
from chain.ranges import Range, read_ranges
from chain.rpc import Rpc
from chain.stake import StakeAccount, stake_seconds
from chain.transport import RpcAnswerError
from chain.types import Address, BlockRef

FEW_BLOCKS = 100
"""A range of no more blocks that came without a log is compared with their headers."""
MOST_ACCOUNTS = 100_000
"""Balances kept in memory from one range to the next; beyond, they are read again: memory stays flat."""
SOME_EVENTS = 100_000
"""So often balances are written by account while much is read; after a crash these are the most that are gone through."""


_logger = logging.getLogger(__name__)


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

    Each range's events and the checkpoint are one transaction; `progress` gets (indexed, finalized) after it. At the
    end the contracts' own totals are compared. A node whose events do not follow from each other, or do not add up to
    what the contracts hold, is not asked again while there is another: what it gave is taken back and read anew.

    A ReorgError where a block that was final has changed, a MissingLogError where the last node hides a log.
    """
    while True:
        read_from: set[str] = set()
        try:
            return _index(rpc, session_factory, deployment, progress, read_from)
        except ReorgError as error:
            if not error.source:
                return _index_alone(rpc, session_factory, deployment, progress)
            if not rpc.distrust(str(error), error.source):
                raise
        except MissingLogError as error:
            agreed = _take_back(session_factory)
            if len(read_from) > 1:
                # Several gave a part each, and which of them lied does not show: each has to give all of it.
                return _index_alone(rpc, session_factory, deployment, progress)
            if not rpc.distrust(str(error), next(iter(read_from), None)):
                raise _lasting(error, agreed) from error


def _take_back(session_factory: Callable[[], Session]) -> int | None:
    with session_factory() as session:
        agreed = ledger.take_back(session)
        session.commit()
    return agreed


def _lasting(error: MissingLogError, agreed: int | None) -> MissingLogError:
    """Return what is said when no node is left: the hole may be older than what was taken back."""
    if agreed is None:
        return error
    return type(error)(
        f"{error}. What was indexed after block {agreed} was taken back, and what is older was kept, since the contracts "
        "agreed with it then; if nodes that you trust still say the same, read all of it again: `haptic index --anew`"
    )


def _index_alone(
    rpc: Rpc,
    session_factory: Callable[[], Session],
    deployment: Deployment,
    progress: Callable[[int, int], None] | None,
) -> IndexResult:
    """Index from one node after the other, until what one of them gives agrees with the contracts."""
    said: HapticError | None = None
    for alone in rpc.each():
        try:
            return _index(alone, session_factory, deployment, progress, set())
        except MissingLogError as error:
            said = _lasting(error, _take_back(session_factory))
            rpc.distrust(str(error), alone.name)
        except ReorgError as error:
            said = error
        except ChainError as error:
            said = said or error
    raise said or ChainError(f"{rpc.name}: no node is left that may be believed")


def _index(
    rpc: Rpc,
    session_factory: Callable[[], Session],
    deployment: Deployment,
    progress: Callable[[int, int], None] | None,
    read_from: set[str],
) -> IndexResult:
    """Index once, from whatever node answers; `read_from` gets the names of those that gave logs."""
    chain_id = rpc.chain_id()
    if chain_id != deployment.chain_id:
        raise DeploymentError(
            f"{rpc.name} is chain {chain_id}, the deployment is on chain {deployment.chain_id}"
        )
    head, finalized = rpc.blocks(["latest", "finalized"])
    with session_factory() as session:
        known = ledger.checkpoint(session, deployment)
        at = None if known is None else (known.number, known.hash)
        last = ledger.last_of(session)
        before = None if at is None else at[0]
        ledger.check_place(session, before)
    _unchanged(rpc, at, head)
    indexed, total = deployment.from_block - 1 if at is None else at[0], 0
    addresses = [deployment.vault, deployment.distributor]
    since = 0
    with ThreadPoolExecutor(1, "write") as writer:
        writing: Future[None] | None = None
        for found in read_ranges(rpc, addresses, topics(), indexed + 1, finalized.number):
            read_from.add(found.source)
            events = _checked(rpc, addresses, found, None if at is None else at[1])
            end = found.last
            if end.number == finalized.number and end.hash != finalized.hash:
                raise _reorg(end.number, finalized.hash, end.hash)
            if ledger.unknown_accounts(events, last):
                with session_factory() as session:
                    ledger.load_balances(session, events, last)
                    # The range before this one may still be on its way into the database.
                    ledger.check_place(session, before, None if at is None else at[0])
            rows = ledger.take(events, last)
            _done(writing)
            if progress is not None and at is not None:
                progress(at[0], finalized.number)
            before, at = None if at is None else at[0], (end.number, end.hash)
            total, since = total + len(events), since + len(events)
            balances = since > SOME_EVENTS or end.number == finalized.number
            # What is written must not change meanwhile.
            now = Last(totals=replace(last.totals))
            if balances:
                now.stakes, now.claimed, now.changed, since = (
                    last.stakes.copy(),
                    last.claimed.copy(),
                    last.changed,
                    0,
                )
                last.changed = set()
            writing = writer.submit(
                _write, session_factory, deployment, rows, before, end, now, balances=balances
            )
            if balances and len(last.stakes) > MOST_ACCOUNTS:
                _done(writing)
                last.stakes.clear()
                last.claimed.clear()
        _done(writing)
    if progress is not None and at is not None:
        progress(at[0], finalized.number)
    if at is not None and at == (finalized.number, finalized.hash):
        _verify(rpc, session_factory, deployment, finalized, last)
    return IndexResult(head.number, finalized.number, indexed if at is None else at[0], total)


def _write(
    session_factory: Callable[[], Session],
    deployment: Deployment,
    rows: ledger.EventRows,
    before: int | None,
    end: BlockRef,
    last: Last,
    *,
    balances: bool,
) -> None:
    """Write a range and the checkpoint behind it in one transaction, while the next range is read."""
    with session_factory() as session:
        # The checkpoint first: if another indexer was here, that is said, and not that a row is there already.
        ledger.advance(session, deployment, before, end, last, balances=balances)
        ledger.store(session, rows)
        session.commit()


def _done(writing: Future[None] | None) -> None:
    """Wait until what is being written is; raise what went wrong."""
    if writing is not None:
        writing.result()


def _verify(
    rpc: Rpc, session_factory: Callable[[], Session], deployment: Deployment, block: BlockRef, last: Last
) -> None:
    """Compare what all events came to with what the contracts hold at `block`, and note that they agree."""
    vault, distributor, totals = deployment.stake_vault(), deployment.revenue_distributor(), last.totals
    token = Contract("DevnetDollar", deployment.payment_token)
    wanted: list[tuple[str, Contract, str, tuple[Any, ...], object]] = [
        ("the stake of all accounts together", vault, "totalStaked", (), totals.staked),
        ("what all accounts together asked back", vault, "totalPending", (), totals.pending),
        (
            f"the stake-seconds of all accounts at {block.timestamp}", vault, "totalStakeSeconds", (block.timestamp,),
            totals.stake_seconds_at(block.timestamp),
        ),
        ("all revenue", distributor, "funded", (), last.funded),
        *((f"`{name}`", distributor, name, (), mine) for name, mine in standing(last).items()),
    ]  # fmt: skip
    calls = [(contract.address, contract.encode(name, *args)) for _, contract, name, args, _ in wanted]
    calls.append((token.address, token.encode("balanceOf", deployment.distributor)))
    try:
        answers = rpc.calls(calls, block)
    except RpcAnswerError as error:
        # A node that keeps no state that old; what was indexed is compared at the next block that it has.
        _logger.warning("the contracts' totals at block %s cannot be read: %s", block.number, error)
        return
    for (what, contract, name, _, mine), data in zip(wanted, answers, strict=False):
        _equal(block, what, mine, contract.decode(name, data))
    held = token.decode("balanceOf", answers[-1])
    with session_factory() as session:
        known = ledger.checkpoint(session, which=ledger.VERIFIED)
        if known is not None and known.number > block.number:
            return  # another indexer is further already
        surplus = _surplus(
            block, last.funded - totals.claimed, held, 0 if known is None else known.surplus or 0
        )
        ledger.verified(session, block.number, surplus)
        session.commit()


def _surplus(block: BlockRef, owed: int, held: int, before: int) -> int:
    """Return what the distributor holds beyond revenue less claims; less than `before` is a claim that was hidden.

    Anybody may send it tokens, which `claimedTotal` takes for claims that were not made; nothing takes them out again.
    """
    if held < owed + before:
        raise MissingLogError(
            f"at block {block.number}, the distributor holds {held}; by the indexed events it is {owed} of revenue that "
            f"nobody claimed, and {before} that somebody sent: the node hides a claim, so use another one"
        )
    return held - owed


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
        changed = _reorg(at[0], at[1], found.hash)
        changed.source = rpc.source
        raise changed


def _checked(rpc: Rpc, addresses: Sequence[Address], found: Range, parent: str | None) -> list[Event]:
    """Return the events of a range, in order; `parent` is the hash it must build on."""
    if parent is not None and found.first.parent_hash != parent:
        changed = _reorg(found.first.number - 1, parent, found.first.parent_hash)
        changed.source = found.source
        raise changed
    events = events_of(rpc, found, addresses)
    if not found.logs and found.last.number - found.first.number < FEW_BLOCKS:
        _check_empty(rpc, found, addresses)
    return events


def _check_empty(rpc: Rpc, found: Range, addresses: Sequence[Address]) -> None:
    """Compare an answer without logs with the headers; a block whose bloom may name us is asked about by itself.

    Whole ranges of a long backfill are not gone through like this: the contracts' totals tell what is missing there.
    """
    wanted = range(found.first.number, found.last.number + 1)
    for block, bloom in rpc.headers(wanted):
        if (
            bloom is not None
            and may_hold(bloom, addresses, topics())
            and rpc.logs_of_block(block, addresses, topics())
        ):
            raise MissingLogError(f"{rpc.name} left out the logs of block {block.number}: use another node")


def _reorg(number: int, before: str, now: str) -> ReorgError:
    return ReorgError(
        f"block {number} was final with hash {before} and is now {now}: nothing was written. Compare with "
        "another node: if this one is wrong, use the other; if the chain itself changed, stop and index anew"
    )


def _equal(block: BlockRef, what: str, folded: object, stored: object) -> None:
    if folded != stored:
        raise StakeMismatchError(
            f"at block {block.number}, {what} is {folded} by the indexed events and {stored} in the contracts: "
            "the node hides an event or invents one; use another"
        )
