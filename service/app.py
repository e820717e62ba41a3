"""The web application: routes, problem+json errors, security headers, the start page, and the clock's life."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from importlib import resources
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from chain.errors import HapticError, RpcError
from service import docs, jobs
from service.clock import Stakes
from service.context import Context
from service.database import BUSY_ERRORS
from service.errors import ServiceError
from service.events import Events, read_counts
from service.guard import PROBLEM, Guard, problem
from service.headers import Readers
from service.intake import Intake
from service.leader import Leader, clock_lock
from service.origin import Origins, read_networks
from service.rates import Limits, RateError
from service.routes import contributor, epochs, exports, health, merit, models, public
from service.squeeze import Squeeze

log = logging.getLogger(__name__)
BUSY = (
    "the database is busy, full or away, so this was not recorded for certain; send it again, it counts once"
)
"""A connection that was lost during a commit leaves open whether it was done."""


async def _on_service_error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, ServiceError) else 503 if isinstance(error, RpcError) else 500
    return problem(status, str(error), error.headers if isinstance(error, RateError) else None)


async def _on_gone(_request: Request, _error: Exception) -> JSONResponse:
    """Who sends half a body and goes is nobody's fault here; no line of the log, and no thread, is spent on it."""
    return problem(408, "the body did not come whole")


async def _on_busy(_request: Request, error: Exception) -> JSONResponse:
    log.error("the database refused: %s", error)
    return problem(503, BUSY)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    kind = request.headers.get("content-type", "none")
    if request.method == "POST" and not kind.startswith("application/json"):
        return problem(400, f"send the body with `Content-Type: application/json`; this one had {kind}")
    rows = error.errors() if isinstance(error, RequestValidationError) else []
    said = "; ".join(f"{'.'.join(map(str, r['loc']))}: {r['msg']}" for r in rows)
    return problem(400, said)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    """Say what the framework refuses by itself: a path that is not there, a method that it does not take."""
    if not isinstance(error, HTTPException):
        raise error
    said = {
        404: f"there is nothing at {request.url.path}; /docs lists what there is",
        405: f"{request.url.path} does not take {request.method}; /docs lists what it takes",
    }
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    return problem(error.status_code, said.get(error.status_code, error.detail), headers)


async def _on_fault(_request: Request, _error: Exception) -> JSONResponse:
    """Answer where this program is at fault; the server logs the error with its traceback."""
    return problem(500, "this is a fault of the service, and stands in its log; try again later")


HANDLERS: Final[Mapping[type[Exception], Callable[[Request, Exception], Awaitable[JSONResponse]]]] = {
    HapticError: _on_service_error, RequestValidationError: _on_invalid, HTTPException: _on_http,
    ClientDisconnect: _on_gone, **dict.fromkeys(BUSY_ERRORS, _on_busy),
}  # fmt: skip
"""What is answered where no route did; a fault of this program is not among them, because it has to be logged."""


class Lane:
    """Takes one route past the framework: what it does for any route takes longer than all that a ranking needs.

    The route stands among the others too, so that it is documented; this answers it in the same words.
    """

    def __init__(
        self, app: ASGIApp, method: str, path: str, handle: Callable[[Request], Awaitable[Response]]
    ) -> None:
        self._app, self._method, self._path, self._handle = app, method, path, handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or (scope["path"], scope["method"]) != (self._path, self._method):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._handle(request)
        except tuple(HANDLERS) as error:
            kind = next(kind for kind in type(error).__mro__ if kind in HANDLERS)
            response = await HANDLERS[kind](request, error)
        await response(scope, receive, send)


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
        summary="Staked, signed human rankings that train models.", responses=PROBLEM,
        description="Wallets sign Sessions and Rankings by EIP-712; see /v1/info for the domain.",
        # Theirs are drawn by scripts of a CDN, which no page here may run.
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.context = ctx
    app.state.events = Events(lambda: read_counts(ctx))
    limits = app.state.limits = Limits(ctx.settings)
    app.state.stakes = Stakes(ctx.reader, ctx.deployment)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _on_fault)
    app.include_router(contributor.router, prefix="/v1")
    app.include_router(public.router, prefix="/v1")
    app.include_router(epochs.router, prefix="/v1")
    app.include_router(models.router, prefix="/v1")
    app.include_router(merit.router, prefix="/v1")
    app.include_router(exports.router, prefix="/v1")
    app.include_router(health.router)

    app.add_middleware(Squeeze)
    app.add_middleware(Lane, method="POST", path="/v1/rankings", handle=contributor.rank_at_once)
    origins = Origins(read_networks(ctx.settings.trusted_proxies))
    app.add_middleware(Guard, limits=limits, origins=origins, readers=Readers(ctx.settings.cors_origins))

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def start_page() -> str:
        return resources.files("service").joinpath("web/start.html").read_text(encoding="utf-8")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    def docs_page() -> str:
        return docs.page(app.openapi())

    return app
