"""Retrainings, and the jobs that workers take, as functions of a session; the caller commits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import ColumnElement, and_, not_, or_, update
from sqlmodel import Session, col, select

from chain.bundle import Run
from chain.types import Epoch, Hash32
from service.ledger.tables import JobRow, RunRow

CLUSTER = "haptic-"
"""How the worker's token of a job begins that runs on a cluster: with the name of its submission there."""


def runs(session: Session, *, undeclared: bool = False) -> Sequence[RunRow]:
    """Return the retrainings by number; with `undeclared`, those that no bundle has named yet."""
    found = select(RunRow).order_by(col(RunRow.run))
    return session.exec(found.where(col(RunRow.declared_in).is_(None)) if undeclared else found).all()


def newest_runs(session: Session, before: int | None, limit: int) -> Sequence[RunRow]:
    """Return the retrainings, or those before one, the newest first, at most so many."""
    found = select(RunRow).order_by(col(RunRow.run).desc()).limit(limit)
    return session.exec(found if before is None else found.where(RunRow.run < before)).all()


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


def newest_jobs(session: Session, before: int | None, limit: int) -> Sequence[JobRow]:
    """Return the jobs, or those before one, the newest first, at most so many."""
    found = select(JobRow).order_by(col(JobRow.id).desc()).limit(limit)
    return session.exec(found if before is None else found.where(col(JobRow.id) < before)).all()


def answered(session: Session) -> dict[str, set[int]]:
    """Return for which epochs each model was asked to answer."""
    found: dict[str, set[int]] = {}
    for name in session.exec(select(JobRow.name).where(col(JobRow.name).startswith("answer/"))):
        _, epoch, model = name.split("/")
        found.setdefault(model, set()).add(int(epoch))
    return found


def jobs_by_number(session: Session, among: Collection[int]) -> dict[int | None, JobRow]:
    """Return these jobs by their numbers."""
    return {j.id: j for j in session.exec(select(JobRow).where(col(JobRow.id).in_(among)))}


def submission(worker: str) -> str:
    """Return the name under which a cluster has a job, by its worker's token; none where it runs as a child."""
    return worker.partition(" ")[0] if worker.startswith(CLUSTER) else ""


def left_to_cluster(session: Session, now: float, stale_s: float) -> list[str]:
    """Return the jobs, by name, that only a worker with a cluster takes, and none of those has at the moment."""
    idle = or_(col(JobRow.state).in_(("queued", "failed")), _silent(now, stale_s))
    return list(session.exec(select(JobRow.name).where(_on_cluster(), idle).order_by(col(JobRow.id))))


def bury_jobs(session: Session, now: float, stale_s: float, max_attempts: int) -> None:
    """Let jobs fail for good whose worker has been silent for `stale_s` and that were tried often enough.

    What a cluster has goes on without its worker: the next one follows it.
    """
    silent = and_(_silent(now, stale_s), not_(_on_cluster()))
    ended = update(JobRow).where(silent, col(JobRow.attempts) >= max_attempts)
    said = f"tried {max_attempts} times, and its worker died or fell silent: out of memory? see its log"
    session.connection().execute(ended.values(state="failed", error=said))


def claim_job(
    session: Session, worker: str, now: float, stale_s: float, *, cluster: bool = False
) -> JobRow | None:
    """Give the oldest job that waits, or whose worker has been silent for `stale_s`, to this worker.

    Of two workers that ask at once, one waits for the other and gets the next job. With `cluster`, the job keeps the
    submission that it has, or gets the name of a new one; who knows no cluster is given no job that may run on one.
    """
    free = or_(col(JobRow.state) == "queued", _silent(now, stale_s))
    if not cluster:
        free = and_(free, not_(_on_cluster()))
    oldest = select(JobRow).where(free).order_by(col(JobRow.id)).limit(1)
    found = session.exec(oldest.with_for_update()).first()
    if found is None:
        return None
    if found.state == "running":
        found.error = f"attempt {found.attempts}: its worker died or fell silent"
    if cluster:
        worker = f"{submission(found.worker) or CLUSTER + worker} {worker}"
    found.state, found.worker, found.heartbeat_at, found.attempts = "running", worker, now, found.attempts + 1
    session.flush()
    return found


def _silent(now: float, stale_s: float) -> ColumnElement[bool]:
    return and_(col(JobRow.state) == "running", col(JobRow.heartbeat_at) < now - stale_s)


def _on_cluster() -> ColumnElement[bool]:
    return col(JobRow.worker).startswith(CLUSTER)
