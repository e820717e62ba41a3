"""The only SQL of `chain`: what was indexed, computed and sent; callers commit, nothing here does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, func, insert, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from chain.continuity import Last, follow
from chain.deployment import Deployment
from chain.errors import ChainError, DeploymentError
from chain.events import (
    Activated,
    Challenged,
    Claimed,
    Event,
    Funded,
    Posted,
    ReportEvent,
    StakeEvent,
    UnstakeRequested,
    Vetoed,
    Withdrawn,
)
from chain.ledger.rows import (
    Checkpoint,
    ClaimRow,
    EpochReport,
    FundingRow,
    ReportRow,
    StakeRow,
    TransactionRow,
    Uint,
)
from chain.stake import Change
from chain.types import Address, BlockRef, Epoch, Hash32, Wei

__all__ = [
    "Checkpoint",
    "ClaimRow",
    "EpochReport",
    "FundingRow",
    "ReportRow",
    "StakeRow",
    "TransactionRow",
    "Uint",
    "add_events",
    "add_transaction",
    "advance",
    "checkpoint",
    "claimed_totals",
    "claims",
    "epoch_report",
    "epoch_reports",
    "forget_epoch_reports",
    "fundings",
    "last_balances",
    "open_transactions",
    "reports",
    "save_epoch_report",
    "stake_changes",
    "staked_of",
    "transaction",
    "transaction_of",
]

CHUNK = 500
"""Most values in one IN (...)."""


# -- what was indexed ------------------------------------------------------------------------------


def checkpoint(session: Session, deployment: Deployment | None = None) -> Checkpoint | None:
    """Return the last indexed block; a DeploymentError where this database holds another `deployment`."""
    found = session.get(Checkpoint, 1)
    if found is not None and deployment is not None:
        held = found.chain_id, found.vault, found.distributor
        asked = deployment.chain_id, deployment.vault, deployment.distributor
        if held != asked:
            raise DeploymentError(
                f"this database holds chain {held[0]}, vault {held[1]} and distributor {held[2]}, not "
                f"{asked[0]}, {asked[1]} and {asked[2]}: use another database, or that deployment"
            )
    return found


def advance(session: Session, deployment: Deployment, before: int | None, to: BlockRef) -> None:
    """Move the checkpoint from block `before` (None: none yet) to `to`; a ChainError if it is elsewhere."""
    where = {"number": to.number, "hash": to.hash, "timestamp": to.timestamp}
    if before is None:
        contracts = {"vault": deployment.vault, "distributor": deployment.distributor}
        first = {"id": 1, "chain_id": deployment.chain_id, **contracts, **where}
        try:
            session.connection().execute(insert(Checkpoint), first)
        except IntegrityError:
            raise ChainError(
                "the first range was indexed meanwhile: another indexer runs; stop one of them"
            ) from None
        return
    moved = session.connection().execute(
        update(Checkpoint).where(col(Checkpoint.id) == 1, col(Checkpoint.number) == before).values(**where)
    )
    if moved.rowcount != 1:
        raise ChainError(
            f"the checkpoint is no longer at block {before}: another indexer runs; stop one of them"
        )


def add_events(session: Session, events: Sequence[Event]) -> None:
    """Store events in their order; a ChainError where one does not follow from those before it."""
    last = last_balances(session, events)
    rows: dict[type[SQLModel], list[dict[str, Any]]] = {}
    for event in events:
        follow(last, event)
        if isinstance(event, StakeEvent):
            rows.setdefault(StakeRow, []).append(_stake_row(event, *last.stakes[event.account]))
        elif isinstance(event, Funded):
            rows.setdefault(FundingRow, []).append(asdict(event))
        elif isinstance(event, Claimed):
            rows.setdefault(ClaimRow, []).append(asdict(event))
        else:
            kind = {"kind": type(event).__name__}
            rows.setdefault(ReportRow, []).append(dict.fromkeys(_POSTED + _CHALLENGED) | asdict(event) | kind)
    for table, values in rows.items():
        session.connection().execute(insert(table), values)


def last_balances(session: Session, events: Iterable[Event]) -> Last:
    """Return the balances that `events` must follow from: those of the accounts in them, before them."""
    known = list(events)
    stakers = {e.account for e in known if isinstance(e, StakeEvent)}
    claimers = {e.account for e in known if isinstance(e, Claimed)}
    funded = session.exec(select(FundingRow.total_funded).order_by(*_newest(FundingRow)).limit(1)).first()
    reported = session.exec(select(ReportRow).order_by(*_newest(ReportRow)).limit(1)).first()
    return Last(
        stakes={
            Address(r.account): (Wei(r.staked), Wei(r.pending)) for r in _latest(session, StakeRow, stakers)
        },
        claimed={Address(r.account): Wei(r.cumulative) for r in _latest(session, ClaimRow, claimers)},
        funded=Wei(funded or 0),
        report=None if reported is None else _report(reported),
    )


def stake_changes(session: Session, until_block: int) -> list[Change]:
    """Return what `chain.stake.fold` folds: every change of staked balances up to `until_block`, in order."""
    wanted = select(StakeRow).where(StakeRow.block <= until_block, StakeRow.kind != Withdrawn.__name__)
    return [
        Change(Address(row.account), Wei(row.staked), row.timestamp)
        for row in session.exec(wanted.order_by(*_oldest(StakeRow)))
    ]


def fundings(session: Session, after_block: int, until_block: int) -> list[Funded]:
    """Return the revenue that came in after one block and up to another, in order."""
    wanted = select(FundingRow).where(FundingRow.block > after_block, FundingRow.block <= until_block)
    return [Funded(**row.model_dump()) for row in session.exec(wanted.order_by(*_oldest(FundingRow)))]


def reports(session: Session, epoch: int | None = None) -> list[ReportEvent]:
    """Return what happened to the reports of an epoch, or of all, in order."""
    wanted = select(ReportRow).order_by(*_oldest(ReportRow))
    return [
        _report(row)
        for row in session.exec(wanted if epoch is None else wanted.where(ReportRow.epoch == epoch))
    ]


def claims(session: Session) -> list[Claimed]:
    """Return all payouts, in order."""
    found = session.exec(select(ClaimRow).order_by(*_oldest(ClaimRow)))
    return [Claimed(**row.model_dump()) for row in found]


def claimed_totals(session: Session) -> dict[Address, Wei]:
    """Return what each account was paid in all."""
    return {claim.account: claim.cumulative for claim in claims(session)}


# -- what was computed -----------------------------------------------------------------------------


def save_epoch_report(session: Session, report: EpochReport) -> None:
    """Store an epoch's report; one that is there may only be replaced after a veto, or by itself."""
    known = session.get(EpochReport, report.epoch)
    if known is not None and known.status != "vetoed" and known.root != report.root:
        raise ChainError(
            f"epoch {report.epoch} has a {known.status} report with root {known.root}, not {report.root}: "
            "the same epoch must give the same report"
        )
    session.merge(report)


def forget_epoch_reports(session: Session, epoch: int) -> None:
    """Delete the reports of `epoch` and later ones, so that they can be built anew."""
    session.connection().execute(delete(EpochReport).where(col(EpochReport.epoch) >= epoch))


def staked_of(session: Session, account: Address) -> Wei:
    """Return an account's stake as of the last indexed, final block."""
    return next((Wei(row.staked) for row in _latest(session, StakeRow, {account})), Wei(0))


def epoch_report(session: Session, epoch: int) -> EpochReport | None:
    """Return the report of an epoch."""
    return session.get(EpochReport, epoch)


def epoch_reports(session: Session) -> list[EpochReport]:
    """Return the reports of all epochs, oldest first."""
    return list(session.exec(select(EpochReport).order_by(col(EpochReport.epoch))))


# -- what was sent ---------------------------------------------------------------------------------


def transaction(session: Session, kind: str, epoch: int) -> TransactionRow | None:
    """Return the newest transaction of that kind for an epoch."""
    wanted = select(TransactionRow).where(TransactionRow.kind == kind, TransactionRow.epoch == epoch)
    return session.exec(wanted.order_by(col(TransactionRow.id).desc()).limit(1)).first()


def open_transactions(session: Session, sender: Address) -> list[TransactionRow]:
    """Return the transactions of `sender` that are in no block as far as is known, by nonce."""
    wanted = select(TransactionRow).where(
        TransactionRow.sender == sender, col(TransactionRow.status).in_(("stored", "sent"))
    )
    return list(session.exec(wanted.order_by(col(TransactionRow.nonce))))


def transaction_of(session: Session, sender: Address, nonce: int) -> TransactionRow | None:
    """Return the transaction of a sender that has this nonce; there is at most one."""
    wanted = select(TransactionRow).where(TransactionRow.sender == sender, TransactionRow.nonce == nonce)
    return session.exec(wanted).first()


def add_transaction(session: Session, row: TransactionRow) -> None:
    """Store a transaction; the caller commits before it is sent."""
    session.add(row)


# -- rows and records ------------------------------------------------------------------------------

_POSTED = (
    "sum",
    "depth",
    "data_hash",
    "ledger_root",
    "rules_hash",
    "snapshot_block",
    "snapshot_hash",
    "active_at",
)
_CHALLENGED = ("challenger", "fault", "account")
_Indexed = type[StakeRow] | type[FundingRow] | type[ReportRow] | type[ClaimRow]


def _newest(table: _Indexed) -> tuple[Any, Any]:
    return col(table.block).desc(), col(table.log_index).desc()


def _oldest(table: _Indexed) -> tuple[Any, Any]:
    return col(table.block), col(table.log_index)


def _latest(session: Session, table: Any, accounts: set[Address]) -> Iterable[Any]:
    """Yield the newest row of each account."""
    names = sorted(accounts)
    for start in range(0, len(names), CHUNK):
        some = table.account.in_(names[start : start + CHUNK])
        rank = func.row_number().over(partition_by=table.account, order_by=_newest(table)).label("rank")
        ranked = select(table.block, table.log_index, rank).where(some).subquery()
        same = (table.block == ranked.c.block) & (table.log_index == ranked.c.log_index)
        yield from session.exec(select(table).join(ranked, same).where(ranked.c.rank == 1))


def _stake_row(event: StakeEvent, staked: Wei, pending: Wei) -> dict[str, Any]:
    """Return the row of an event with both balances, also where the event itself names only one."""
    return {
        "block": event.block,
        "log_index": event.log_index,
        "tx": event.tx,
        "timestamp": event.timestamp,
        "kind": type(event).__name__,
        "account": event.account,
        "amount": event.amount,
        "staked": staked,
        "pending": pending,
        "available_at": event.available_at if isinstance(event, UnstakeRequested) else None,
    }


def _report(row: ReportRow) -> ReportEvent:
    mark = (row.block, row.log_index, Hash32(row.tx), row.timestamp)
    epoch, root = Epoch(row.epoch), Hash32(row.root)
    if row.kind == Vetoed.__name__:
        return Vetoed(*mark, epoch, root)
    if row.kind == Challenged.__name__:
        return Challenged(*mark, epoch, root, **row.model_dump(include=set(_CHALLENGED)))
    if row.kind == Activated.__name__:
        return Activated(*mark, epoch, root, Wei(row.sum or 0))
    return Posted(*mark, epoch, root, **row.model_dump(include=set(_POSTED)))
