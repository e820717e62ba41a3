"""What the chain itself says of every epoch: all events in order, held against the contracts' own storage.

For whoever checks an operator: nothing here comes from a ledger, and a node that hides or invents an event is
found out by the balances that the events carry, or by the contracts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from chain.continuity import Last, follow, standing
from chain.contracts import call, call_each
from chain.deployment import Deployment
from chain.epoch import Facts
from chain.errors import MissingLogError, NodeError
from chain.events import (
    Activated,
    Challenged,
    Event,
    Funded,
    Posted,
    Staked,
    UnstakeCancelled,
    UnstakeRequested,
    Vetoed,
    topics,
)
from chain.logs import events_of
from chain.ranges import read_ranges
from chain.rpc import Rpc
from chain.stake import Change
from chain.types import BlockRef


def _events(rpc: Rpc, deployment: Deployment, until: int, last: Last) -> Iterator[Event]:
    """Yield all events of both contracts up to a block, in chain order, and take them into `last`.

    Each must follow from those before it by the balances that it carries; if not, a ChainError.
    """
    addresses = [deployment.vault, deployment.distributor]
    for part in read_ranges(rpc, addresses, topics(), deployment.from_block, until):
        try:
            events = events_of(rpc, part, addresses)
        except MissingLogError as error:
            raise NodeError(str(error)) from error
        for event in events:
            follow(last, event)
            yield event


@dataclass(frozen=True, slots=True)
class Record:
    """All that a stranger reads from the chain, in order."""

    stakes: tuple[tuple[int, Change], ...]
    """(block, change)"""
    fundings: tuple[Funded, ...]
    posted: Mapping[int, Posted]
    """The report of each epoch that was not rejected."""
    active: frozenset[int]
    """Epochs whose root pays, or paid until the next."""


def read_record(rpc: Rpc, deployment: Deployment) -> Record:
    """Read both contracts' events up to the latest block.

    NodeError or ChainError where the node hides or invents one.
    """
    stakes, fundings = [], []
    posted: dict[int, Posted] = {}
    active: set[int] = set()
    head = rpc.block("latest")
    last = Last()
    for event in _events(rpc, deployment, head.number, last):
        match event:
            case Staked() | UnstakeRequested() | UnstakeCancelled():
                stakes.append((event.block, Change(event.account, event.staked, event.timestamp)))
            case Funded():
                fundings.append(event)
            case Posted():
                posted[event.epoch] = event
            case Vetoed() | Challenged():
                posted.pop(event.epoch, None)
            case Activated():
                active.add(event.epoch)
            case _:
                pass
    distributor = deployment.revenue_distributor()
    for name, mine in standing(last).items():
        said = call(rpc, distributor, name, block=head)
        if said != mine:
            raise NodeError(
                f"the distributor's `{name}` is {said}, and by its events {mine}: the node hides or invents some; use "
                "another one"
            )
    return Record(tuple(stakes), tuple(fundings), posted, frozenset(active))


def facts_of(
    rpc: Rpc, deployment: Deployment, record: Record, epoch: int, after: int, snapshot: BlockRef
) -> Facts:
    """Return stake and revenue of an epoch by events, held against the contracts' own at its snapshot block.

    Revenue counts from the block after `after`, the snapshot of the epoch before.
    """
    end = deployment.epoch_end(epoch)
    start = end - deployment.epoch_length
    changes = [c for block, c in record.stakes if block <= snapshot.number]
    income = [e for e in record.fundings if e.block <= snapshot.number]
    found, accounts = Facts.of(changes, (e for e in income if e.block > after), start, end)
    ends = found.stake_end
    vault, distributor = deployment.stake_vault(), deployment.revenue_distributor()
    stored = call_each(rpc, vault, "stakeSecondsOf", [(a, end) for a in ends], block=snapshot)
    for account, seconds in zip(ends, stored, strict=True):
        _same(epoch, f"stake-seconds of {account}", ends[account], seconds)
    staked = call(rpc, vault, "totalStaked", block=snapshot)
    _same(epoch, "the stake of all accounts", sum(s.staked for s in accounts.values()), staked)
    revenue = call(rpc, distributor, "funded", block=snapshot)
    _same(epoch, "all revenue so far", sum(e.amount for e in income), revenue)
    return found


def _same(epoch: int, what: str, found: int, stored: int) -> None:
    if found != stored:
        raise NodeError(
            f"epoch {epoch}: {what} is {found} by events, {stored} in the contract: the node hides or "
            "invents some; use another one"
        )
