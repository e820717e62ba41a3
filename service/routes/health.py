"""Routes for whoever runs the service: is it well, is it ready, and what Prometheus scrapes."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from chain.errors import HapticError
from service.context import Context
from service.metrics import registry
from service.routes.depends import Ctx
from service.status import lag

router = APIRouter(tags=["health"])
STALE_S = 60.0
"""A job that has not run for so long is taken for stuck."""
LAG_S = 300
"""Seconds of block time that the index may be behind the finalized block."""


class Health(BaseModel):
    """Whether all of the service works, and what does not."""

    ok: bool
    leader: bool
    errors: dict[str, str] = Field(description="by job: what it failed with")
    late: list[str] = Field(description="jobs that have not run for too long")
    behind: str = Field(description="why what is shown may be old, in words; empty where it is not")
    jobs: dict[str, str] = Field(description="by job: what it did or waits for")


class Readiness(BaseModel):
    """Whether requests can be answered."""

    ok: bool
    reason: str


NOT_WELL: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "Something does not work."}
}
NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Readiness, "description": "Not now."}}


@router.get("/healthz", responses=NOT_WELL)
def healthz(ctx: Ctx, response: Response) -> Health:
    """200 while every job runs, the chain goes on and the index keeps up with it; 503 with the reasons otherwise.

    `leader` says whether it is this replica that runs the jobs.
    """
    pulse, now = ctx.pulse, time.time()
    late = [n for n, at in dict(pulse.ran_at).items() if now - at > max(STALE_S, 10 * ctx.settings.tick_s)]
    behind = _behind(ctx)
    well = not (pulse.errors or late or behind)
    response.status_code = 200 if well else 503
    return Health(
        ok=well, leader=pulse.leads, errors=dict(pulse.errors), late=late, behind=behind, jobs=dict(pulse.waits)
    )  # fmt: skip


@router.get("/readyz", responses=NOT_READY)
def readyz(ctx: Ctx, response: Response) -> Readiness:
    """200 while requests can be answered: database and node do, nothing here is old; 503 with the reason otherwise."""
    behind = _behind(ctx)
    response.status_code = 503 if behind else 200
    return Readiness(ok=not behind, reason=behind)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(ctx: Ctx) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(registry(ctx)), media_type=CONTENT_TYPE_LATEST)


def _behind(ctx: Context) -> str:
    """Return in words why what is shown here may be old; nothing where it is not."""
    try:
        with ctx.db.read() as db:
            patience = ctx.settings.patience(ctx.deployment.chain_id)
            return lag(ctx.reader, db, LAG_S, time.time(), patience)
    except HapticError as error:
        return str(error)
    except SQLAlchemyError:
        # Not its own words: they may quote what is stored.
        return "the database does not answer"
