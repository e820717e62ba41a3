"""What every request passes first and every answer last: a limit on bodies, security headers, problem+json."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 256 * 1024
"""No signed message with its comment is larger."""
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:",
}


class Problem(BaseModel):
    """An error, as RFC 9457 has it: what the status means, and what was wrong here."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {
        "description": "What is wrong with the request, in words",
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
}
"""What the OpenAPI document says of refusals; every one has this form."""


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as application/problem+json (RFC 9457)."""
    # A lone surrogate that somebody sent has no UTF-8 form; escaped, it can be sent back.
    shown = detail.encode("utf-8", "backslashreplace").decode()
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=shown).model_dump()
    return JSONResponse(body, status, HEADERS | dict(headers or {}), media_type="application/problem+json")


class Guard:
    """Refuses bodies that are too large, and sets the security headers.

    Plain ASGI: a middleware that sees Request and Response would take longer than all else a request needs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    if scope["path"] not in {"/docs", "/redoc"} or name != "Content-Security-Policy":
                        headers.setdefault(name, value)
            await send(message)

        refused = _refusal(Headers(scope=scope))
        if refused is not None:
            await refused(scope, receive, answer)
            return
        await self._app(scope, receive, answer)


def _refusal(headers: Headers) -> JSONResponse | None:
    size = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        return problem(411, "send the body with a Content-Length, not in chunks")
    if not size.isdecimal() or int(size) > MAX_BODY_BYTES:
        return problem(413, f"the body has {size} bytes, at most {MAX_BODY_BYTES} are taken")
    return None
