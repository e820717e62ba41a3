"""The web application: routes, problem+json errors, security headers, the start page, and the clock's life."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib import resources

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from chain.errors import HapticError, RpcError
from service import jobs
from service.clock import Stakes
from service.context import Context
from service.errors import ServiceError
from service.guard import Guard, problem
from service.intake import Intake
from service.leader import Leader, clock_lock
from service.routes import contributor, health, public

log = logging.getLogger(__name__)
BUSY = (
    "the database is busy, full or away, so this was not recorded for certain; send it again, it counts once"
)
"""A connection that was lost during a commit leaves open whether it was done."""


def _title(error: Exception) -> str:
    return type(error).__name__.removesuffix("Error")


async def _on_service_error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, ServiceError) else 503 if isinstance(error, RpcError) else 500
    return problem(status, _title(error), str(error))


async def _on_busy(_request: Request, error: Exception) -> JSONResponse:
    log.error("the database refused: %s", error)
    return problem(503, "Unavailable", BUSY)


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    rows = error.errors() if isinstance(error, RequestValidationError) else []
    said = "; ".join(f"{'.'.join(map(str, r['loc']))}: {r['msg']}" for r in rows)
    return problem(400, "BadRequest", said)


def create_app(ctx: Context, *, clock: bool = True) -> FastAPI:
    """Return the application of a context; with `clock` it runs the jobs while it serves."""
    # eth_account imports py_ecc, which allows 100,000: a body of that many brackets would overflow the C stack.
    sys.setrecursionlimit(1000)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as ending:
            ending.callback(ctx.close)
            intake = app.state.intake = Intake(ctx.db, ctx.desk, ctx.place, ctx.clock)
            ending.callback(intake.close)
            if clock:
                leader = ending.enter_context(Leader(clock_lock(ctx.db, ctx.deployment), ctx.pulse))
                scheduler = jobs.schedule(ctx, leader)
                scheduler.start()
                # The steps that run end before the lock is let go.
                ending.callback(scheduler.shutdown, wait=True)
            yield

    app = FastAPI(
        title="Haptic", version="1", lifespan=life,
        summary="Staked, signed human rankings that train models.",
        description="Wallets sign Sessions and Rankings by EIP-712; see /v1/info for the domain.",
    )  # fmt: skip
    app.state.context = ctx
    app.state.stakes = Stakes(ctx.reader, ctx.deployment)
    app.add_exception_handler(HapticError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    # Locked, full, gone, its disk broken, being restarted, or a standby that only reads.
    for busy in (OperationalError, InternalError, PoolTimeoutError):
        app.add_exception_handler(busy, _on_busy)
    app.include_router(contributor.router, prefix="/v1")
    app.include_router(public.router, prefix="/v1")
    app.include_router(health.router)

    app.add_middleware(Guard)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def start_page() -> str:
        return resources.files("service").joinpath("web/start.html").read_text(encoding="utf-8")

    return app
