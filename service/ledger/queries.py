"""Epochs, their tasks, who holds which, and what was signed, as functions of a session; the caller commits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Executable, and_, delete, func, or_, text, tuple_, update
from sqlalchemy import select as columns
from sqlmodel import Session, SQLModel, col, select

from chain.ledger.bulk import insert_rows
from chain.types import Address, Hash32
from service.ledger.tables import (
    OPEN,
    RESERVED,
    AnswerRow,
    EpochRow,
    HandoutRow,
    LeaseRow,
    LoginRow,
    RankingRow,
    SessionRow,
    SkipRow,
    TallyRow,
    TaskRow,
)

PART = 5_000
"""Rows that are in memory at once where there may be a million."""


def add(session: Session, *rows: Any) -> None:
    """Add rows and flush, so that a broken constraint is raised here."""
    session.add_all(rows)
    session.flush()


def add_many(
    session: Session, table: type[SQLModel], names: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Append rows, a part at a time; their values as `insert_rows` takes them, JSON as text of ASCII without escapes."""
    left = iter(rows)
    while part := list(islice(left, PART)):
        insert_rows(session, table, names, part)


def streamed(session: Session, wanted: Executable) -> Iterator[Any]:
    """Yield rows as columns, a part at a time: what is not kept is gone."""
    return iter(session.connection().execute(wanted, execution_options={"yield_per": PART}))


# --- epochs and tasks -------------------------------------------------------------------------------------


def epoch_row(session: Session, epoch: int, *, lock: bool = False) -> EpochRow | None:
    """Return an epoch; with `lock`, no other transaction can close or append to it until this one ends."""
    return session.get(EpochRow, epoch, with_for_update=True if lock else None)


def epochs(session: Session) -> Sequence[EpochRow]:
    """Return all opened epochs, ascending."""
    return session.exec(select(EpochRow).order_by(col(EpochRow.epoch))).all()


def unwritten_epochs(session: Session) -> Sequence[EpochRow]:
    """Return the epochs, ascending, of which the chain does not yet know the opening or the close."""
    unopened = col(EpochRow.committed_at).is_(None)
    unclosed = and_(col(EpochRow.closed_at).is_not(None), col(EpochRow.anchored_at).is_(None))
    return session.exec(select(EpochRow).where(or_(unopened, unclosed)).order_by(col(EpochRow.epoch))).all()


def newest_epochs(session: Session, count: int, before: int | None = None) -> Sequence[EpochRow]:
    """Return the last epochs that were opened, or the last of those before one, the newest first."""
    found = select(EpochRow).order_by(col(EpochRow.epoch).desc()).limit(count)
    return session.exec(found if before is None else found.where(EpochRow.epoch < before)).all()


def last_closed(session: Session) -> int:
    """Return the last closed epoch, -1 when none is."""
    found = session.exec(select(func.max(EpochRow.epoch)).where(col(EpochRow.closed_at).is_not(None))).one()
    return -1 if found is None else found


def task_row(session: Session, epoch: int, task: str) -> TaskRow | None:
    """Return a task of an epoch."""
    return session.get(TaskRow, (epoch, task))


def tasks_of(session: Session, rows: Iterable[RankingRow]) -> dict[tuple[int, str], TaskRow]:
    """Return the tasks of these rankings by (epoch, task)."""
    names = {(r.epoch, r.task) for r in rows}
    found = select(TaskRow).where(tuple_(col(TaskRow.epoch), col(TaskRow.task)).in_(names))
    return {(t.epoch, t.task): t for t in session.exec(found)}


def tasks(session: Session, epoch: int) -> Iterator[TaskRow]:
    """Yield an epoch's tasks by hash."""
    wanted = select(TaskRow).where(TaskRow.epoch == epoch).order_by(col(TaskRow.task))
    return iter(session.exec(wanted, execution_options={"yield_per": PART}))


def used_prompts(session: Session, among: Collection[str]) -> set[str]:
    """Return which of these prompts have been a task."""
    wanted = set(among)
    return {value for (value,) in streamed(session, select(TaskRow.prompt)) if value in wanted}


def used_contents(
    session: Session, among: Collection[tuple[str, tuple[str, ...]]]
) -> set[tuple[str, tuple[str, ...]]]:
    """Return which of these prompts with their responses have been a task of any epoch, under whatever name."""
    wanted = set(among)
    rows = streamed(session, select(TaskRow.prompt, TaskRow.responses))
    return {found for prompt, texts in rows if (found := (prompt, tuple(texts))) in wanted}


def retire_gold(session: Session, epoch: int, names: Collection[str]) -> None:
    """Mark which gold tasks of an epoch proved wrong."""
    gone = update(TaskRow).where(col(TaskRow.epoch) == epoch, col(TaskRow.task).in_(names))
    session.connection().execute(gone.values(retired=True))


def task_contents(session: Session) -> set[tuple[str, tuple[str, ...]]]:
    """Return prompt and responses of every task that there has been."""
    rows = session.exec(select(TaskRow.prompt, TaskRow.responses)).all()
    return {(prompt, tuple(responses)) for prompt, responses in rows}


def counts(session: Session, among: Collection[int] | None = None) -> dict[int, tuple[int, int, int]]:
    """Return how many tasks, rankings and skips each epoch has, of these or of all."""
    tasks_of = select(func.count()).select_from(TaskRow).where(TaskRow.epoch == EpochRow.epoch)
    last_of = select(func.max(RankingRow.position)).where(RankingRow.epoch == EpochRow.epoch)
    skips_of = select(func.count()).select_from(SkipRow).where(SkipRow.epoch == EpochRow.epoch)
    found = (tasks_of.scalar_subquery(), last_of.scalar_subquery(), skips_of.scalar_subquery())
    wanted = select(EpochRow.epoch, *found)
    rows = session.exec(wanted if among is None else wanted.where(col(EpochRow.epoch).in_(among)))
    return {e: (n, 0 if last is None else last + 1, skipped) for e, n, last, skipped in rows}


def judgement_count(session: Session, epoch: int) -> int:
    """Return how many rankings an epoch has, revisions included: the only thing public before its close."""
    # They are numbered from 0 without a gap and none is ever removed: the last number is found at once.
    return next_position(session, epoch)


def ranked_tasks(session: Session, epoch: int) -> set[str]:
    """Return the tasks of an epoch that anybody ranked."""
    return set(session.exec(select(RankingRow.task).where(RankingRow.epoch == epoch).distinct()))


# --- hand-outs --------------------------------------------------------------------------------------------


def lease_row(session: Session, epoch: int, wallet: str, task: str) -> LeaseRow | None:
    """Return a wallet's lease of a task, live or not."""
    return session.get(LeaseRow, (epoch, wallet, task))


def live_lease(session: Session, epoch: int, wallet: str, now: int) -> LeaseRow | None:
    """Return the task that the wallet holds and has neither judged nor skipped, if its time is not over."""
    # Its time is looked at here: SQLite would go through the times of all leases, for it holds that to be narrower.
    held = (LeaseRow.epoch == epoch, LeaseRow.wallet == wallet, text("live"))
    found = session.exec(select(LeaseRow).where(*held)).first()
    return found if found and found.expires_at > now else None


def overdue_leases(session: Session, epoch: int, now: int) -> Sequence[LeaseRow]:
    """Return the leases that still count as live though their time is over."""
    live = (LeaseRow.epoch == epoch, text("live"), LeaseRow.expires_at <= now)
    return session.exec(select(LeaseRow).where(*live)).all()


def tally_row(session: Session, epoch: int, task: str) -> TallyRow:
    """Return what has come of a task so far."""
    return session.get_one(TallyRow, (epoch, task))


def next_open(session: Session, epoch: int, wallet: str, method: str, point: str) -> str | None:
    """Return the task that a wallet which holds none is given: with the fewest judgements, first from `point` on.

    Of those that it has not judged, skipped or written, and that more judgements are wanted of or that are its own
    to judge. In steps that an index answers, so that the number of tasks hardly matters, and that of those which
    nobody is asked about any more not at all.
    """
    # Not as an EXISTS: a PostgreSQL that has not yet counted a new table's rows would look it up for each task.
    mine = select(LeaseRow.task).where(
        LeaseRow.epoch == epoch, LeaseRow.wallet == wallet,
        or_(col(LeaseRow.done).is_(True), col(LeaseRow.skipped).is_(True)),
    )  # fmt: skip
    fits = (
        TallyRow.epoch == epoch, col(TallyRow.methods).contains(f",{method},"), TallyRow.author != wallet,
        col(TallyRow.task).not_in(mine),
    )  # fmt: skip
    reserved = (RESERVED, col(TallyRow.assignees).contains(f",{wallet},"))
    found = (_first_from(session, point, *fits, OPEN), _first_from(session, point, *fits, *reserved))
    return min((known for known in found if known), default=(0, False, None))[2]


def _first_from(session: Session, point: str, *fits: Any) -> tuple[int, bool, str] | None:
    """Return of the tasks that fit the first in the order of choice: its `taken`, whether it is before `point`, name."""
    fewest = session.exec(select(TallyRow.taken).where(*fits).order_by(col(TallyRow.taken)).limit(1)).first()
    if fewest is None:
        return None
    level = select(TallyRow.task).where(*fits, TallyRow.taken == fewest).order_by(col(TallyRow.task)).limit(1)
    name = session.exec(level.where(TallyRow.task >= point)).first() or session.exec(level).one()
    return fewest, name < point, name


def handouts(session: Session, epoch: int) -> Sequence[HandoutRow]:
    """Return an epoch's hand-outs in the order of their numbers."""
    found = select(HandoutRow).where(HandoutRow.epoch == epoch)
    return session.exec(found.order_by(col(HandoutRow.number))).all()


def handout_row(session: Session, epoch: int, number: int) -> HandoutRow:
    """Return a hand-out by its number."""
    return session.get_one(HandoutRow, (epoch, number))


def handout_count(session: Session, epoch: int, wallet: str) -> int:
    """Return how often a wallet was handed a task in an epoch."""
    mine = (HandoutRow.epoch == epoch, HandoutRow.wallet == wallet)
    return session.exec(select(func.count()).select_from(HandoutRow).where(*mine)).one()


def skips(session: Session, epoch: int) -> Sequence[SkipRow]:
    """Return an epoch's skips in the order of their numbers."""
    return session.exec(select(SkipRow).where(SkipRow.epoch == epoch).order_by(col(SkipRow.number))).all()


def skip_row(session: Session, epoch: int, wallet: str, task: str) -> SkipRow | None:
    """Return a wallet's skip of a task."""
    mine = (SkipRow.epoch == epoch, SkipRow.wallet == wallet, SkipRow.task == task)
    return session.exec(select(SkipRow).where(*mine)).first()


def skip_count(session: Session, epoch: int, wallet: str | None = None) -> int:
    """Return how many tasks were given back in an epoch, by one wallet or by all."""
    found = select(func.count()).select_from(SkipRow).where(SkipRow.epoch == epoch)
    return session.exec(found if wallet is None else found.where(SkipRow.wallet == wallet)).one()


def judged_count(session: Session, epoch: int, wallet: str) -> int:
    """Return how many tasks a wallet has judged in an epoch."""
    mine = (LeaseRow.epoch == epoch, LeaseRow.wallet == wallet, col(LeaseRow.done).is_(True))
    return session.exec(select(func.count()).select_from(LeaseRow).where(*mine)).one()


# --- sessions and rankings --------------------------------------------------------------------------------


def session_by_token(session: Session, token_hash: str) -> SessionRow | None:
    """Return the session that a bearer token belongs to."""
    return session.exec(select(SessionRow).where(SessionRow.token_hash == token_hash)).first()


def sessions(session: Session, epoch: int, wallet: str) -> Sequence[SessionRow]:
    """Return a wallet's sessions of an epoch."""
    mine = (SessionRow.epoch == epoch, SessionRow.wallet == wallet)
    return session.exec(select(SessionRow).where(*mine).order_by(col(SessionRow.digest))).all()


def signed_sessions(session: Session, epoch: int) -> Iterator[Any]:
    """Yield wallet, message, signature and block of all sessions of an epoch, in the order of their digests."""
    wanted = select(SessionRow.wallet, SessionRow.message, SessionRow.signature, SessionRow.block)
    return streamed(session, wanted.where(SessionRow.epoch == epoch).order_by(col(SessionRow.digest)))


def login_by_token(session: Session, token_hash: str) -> LoginRow | None:
    """Return the login that a bearer token belongs to."""
    return session.exec(select(LoginRow).where(LoginRow.token_hash == token_hash)).first()


def login_row(session: Session, nonce: str) -> LoginRow | None:
    """Return the login that a nonce was used for."""
    return session.get(LoginRow, nonce)


def forget_logins(session: Session, before: int) -> None:
    """Delete the logins that expired before a time."""
    session.connection().execute(delete(LoginRow).where(col(LoginRow.expires_at) < before))


def answer_row(session: Session, wallet: str, key: str) -> AnswerRow | None:
    """Return what a wallet's request with this idempotency key was answered."""
    return session.get(AnswerRow, (wallet, key))


def forget_answers(session: Session, epoch: int) -> None:
    """Delete the answers that were kept for epochs before `epoch`."""
    session.connection().execute(delete(AnswerRow).where(col(AnswerRow.epoch) < epoch))


def ledger_entries(session: Session, epoch: int) -> list[tuple[Hash32, Address]]:
    """Return digest and wallet of each ranking of an epoch: the entries under its ledger root."""
    found = select(RankingRow.digest, RankingRow.wallet).where(RankingRow.epoch == epoch)
    return [(Hash32(d), Address(w)) for d, w in session.exec(found).all()]


def next_position(session: Session, epoch: int) -> int:
    """Return the place of the next ranking in the epoch's log; call it under the epoch's lock."""
    last = session.exec(select(func.max(RankingRow.position)).where(RankingRow.epoch == epoch)).one()
    return 0 if last is None else last + 1


def rankings(session: Session, epoch: int) -> Iterator[Any]:
    """Yield what is published of an epoch's rankings, in the order in which they came."""
    row = RankingRow
    fields = (row.position, row.wallet, row.message, row.signature, row.received_at, row.block)
    wanted = columns(*map(col, fields))
    return streamed(session, wanted.where(col(RankingRow.epoch) == epoch).order_by(col(RankingRow.position)))


def rankings_of(
    session: Session,
    wallet: str,
    epoch: int | None = None,
    *,
    before: tuple[int, ...] | None = None,
    limit: int | None = None,
) -> Sequence[RankingRow]:
    """Return a wallet's own rankings, newest first: those before an (epoch, position), at most so many."""
    found = select(RankingRow).where(RankingRow.wallet == wallet)
    if epoch is not None:
        found = found.where(RankingRow.epoch == epoch)
    if before is not None:
        number, position = before
        same = and_(col(RankingRow.epoch) == number, col(RankingRow.position) < position)
        found = found.where(or_(col(RankingRow.epoch) < number, same))
    newest = found.order_by(col(RankingRow.epoch).desc(), col(RankingRow.position).desc())
    return session.exec(newest.limit(limit)).all()


def abandoned_of(session: Session, wallet: str) -> list[int]:
    """Return the epochs, ascending, that a wallet ranked in and that were given up."""
    found = select(RankingRow.epoch).where(RankingRow.wallet == wallet).distinct()
    given_up = select(EpochRow.epoch).where(
        col(EpochRow.abandoned_at).is_not(None), col(EpochRow.epoch).in_(found)
    )
    return list(session.exec(given_up.order_by(col(EpochRow.epoch))).all())


def latest_revision(session: Session, epoch: int, wallet: str, task: str) -> RankingRow | None:
    """Return the wallet's last ranking of a task."""
    mine = (RankingRow.epoch == epoch, RankingRow.wallet == wallet, RankingRow.task == task)
    return session.exec(select(RankingRow).where(*mine).order_by(col(RankingRow.revision).desc())).first()


def ranking_by_digest(session: Session, epoch: int, digest: str) -> RankingRow | None:
    """Return the ranking with this EIP-712 digest."""
    same = (RankingRow.epoch == epoch, RankingRow.digest == digest)
    return session.exec(select(RankingRow).where(*same)).first()
