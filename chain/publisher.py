"""Brings an epoch's report on the chain and through its window: post, activate; each once per epoch."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

from sqlmodel import Session

from chain.contracts import call
from chain.deployment import Deployment
from chain.errors import ChainError, RpcError
from chain.events import Activated, Challenged, Posted, Rejected, ReportEvent, Vetoed, decode, topics
from chain.ledger import EpochReport
from chain.outbox import TransactionKey
from chain.ranges import read_ranges
from chain.rpc import Rpc
from chain.signer import Payer
from chain.step import Outcome, Step, about
from chain.types import Epoch, Hash32, Wei


@dataclass(frozen=True, slots=True)
class Report:
    """What is posted, in the order of the contract's struct."""

    epoch: Epoch
    root: Hash32
    sum: Wei
    depth: int
    data_hash: Hash32
    ledger_root: Hash32
    rules_hash: Hash32
    snapshot_block: int
    snapshot_hash: Hash32


@dataclass(frozen=True, slots=True)
class ChainState:
    """Where the distributor stands."""

    next_epoch: int
    """The number of epochs activated so far."""
    active_commitment: Hash32
    """keccak256 of the active root and its sum; zero where there is none."""
    pending_epoch: int | None
    pending_root: Hash32
    active_at: int
    """When the pending root can be activated, Unix seconds; 0 when none is."""
    time: int
    """Of the block at which all this was read."""


def chain_state(rpc: Rpc, deployment: Deployment, not_before: int = 0) -> ChainState:
    """Read the distributor at one block, the latest; an RpcError where that is before `not_before`."""
    head = rpc.block("latest")
    if head.number < not_before:
        raise RpcError(
            f"{rpc.name} lags: it is at block {head.number}, not yet at {not_before}; run this again"
        )
    distributor = deployment.revenue_distributor()
    next_epoch, _, _ = call(rpc, distributor, "active", block=head)
    active = call(rpc, distributor, "activeCommitment", block=head)
    epoch, root, _, _, active_at = call(rpc, distributor, "pending", block=head)
    return ChainState(next_epoch, active, epoch if active_at else None, root, active_at, head.timestamp)


def report_of(row: EpochReport) -> Report:
    """Return what is posted of a stored report."""
    return Report(
        Epoch(row.epoch),
        Hash32(row.root),
        Wei(row.sum),
        row.depth,
        Hash32(row.data_hash),
        Hash32(row.ledger_root),
        Hash32(row.rules_hash),
        row.snapshot_block,
        Hash32(row.snapshot_hash),
    )


def publish(
    rpc: Rpc,
    session: Session,
    deployment: Deployment,
    account: Payer,
    report: Report,
    *,
    again: bool = False,
    dry_run: bool = False,
    timeout_s: float = 120.0,
) -> Outcome:
    """Post a report, unless the chain has it, and wait until it is in a block; commits `session`.

    A ChainError where the chain has another report for the epoch, or it was vetoed or challenged; with `again`
    what was rejected is posted once more, and its window starts anew.
    """
    rejections = sum(isinstance(e, Rejected) for e in history(rpc, deployment, report))
    data = deployment.revenue_distributor().encode("post", astuple(report))
    key = TransactionKey("post", report.epoch, about(data + (bytes([rejections]) if again else b"")))
    step = Step(rpc, session, deployment.distributor, account, key, data, dry_run, timeout_s)
    what = f"post epoch {report.epoch}: root {report.root}"
    done, _ = step.resume()
    past = history(rpc, deployment, report)
    posted = [e for e in past if isinstance(e, Posted)]
    if past and not isinstance(past[-1], Rejected):
        if difference := _difference(posted[-1], report):
            raise ChainError(
                f"epoch {report.epoch} is on the chain with {difference}: "
                "nothing was sent; run `haptic verify` to see which is right"
            )
        return Outcome(what, done=True)
    if not again and (done or any(not _difference(e, report) for e in posted)):
        raise ChainError(
            f"epoch {report.epoch} with root {report.root} was posted and rejected: find out why; then post it "
            f"with `haptic epoch post --epoch {report.epoch} --again`, or compute it anew after "
            f"`haptic epoch reopen --epoch {report.epoch}`"
        )
    return step.take(what)


def activate(
    rpc: Rpc,
    session: Session,
    deployment: Deployment,
    account: Payer,
    epoch: int,
    *,
    dry_run: bool = False,
    timeout_s: float = 120.0,
) -> Outcome:
    """Let the pending root of `epoch` pay, unless it does; commits `session`.

    A ChainError where no root of that epoch waits, a RevertError while its window is open.
    """
    data = deployment.revenue_distributor().encode("activate")
    key = TransactionKey("activate", epoch, about(data))
    step = Step(rpc, session, deployment.distributor, account, key, data, dry_run, timeout_s)
    state = chain_state(rpc, deployment, step.resume()[1])
    if state.next_epoch > epoch:
        return Outcome(f"activate epoch {epoch}", done=True)
    _must_be_pending(state, epoch)
    return step.take(f"activate epoch {epoch}: root {state.pending_root}")


def history(rpc: Rpc, deployment: Deployment, report: Report) -> list[ReportEvent]:
    """Return what happened on the chain to reports of this epoch, in order; all of it after the snapshot."""
    head = rpc.block("latest").number
    wanted = topics(Posted, Activated, Vetoed, Challenged)
    found = read_ranges(rpc, [deployment.distributor], wanted, report.snapshot_block, head)
    logs = sorted((log for part in found for log in part.logs), key=lambda log: (log.block, log.index))
    events = [decode(log, 0) for log in logs]
    return [e for e in events if isinstance(e, ReportEvent) and e.epoch == report.epoch]


def _difference(posted: Posted, report: Report) -> str:
    """Return the first field in which a posted report is another, in words; an equal root may hide it."""
    for field in fields(Report):
        there, ours = getattr(posted, field.name), getattr(report, field.name)
        if there != ours:
            return f"{field.name} {there}, but here it comes to {ours}"
    return ""


def _must_be_pending(state: ChainState, epoch: int) -> None:
    if state.pending_epoch != epoch:
        waits = "nothing" if state.pending_epoch is None else f"epoch {state.pending_epoch}"
        raise ChainError(
            f"no root of epoch {epoch} is pending: {waits} is; the next epoch is {state.next_epoch}"
        )
