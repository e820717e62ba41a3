"""The web application: routes, problem+json errors, security headers, the start page, and the clock's life."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from importlib import resources

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from chain.errors import HapticError, RpcError
from service import jobs
from service.context import Context
from service.errors import ServiceError
from service.leader import Leader, clock_lock
from service.routes import contributor, exports, health, public

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 256 * 1024
"""No signed message with its comment is larger."""
BUSY = (
    "the database is busy, full or away, so this was not recorded for certain; send it again, it counts once"
)
"""A connection that was lost during a commit leaves open whether it was done."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:",
}


def problem(status: int, title: str, detail: str) -> JSONResponse:
    """Return an error as application/problem+json (RFC 9457)."""
    # A lone surrogate that somebody sent has no UTF-8 form; escaped, it can be sent back.
    shown = detail.encode("utf-8", "backslashreplace").decode()
    body = {"type": "about:blank", "title": title, "status": status, "detail": shown}
    return JSONResponse(body, status, media_type="application/problem+json")


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


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse bodies that are too large, and set the security headers."""
    size = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers:
        return problem(411, "LengthRequired", "send the body with a Content-Length, not in chunks")
    if not size.isdecimal() or int(size) > MAX_BODY_BYTES:
        return problem(413, "TooLarge", f"the body has {size} bytes, at most {MAX_BODY_BYTES} are taken")
    response = await call_next(request)
    for name, value in HEADERS.items():
        if request.url.path not in {"/docs", "/redoc"} or name != "Content-Security-Policy":
            response.headers.setdefault(name, value)
    return response


def create_app(ctx: Context, *, clock: bool = True) -> FastAPI:
    """Return the application of a context; with `clock` it runs the jobs while it serves."""
    # eth_account imports py_ecc, which allows 100,000: a body of that many brackets would overflow the C stack.
    sys.setrecursionlimit(1000)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as ending:
            ending.callback(ctx.close)
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
    app.add_exception_handler(HapticError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    # Locked, full, gone, its disk broken, being restarted, or a standby that only reads.
    for busy in (OperationalError, InternalError, PoolTimeoutError):
        app.add_exception_handler(busy, _on_busy)
    app.include_router(contributor.router, prefix="/v1")
    app.include_router(public.router, prefix="/v1")
    app.include_router(exports.router, prefix="/v1")
    app.include_router(health.router)

    app.middleware("http")(_guard)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def start_page() -> str:
        return resources.files("service").joinpath("web/start.html").read_text(encoding="utf-8")

    return app
