"""Every read and write of the service's tables, as functions of a session; the caller commits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, delete, func, or_, update
from sqlmodel import Session, col, select

from chain.bundle import Run
from chain.types import Address, Epoch, Hash32, WalletState, Wei
from service.ledger.tables import (
    AnswerRow,
    EpochRow,
    JobRow,
    LeafRow,
    LeaseRow,
    LoginRow,
    MatchRow,
    PoolRow,
    RankingRow,
    RunRow,
    ScoreRow,
    SessionRow,
    ShareRow,
    TaskRow,
)


def add(session: Session, *rows: Any) -> None:
    """Add rows and flush, so that a broken constraint is raised here."""
    session.add_all(rows)
    session.flush()


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


def newest_epochs(session: Session, count: int) -> Sequence[EpochRow]:
    """Return the last epochs that were opened, the newest first."""
    return session.exec(select(EpochRow).order_by(col(EpochRow.epoch).desc()).limit(count)).all()


def last_closed(session: Session) -> int:
    """Return the last closed epoch, -1 when none is."""
    found = session.exec(select(func.max(EpochRow.epoch)).where(col(EpochRow.closed_at).is_not(None))).one()
    return -1 if found is None else found


def task_row(session: Session, epoch: int, task: str) -> TaskRow | None:
    """Return a task of an epoch."""
    return session.get(TaskRow, (epoch, task))


def tasks(session: Session, epoch: int) -> Sequence[TaskRow]:
    """Return an epoch's tasks by hash."""
    return session.exec(select(TaskRow).where(TaskRow.epoch == epoch).order_by(col(TaskRow.task))).all()


def used_prompts(session: Session) -> set[str]:
    """Return every prompt that has been a task."""
    return set(session.exec(select(TaskRow.prompt).distinct()).all())


def task_names(session: Session) -> set[str]:
    """Return the hash of every task of any epoch."""
    return set(session.exec(select(TaskRow.task)).all())


def live_lease(session: Session, epoch: int, wallet: str, now: int) -> LeaseRow | None:
    """Return the task that the wallet holds and has not yet judged, if its time is not over."""
    held = (LeaseRow.epoch == epoch, LeaseRow.wallet == wallet, col(LeaseRow.done).is_(False))
    return session.exec(select(LeaseRow).where(*held, LeaseRow.expires_at > now)).first()


def lease_row(session: Session, epoch: int, wallet: str, task: str) -> LeaseRow | None:
    """Return a wallet's lease of a task, live or not."""
    return session.get(LeaseRow, (epoch, wallet, task))


class OpenTask(NamedTuple):
    """What it takes to choose a task, without its texts."""

    task: str
    methods: Sequence[str]
    assignees: Sequence[str]
    taken: int
    """Judgements that others with stake have given or may still give."""


def open_tasks(session: Session, epoch: int, wallet: str, now: int) -> list[OpenTask]:
    """Return the tasks of an epoch that the wallet has not judged.

    A lease of this wallet that ran out does not bar the task: it may come again.
    """
    live = or_(col(LeaseRow.done).is_(True), col(LeaseRow.expires_at) > now)
    others = (LeaseRow.epoch == epoch, LeaseRow.wallet != wallet, col(LeaseRow.staked).is_(True), live)
    taken = select(LeaseRow.task, func.count()).where(*others).group_by(col(LeaseRow.task))
    mine = (LeaseRow.epoch == epoch, LeaseRow.wallet == wallet, col(LeaseRow.done).is_(True))
    judged = set(session.exec(select(LeaseRow.task).where(*mine)).all())
    counts: dict[str, int] = dict(session.exec(taken).all())
    known = select(TaskRow.task, TaskRow.methods, TaskRow.assignees).where(TaskRow.epoch == epoch)
    return [OpenTask(t, m, a, counts.get(t, 0)) for t, m, a in session.exec(known).all() if t not in judged]


def task_count(session: Session, epoch: int) -> int:
    """Return how many tasks an epoch has."""
    return session.exec(select(func.count()).select_from(TaskRow).where(TaskRow.epoch == epoch)).one()


def judgement_count(session: Session, epoch: int) -> int:
    """Return how many rankings an epoch has, revisions included: the only thing public before its close."""
    return session.exec(select(func.count()).select_from(RankingRow).where(RankingRow.epoch == epoch)).one()


# --- sessions and rankings --------------------------------------------------------------------------------


def session_by_token(session: Session, token_hash: str) -> SessionRow | None:
    """Return the session that a bearer token belongs to."""
    return session.exec(select(SessionRow).where(SessionRow.token_hash == token_hash)).first()


def sessions(session: Session, epoch: int, wallet: str | None = None) -> Sequence[SessionRow]:
    """Return the sessions of an epoch, of one wallet or of all."""
    found = select(SessionRow).where(SessionRow.epoch == epoch)
    if wallet is not None:
        found = found.where(SessionRow.wallet == wallet)
    return session.exec(found.order_by(col(SessionRow.digest))).all()


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


def rankings(session: Session, epoch: int) -> Sequence[RankingRow]:
    """Return an epoch's rankings in the order in which they came."""
    return session.exec(
        select(RankingRow).where(RankingRow.epoch == epoch).order_by(col(RankingRow.position))
    ).all()


def rankings_of(session: Session, wallet: str, epoch: int | None = None) -> Sequence[RankingRow]:
    """Return a wallet's own rankings, newest first."""
    found = select(RankingRow).where(RankingRow.wallet == wallet)
    if epoch is not None:
        found = found.where(RankingRow.epoch == epoch)
    return session.exec(found.order_by(col(RankingRow.epoch).desc(), col(RankingRow.position).desc())).all()


def latest_revision(session: Session, epoch: int, wallet: str, task: str) -> RankingRow | None:
    """Return the wallet's last ranking of a task."""
    mine = (RankingRow.epoch == epoch, RankingRow.wallet == wallet, RankingRow.task == task)
    return session.exec(select(RankingRow).where(*mine).order_by(col(RankingRow.revision).desc())).first()


def ranking_by_digest(session: Session, epoch: int, digest: str) -> RankingRow | None:
    """Return the ranking with this EIP-712 digest."""
    same = (RankingRow.epoch == epoch, RankingRow.digest == digest)
    return session.exec(select(RankingRow).where(*same)).first()


def signed_by(session: Session, epoch: int, wallet: str, signer: str) -> int:
    """Return how many rankings of an epoch, revisions included, this key signed in the wallet's name."""
    mine = (RankingRow.epoch == epoch, RankingRow.wallet == wallet, RankingRow.signer == signer)
    return session.exec(select(func.count()).select_from(RankingRow).where(*mine)).one()


# --- results ----------------------------------------------------------------------------------------------


def scores(session: Session, epoch: int) -> Sequence[ScoreRow]:
    """Return all wallets of an epoch."""
    return session.exec(select(ScoreRow).where(ScoreRow.epoch == epoch).order_by(col(ScoreRow.wallet))).all()


def scores_of(session: Session, wallet: str) -> Sequence[ScoreRow]:
    """Return a wallet's epochs, ascending."""
    return session.exec(select(ScoreRow).where(ScoreRow.wallet == wallet).order_by(col(ScoreRow.epoch))).all()


def wallet_states(session: Session) -> dict[Address, WalletState]:
    """Return the state of every wallet after the last epoch it took part in."""
    last = (
        select(ScoreRow.wallet, func.max(ScoreRow.epoch).label("epoch")).group_by(ScoreRow.wallet).subquery()
    )
    on = and_(col(ScoreRow.wallet) == last.c.wallet, col(ScoreRow.epoch) == last.c.epoch)
    return {
        Address(r.wallet): WalletState(
            int(r.line["labelN"]), int(r.line["labelD"]),
            int(r.line["payG"]), int(r.line["payV"]), int(r.line["payHmax"]),
        )
        for r in session.exec(select(ScoreRow).join(last, on)).all()
    }  # fmt: skip


def score_history(session: Session, until: int) -> tuple[dict[Address, int], ...]:
    """Return HapticScore per wallet of each epoch from 0 to `until`."""
    history: list[dict[Address, int]] = [{} for _ in range(until + 1)]
    for row in session.exec(select(ScoreRow).where(ScoreRow.epoch <= until)).all():
        history[row.epoch][Address(row.wallet)] = int(row.line["score"])
    return tuple(history)


def cumulative(session: Session, until: int) -> dict[Address, Wei]:
    """Return every account's cumulative payout after epoch `until`: the leaves of that epoch's tree."""
    rows = session.exec(select(LeafRow).where(LeafRow.epoch <= until).order_by(col(LeafRow.epoch))).all()
    return {Address(r.account): Wei(int(r.cumulative)) for r in rows}


def pools(session: Session, epoch: int) -> Sequence[PoolRow]:
    """Return an epoch's pools by run."""
    return session.exec(select(PoolRow).where(PoolRow.epoch == epoch).order_by(col(PoolRow.run))).all()


def carried(session: Session, epoch: int) -> dict[int, Wei]:
    """Return what the pools of an epoch carried on, by run."""
    return {p.run: Wei(int(p.carried_out)) for p in pools(session, epoch) if int(p.carried_out)}


def shares_of(session: Session, wallet: str) -> Sequence[ShareRow]:
    """Return what a wallet was allotted, by epoch and run."""
    found = select(ShareRow).where(ShareRow.wallet == wallet)
    return session.exec(found.order_by(col(ShareRow.epoch), col(ShareRow.run))).all()


def matches(session: Session) -> Sequence[MatchRow]:
    """Return how the models did against each other in all closed epochs."""
    return session.exec(select(MatchRow)).all()


def forget_results(session: Session, epoch: int) -> None:
    """Delete what was computed for `epoch` and later ones, so that they can be closed anew.

    Runs that learned from them and stand in no bundle go too: they learn again from what it comes to.
    """
    run = session.connection().execute
    for table in (ScoreRow, PoolRow, ShareRow, LeafRow, MatchRow):
        run(delete(table).where(col(table.epoch) >= epoch))
    later = col(EpochRow.epoch) >= epoch
    # What was given up here, and is not on the chain, may be taken back.
    run(update(EpochRow).where(later, col(EpochRow.anchored_at).is_(None)).values(abandoned_at=None))
    nothing = dict.fromkeys(("closed_at", "anchored_at", "next_num", "next_den"))
    run(update(EpochRow).where(later).values(**nothing))
    run(update(RunRow).where(col(RunRow.declared_in) >= epoch).values(declared_in=None))
    run(delete(RunRow).where(col(RunRow.declared_in).is_(None), col(RunRow.last) >= epoch))
    session.expire_all()


def forget_uncommitted(session: Session, epoch: int) -> None:
    """Delete the epochs after `epoch` of which the chain does not know the opening, with their tasks."""
    later = col(EpochRow.epoch) > epoch, col(EpochRow.committed_at).is_(None)
    numbers = session.exec(select(EpochRow.epoch).where(*later)).all()
    session.connection().execute(delete(TaskRow).where(col(TaskRow.epoch).in_(numbers)))
    session.connection().execute(delete(EpochRow).where(*later))


# --- runs and jobs ----------------------------------------------------------------------------------------


def runs(session: Session, *, undeclared: bool = False) -> Sequence[RunRow]:
    """Return the retrainings by number; with `undeclared`, those that no bundle has named yet."""
    found = select(RunRow).order_by(col(RunRow.run))
    return session.exec(found.where(col(RunRow.declared_in).is_(None)) if undeclared else found).all()


def run_records(rows: Iterable[RunRow]) -> dict[int, Run]:
    """Return rows as the records that the payout reads."""
    return {r.run: Run(r.run, Epoch(r.first), Epoch(r.last), Hash32(r.snapshot)) for r in rows}


def job(session: Session, name: str, *, lock: bool = False) -> JobRow | None:
    """Return a job by its name; with `lock`, nobody else changes it until this transaction ends."""
    found = select(JobRow).where(JobRow.name == name)
    return session.exec(found.with_for_update() if lock else found).first()


def job_row(session: Session, number: int | None) -> JobRow | None:
    """Return a job by its number; nobody else changes it until this transaction ends."""
    return session.get(JobRow, number, with_for_update=True)


def jobs(session: Session) -> Sequence[JobRow]:
    """Return all jobs, oldest first."""
    return session.exec(select(JobRow).order_by(col(JobRow.id))).all()


def bury_jobs(session: Session, now: float, stale_s: float, max_attempts: int) -> None:
    """Let jobs fail for good whose worker has been silent for `stale_s` and that were tried often enough."""
    silent = and_(col(JobRow.state) == "running", col(JobRow.heartbeat_at) < now - stale_s)
    ended = update(JobRow).where(silent, col(JobRow.attempts) >= max_attempts)
    said = f"tried {max_attempts} times, and its worker died or fell silent: out of memory? see its log"
    session.connection().execute(ended.values(state="failed", error=said))


def claim_job(session: Session, worker: str, now: float, stale_s: float) -> JobRow | None:
    """Give the oldest job that waits, or whose worker has been silent for `stale_s`, to this worker.

    Of two workers that ask at once, one waits for the other and gets the next job.
    """
    silent = and_(col(JobRow.state) == "running", col(JobRow.heartbeat_at) < now - stale_s)
    free = or_(col(JobRow.state) == "queued", silent)
    oldest = select(JobRow).where(free).order_by(col(JobRow.id)).limit(1)
    found = session.exec(oldest.with_for_update()).first()
    if found is None:
        return None
    if found.state == "running":
        found.error = f"attempt {found.attempts}: its worker died or fell silent"
    found.state, found.worker, found.heartbeat_at, found.attempts = "running", worker, now, found.attempts + 1
    session.flush()
    return found
