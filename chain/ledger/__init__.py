"""The only SQL of `chain`: what was indexed, computed and sent; callers commit, nothing here does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import asdict, replace
from sqlalchemy import delete, func, insert, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from chain.continuity import Last, Totals, follow
from chain.deployment import Deployment
from chain.errors import BusyIndexError, ChainError, DeploymentError
from chain.events import (
    Activated,
    Challenged,
    Claimed,
    Event,
    Funded,
    Posted,
    ReportEvent,
    Staked,
    StakeEvent,
    UnstakeCancelled,
    UnstakeRequested,
    Vetoed,
    Withdrawn,
)
from chain.ledger.bulk import insert_rows, put_rows
from chain.ledger.rows import (
    INDEXED,
    VERIFIED,
    AccountRow,
    AttemptRow,
    Checkpoint,
    ClaimRow,
    EpochReport,
    FundingRow,
    ReportRow,
    StakeRow,
    TransactionRow,
    Uint,
)
from chain.ledger.sent import (
    add_attempt,
    add_transaction,
    attempts,
    open_transactions,
    transaction,
    transaction_of,
)
from chain.stake import Change
from chain.types import Address, BlockRef, Epoch, Hash32, Wei

__all__ = [
    "VERIFIED",
    "AccountRow",
    "AttemptRow",
    "Checkpoint",
    "ClaimRow",
    "EpochReport",
    "EventRows",
    "FundingRow",
    "ReportRow",
    "StakeRow",
    "TransactionRow",
    "Uint",
    "add_attempt",
    "add_transaction",
    "advance",
    "attempts",
    "check_place",
    "checkpoint",
    "count_events",
    "epoch_report",
    "epoch_reports",
    "events",
    "forget_epoch_reports",
    "fundings",
    "kept",
    "last_of",
    "load_balances",
    "open_transactions",
    "reports",
    "save_epoch_report",
    "stake_changes",
    "staked_of",
    "stakes_of",
    "store",
    "take",
    "take_back",
    "transaction",
    "transaction_of",
    "unknown_accounts",
    "verified",
]

Row = TypeVar("Row", StakeRow, FundingRow, ReportRow, ClaimRow)
CHUNK = 500
"""Most values in one IN (...)."""


# -- what was indexed ------------------------------------------------------------------------------


def checkpoint(
    session: Session, deployment: Deployment | None = None, which: int = INDEXED
) -> Checkpoint | None:
    """Return the last indexed block; a DeploymentError where this database holds another `deployment`."""
    found = session.get(Checkpoint, which)
    if found is not None and deployment is not None:
        held = found.chain_id, found.vault, found.distributor
        asked = deployment.chain_id, deployment.vault, deployment.distributor
        if held != asked:
            raise DeploymentError(
                f"this database holds chain {held[0]}, vault {held[1]} and distributor {held[2]}, not "
                f"{asked[0]}, {asked[1]} and {asked[2]}: use another database, or that deployment"
            )
    return found


def advance(
    session: Session,
    deployment: Deployment,
    before: int | None,
    to: BlockRef,
    last: Last,
    *,
    balances: bool = True,
) -> None:
    """Move the checkpoint from block `before` (None: none yet) to `to`; a BusyIndexError if it is elsewhere.

    With `balances`, those that changed since they were written last are written.
    """
    totals = last.totals
    where = {
        "number": to.number, "hash": to.hash, "timestamp": to.timestamp, "staked": totals.staked,
        "pending": totals.pending, "stake_seconds": totals.stake_seconds, "counted_at": totals.at,
        "claimed": totals.claimed,
    }  # fmt: skip
    if balances:
        where["balances_at"] = to.number
    if before is None:
        contracts = {"vault": deployment.vault, "distributor": deployment.distributor}
        first = {"id": INDEXED, "chain_id": deployment.chain_id, **contracts, "balances_at": -1, **where}
        try:
            session.connection().execute(insert(Checkpoint), first)
        except IntegrityError:
            raise BusyIndexError(
                "the first range was indexed meanwhile by another indexer, such as the running service: nothing is lost, "
                "try again"
            ) from None
    else:
        here = col(Checkpoint.id) == INDEXED, col(Checkpoint.number) == before
        if session.connection().execute(update(Checkpoint).where(*here).values(**where)).rowcount != 1:
            raise BusyIndexError(
                f"the checkpoint is no longer at block {before}: another indexer, such as the running service, moved it; "
                "nothing is lost, try again"
            )
    if balances:
        put_rows(session, AccountRow, _ACCOUNT, _account_rows(last.changed, last))


def check_place(session: Session, *places: int | None) -> None:
    """Raise a BusyIndexError unless the checkpoint is at one of these blocks (None: there is none yet).

    Asked after what was read in the same session, it says that no other indexer wrote between the statements: each
    sees what is committed by then, and balances of a later block are no ground to believe that a node lied.
    """
    at = session.execute(select(col(Checkpoint.number)).where(col(Checkpoint.id) == INDEXED)).scalar()
    if at not in places:
        raise BusyIndexError(
            f"the checkpoint is at block {at}: another indexer, such as the running service, moved it meanwhile; nothing "
            "is lost, try again"
        )


def verified(session: Session, number: int, surplus: int) -> None:
    """Note that the contracts agree with all that was indexed up to block `number`, if that is still the last."""
    found = session.get(Checkpoint, INDEXED)
    if found is not None and found.number == number:
        session.merge(Checkpoint(**(found.model_dump() | {"id": VERIFIED, "surplus": surplus})))


def take_back(session: Session, *, anew: bool = False) -> int | None:
    """Forget what was indexed after the block at which the contracts agreed for the last time, which is returned.

    With `anew`, or where they never did, all is forgotten, and None is returned.
    """
    # First, so that whoever writes a range at this moment is waited for, or waits and then finds the checkpoint moved.
    # The table and not its row, which is not there before the first range. On SQLite every writer is alone.
    if session.connection().dialect.name == "postgresql":
        session.connection().exec_driver_sql(f"LOCK TABLE {Checkpoint.__tablename__} IN EXCLUSIVE MODE")
    known = None if anew else session.get(Checkpoint, VERIFIED)
    after = -1 if known is None else known.number
    for table in (StakeRow, FundingRow, ReportRow, ClaimRow):
        session.connection().execute(delete(table).where(col(table.block) > after))
    if known is not None:
        mine = {"id": INDEXED, "balances_at": known.number, "surplus": None}
        session.merge(Checkpoint(**(known.model_dump() | mine)))
    else:
        session.connection().execute(delete(Checkpoint))
    session.connection().execute(delete(AccountRow))
    last = Last()
    _replay(session, last, -1)
    put_rows(session, AccountRow, _ACCOUNT, _account_rows(last.changed, last))
    return None if known is None else known.number


def _replay(session: Session, last: Last, after: int) -> None:
    """Take what the events after a block left each account with into `last`."""
    # Columns, a part at a time: a ledger of millions must not stand in memory.
    connection, parts = session.connection(), {"yield_per": 5_000}
    stakes = select(StakeRow.account, StakeRow.staked, StakeRow.pending).where(col(StakeRow.block) > after)
    for account, staked, pending in connection.execute(
        stakes.order_by(*_oldest(StakeRow)), execution_options=parts
    ):
        last.stakes[Address(account)] = Wei(staked), Wei(pending)
        last.changed.add(Address(account))
    paid = select(ClaimRow.account, ClaimRow.cumulative).where(col(ClaimRow.block) > after)
    for account, cumulative in connection.execute(paid.order_by(*_oldest(ClaimRow)), execution_options=parts):
        last.claimed[Address(account)] = Wei(cumulative)
        last.changed.add(Address(account))


@dataclass(slots=True)
class EventRows:
    """Events as the rows that they become."""

    stakes: list[tuple[Any, ...]] = field(default_factory=list)
    fundings: list[tuple[Any, ...]] = field(default_factory=list)
    claims: list[tuple[Any, ...]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)


def take(events: Iterable[Event], last: Last) -> EventRows:
    """Take events in their order into `last` and return their rows; a MissingLogError where one does not follow.

    `last` has to know the accounts in them (`load_balances`).
    """
    rows = EventRows()
    for event in events:
        follow(last, event)
        if isinstance(event, StakeEvent):
            rows.stakes.append(_stake_row(event, *last.stakes[event.account]))
        elif isinstance(event, Funded):
            amounts = str(event.amount), str(event.total_funded)
            rows.fundings.append((*_mark(event), event.tx, str(event.run), event.payer, *amounts))
        elif isinstance(event, Claimed):
            amounts = str(event.amount), str(event.cumulative)
            rows.claims.append((*_mark(event), event.tx, event.account, event.to, *amounts))
        else:
            kind = {"kind": type(event).__name__}
            rows.reports.append(dict.fromkeys(_POSTED + _CHALLENGED) | asdict(event) | kind)
    return rows


def store(session: Session, rows: EventRows) -> None:
    """Append rows of events."""
    insert_rows(session, StakeRow, _STAKE, rows.stakes)
    insert_rows(session, FundingRow, (*_MARK, "tx", "run", "payer", "amount", "total_funded"), rows.fundings)
    insert_rows(session, ClaimRow, (*_MARK, "tx", "account", "to", "amount", "cumulative"), rows.claims)
    if rows.reports:
        session.connection().execute(insert(ReportRow), rows.reports)


def unknown_accounts(events: Iterable[Event], last: Last) -> set[Address]:
    """Return the accounts in `events` whose balances have to be loaded into `last` first."""
    named = {e.account for e in events if isinstance(e, StakeEvent | Claimed)}
    return named - (last.stakes.keys() & last.claimed.keys())


def load_balances(session: Session, events: Iterable[Event], last: Last) -> None:
    """Add to `last` what the accounts in `events` have before them, for those that it does not know yet."""
    _load(session, sorted(unknown_accounts(events, last)), last)


def _load(session: Session, names: Sequence[Address], last: Last) -> None:
    """Add what is written of these accounts to `last`, where it does not know better."""
    for start in range(0, len(names), CHUNK):
        some = names[start : start + CHUNK]
        held = {
            Address(r.account): r
            for r in session.exec(select(AccountRow).where(col(AccountRow.account).in_(some)))
        }
        for account in some:
            row = held.get(account)
            last.stakes.setdefault(
                account, (Wei(0), Wei(0)) if row is None else (Wei(row.staked), Wei(row.pending))
            )
            last.claimed.setdefault(account, Wei(0) if row is None else Wei(row.claimed))


def last_of(session: Session) -> Last:
    """Return what the events so far left behind; of the balances those that are not written by account."""
    funded = session.exec(select(FundingRow.total_funded).order_by(*_newest(FundingRow)).limit(1)).first()
    waiting, paying = _standing(session)
    last = Last(funded=Wei(funded or 0), waiting=waiting, paying=paying)
    at = session.get(Checkpoint, INDEXED)
    if at is not None:
        sums = Wei(at.staked), Wei(at.pending), at.stake_seconds, at.counted_at, Wei(at.claimed)
        last.totals = Totals(*sums)
        _replay(session, last, at.balances_at)
        # An event tells an account's stake or what it was paid; the other half is as it was written.
        _load(session, sorted(last.changed), last)
    return last


def _standing(session: Session) -> tuple[Posted | None, Posted | None]:
    """Return the report that waits, and the one that claims are paid by."""
    newest = select(ReportRow).order_by(*_newest(ReportRow)).limit(1)
    posted = newest.where(ReportRow.kind == Posted.__name__)
    row = session.exec(newest).first()
    waiting = None if row is None else _report(row)
    activated = session.exec(newest.where(ReportRow.kind == Activated.__name__)).first()
    found = (
        None if activated is None else session.exec(posted.where(ReportRow.epoch == activated.epoch)).first()
    )
    paying = None if found is None else _report(found)
    return (
        waiting if isinstance(waiting, Posted) else None,
        paying if isinstance(paying, Posted) else None,
    )


def events(session: Session, first: int, last: int) -> list[Event]:
    """Return all events in blocks `first` to `last` in order, each as `kept` returns it."""

    def rows(table: type[Row]) -> Iterable[Row]:
        return session.exec(select(table).where(col(table.block) >= first, col(table.block) <= last))

    found: list[Event] = [*map(_stake, rows(StakeRow)), *map(_funding, rows(FundingRow))]
    found += [*map(_report, rows(ReportRow)), *map(_claim, rows(ClaimRow))]
    return sorted(found, key=lambda event: (event.block, event.log_index))


def kept(event: Event) -> Event:
    """Return an event without what no row keeps of it: of stake, the transaction and who a withdrawal went to."""
    if isinstance(event, Withdrawn):
        return replace(event, tx=_UNKNOWN, to=event.account)
    return replace(event, tx=_UNKNOWN) if isinstance(event, StakeEvent) else event


def count_events(session: Session) -> int:
    """Return how many events are stored."""
    tables = (StakeRow, FundingRow, ReportRow, ClaimRow)
    return sum(session.exec(select(func.count()).select_from(table)).one() for table in tables)


def stake_changes(session: Session, until_block: int) -> list[Change]:
    """Return what `chain.stake.fold` folds: every change of staked balances up to `until_block`, in order."""
    wanted = select(StakeRow.account, StakeRow.staked, StakeRow.timestamp)
    wanted = wanted.where(StakeRow.block <= until_block, StakeRow.kind != Withdrawn.__name__)
    found = session.connection().execute(
        wanted.order_by(*_oldest(StakeRow)), execution_options={"yield_per": 5_000}
    )
    # One text for all events of an account.
    names: dict[str, Address] = {}
    return [
        Change(names.setdefault(account, Address(account)), Wei(staked), timestamp)
        for account, staked, timestamp in found
    ]


def fundings(session: Session, after_block: int, until_block: int) -> list[Funded]:
    """Return the revenue that came in after one block and up to another, in order."""
    wanted = select(FundingRow).where(FundingRow.block > after_block, FundingRow.block <= until_block)
    return [_funding(row) for row in session.exec(wanted.order_by(*_oldest(FundingRow)))]


def reports(session: Session) -> list[ReportEvent]:
    """Return what happened to all reports, in order."""
    return [_report(row) for row in session.exec(select(ReportRow).order_by(*_oldest(ReportRow)))]


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
    found = session.get(AccountRow, account)
    return Wei(0) if found is None else Wei(found.staked)


def stakes_of(session: Session, accounts: Iterable[Address]) -> dict[Address, Wei]:
    """Return the stake of these accounts, at most CHUNK, as of the last indexed, final block, where they have any."""
    wanted = select(AccountRow.account, AccountRow.staked).where(col(AccountRow.account).in_(accounts))
    return {Address(account): Wei(staked) for account, staked in session.exec(wanted) if staked}


def epoch_report(session: Session, epoch: int) -> EpochReport | None:
    """Return the report of an epoch."""
    return session.get(EpochReport, epoch)


def epoch_reports(session: Session) -> list[EpochReport]:
    """Return the reports of all epochs, oldest first."""
    return list(session.exec(select(EpochReport).order_by(col(EpochReport.epoch))))


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


_ACCOUNT = ("account", "staked", "pending", "claimed")


def _account_rows(accounts: Iterable[Address], last: Last) -> list[tuple[str, ...]]:
    """Return the rows of accounts, in their order: two writers never wait for each other's rows."""
    nothing = Wei(0), Wei(0)
    return [
        (a, *map(str, last.stakes.get(a, nothing)), str(last.claimed.get(a, Wei(0))))
        for a in sorted(accounts)
    ]


_UNKNOWN = Hash32("")
_MARK = ("block", "log_index", "timestamp")
_STAKE = (*_MARK, "kind", "account", "amount", "staked", "pending", "available_at")


def _stake_row(event: StakeEvent, staked: Wei, pending: Wei) -> tuple[Any, ...]:
    """Return the row of an event with both balances, also where the event itself names only one."""
    available = str(event.available_at) if isinstance(event, UnstakeRequested) else None
    amounts = str(event.amount), str(staked), str(pending), available
    return (*_mark(event), type(event).__name__, event.account, *amounts)


def _mark(event: Event) -> tuple[int, int, int]:
    return event.block, event.log_index, event.timestamp


def _stake(row: StakeRow) -> StakeEvent:
    account, amount = Address(row.account), Wei(row.amount)
    mark = (row.block, row.log_index, _UNKNOWN, row.timestamp, account)
    if row.kind == Staked.__name__:
        return Staked(*mark, amount, Wei(row.staked))
    if row.kind == Withdrawn.__name__:
        return Withdrawn(*mark, account, amount, Wei(row.pending))
    if row.kind == UnstakeCancelled.__name__:
        return UnstakeCancelled(*mark, amount, Wei(row.staked), Wei(row.pending))
    return UnstakeRequested(*mark, amount, Wei(row.staked), Wei(row.pending), row.available_at or 0)


def _funding(row: FundingRow) -> Funded:
    return Funded(**row.model_dump())


def _claim(row: ClaimRow) -> Claimed:
    return Claimed(**row.model_dump())


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
