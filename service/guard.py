"""What every request passes first and every answer last: a limit on bodies, security headers, problem+json."""

from __future__ import annotations

from typing import Final

from fastapi.responses import JSONResponse
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


def problem(status: int, title: str, detail: str) -> JSONResponse:
    """Return an error as application/problem+json (RFC 9457)."""
    # A lone surrogate that somebody sent has no UTF-8 form; escaped, it can be sent back.
    shown = detail.encode("utf-8", "backslashreplace").decode()
    body = {"type": "about:blank", "title": title, "status": status, "detail": shown}
    return JSONResponse(body, status, media_type="application/problem+json")


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
        return problem(411, "LengthRequired", "send the body with a Content-Length, not in chunks")
    if not size.isdecimal() or int(size) > MAX_BODY_BYTES:
        return problem(413, "TooLarge", f"the body has {size} bytes, at most {MAX_BODY_BYTES} are taken")
    return None
