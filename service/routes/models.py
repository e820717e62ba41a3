"""Routes about the models: their rating by people's labels, the retrainings, and the work that is being done."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service import training
from service.ledger import results, work
from service.ledger.tables import RunRow
from service.promotion import Decision, Verdict
from service.routes.depends import Ctx, Reading
from service.routes.pages import NEXT, Paged
from trainer.rating import Result, rate

router = APIRouter(tags=["public"])


class ModelAnswer(BaseModel):
    """A model in the arena: its rating by people's labels."""

    model: str
    published: bool = Field(description="it is the one that the next retraining starts from")
    rating: float = Field(
        description="Bradley-Terry over the tasks that it won and lost, Elo scale; the models' mean is 1000"
    )
    low: float
    high: float
    wins: int = Field(description="tasks in which its answers came out ahead of another model's")
    losses: int


class MeetingAnswer(BaseModel):
    """A closed epoch in which people compared the two, and the votes of its tasks."""

    epoch: int
    won: int
    lost: int


class GateAnswer(BaseModel):
    """Whether people ranked a retrained model better than the one it came from: one vote a task, by the labels."""

    decision: Decision = Field(
        description="promoted, rolled back, waiting, or set aside because what it came from is not published"
    )
    parent: str = Field(description="the model that it came from and is compared with")
    won: int = Field(description="tasks in which its answers came out ahead")
    lost: int = Field(description="tasks in which its parent's did")
    needed: int = Field(description="so many votes decide")
    chance: float = Field(description="how probable so many votes for it, or more, are where each is a coin")
    meetings: list[MeetingAnswer] = Field(
        description="the epochs that this follows from, the last of them that which decided"
    )
    said: str = Field(description="all of this in words")


class RunAnswer(BaseModel):
    """A retraining."""

    run: int
    first_epoch: int
    last_epoch: int
    snapshot: str
    model: str
    state: str
    attempts: int
    progress: dict[str, Any]
    error: str
    metrics: dict[str, Any] = Field(description="of the trained model, once it is in the registry")
    gate: GateAnswer | None = Field(
        description="what people said of the trained model; null before it is in the registry, and without an arena"
    )
    problem: str = Field(
        description="why metrics or gate cannot be shown, such as a damaged entry of the registry, and what to do; "
        "empty where they can"
    )


class Work(BaseModel):
    """A job of the training workers."""

    name: str
    state: str = Field(description="queued, running, done or failed")
    attempts: int
    error: str
    progress: dict[str, Any]


class JobsAnswer(BaseModel):
    """What is being done."""

    clock: dict[str, str] = Field(description="by job of the clock: what it did or waits for")
    errors: dict[str, str] = Field(description="by job of the clock: what it failed with")
    work: list[Work] = Field(description="newest first")


@router.get("/models")
def models(ctx: Ctx, db: Reading) -> list[ModelAnswer]:
    """The arena: models by Bradley-Terry rating over people's labels of closed epochs."""
    counts: dict[tuple[str, str], int] = {}
    for m in (m for m in results.matches(db) if m.count):
        counts[m.winner, m.loser] = counts.get((m.winner, m.loser), 0) + m.count
    published = training.published(db, ctx.settings)
    rated = rate(Result(w, x, float(n)) for (w, x), n in sorted(counts.items()))
    return [
        ModelAnswer(
            model=r.name, published=r.name == published,
            rating=_elo(r.strength), low=_elo(r.low), high=_elo(r.high),
            wins=sum(n for (w, _), n in counts.items() if w == r.name),
            losses=sum(n for (_, x), n in counts.items() if x == r.name),
        )
        for r in rated
    ]  # fmt: skip


def _elo(strength: float) -> float:
    """Return log-odds on the Elo scale: 400 points are odds of 10 to 1."""
    return 1000 + 400 * strength / math.log(10)


@router.get("/runs", responses=NEXT)
def runs(ctx: Ctx, db: Reading, page: Paged) -> list[RunAnswer]:
    """All retrainings with their progress, their results and what people said of them, newest first."""
    (before,) = page.after(1) or (None,)
    found = page.cut(work.newest_runs(db, before, page.wanted), lambda r: (r.run,))
    jobs = work.jobs_by_number(db, [r.job for r in found])
    now, unsaid = training.told(db, ctx.settings)
    verdicts = now.verdicts if now else {}

    def shown(r: RunRow) -> RunAnswer:
        metrics, damaged = training.metrics(ctx.settings, r.model)
        return RunAnswer(
            run=r.run, first_epoch=r.first, last_epoch=r.last, snapshot=r.snapshot, model=r.model,
            state=jobs[r.job].state, attempts=jobs[r.job].attempts, progress=jobs[r.job].progress,
            error=jobs[r.job].error, metrics=dict(metrics), problem=damaged or unsaid,
            gate=_gate(verdicts[r.model]) if r.model in verdicts else None,
        )  # fmt: skip

    return [shown(r) for r in found]


def _gate(verdict: Verdict) -> GateAnswer:
    return GateAnswer(
        decision=verdict.decision, parent=verdict.parent, won=verdict.won, lost=verdict.lost, needed=verdict.needed,
        chance=verdict.chance, said=verdict.said,
        meetings=[MeetingAnswer(epoch=m.epoch, won=m.won, lost=m.lost) for m in verdict.meetings],
    )  # fmt: skip


@router.get("/jobs", responses=NEXT)
def job_list(ctx: Ctx, db: Reading, page: Paged) -> JobsAnswer:
    """What the clock is waiting for, and the work of the training workers."""
    (before,) = page.after(1) or (None,)
    found = [
        Work(name=j.name, state=j.state, attempts=j.attempts, error=j.error, progress=j.progress)
        for j in page.cut(work.newest_jobs(db, before, page.wanted), lambda j: (j.id or 0,))
    ]
    return JobsAnswer(clock=dict(ctx.pulse.waits), errors=dict(ctx.pulse.errors), work=found)
