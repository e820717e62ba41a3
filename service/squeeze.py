"""Large public JSON is sent compressed to whoever takes that; what is private or streamed is left as it is."""

from __future__ import annotations

import gzip
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LEAST: Final = 2048
"""Bytes below which the packet is as long either way."""
LEVEL: Final = 1
"""4 ms of CPU for a megabyte of scores; the best level takes ten times that for a tenth less."""


class Squeeze:
    """Compresses what comes in one part, is JSON, and was asked for without a token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "GET" or not _takes_gzip(scope):
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def squeezed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                if _fits(start, message):
                    body = gzip.compress(message["body"], LEVEL, mtime=0)
                    kept = [h for h in start["headers"] if h[0] != b"content-length"]
                    start["headers"] = [
                        *kept, (b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding"),
                        (b"content-length", str(len(body)).encode()),
                    ]  # fmt: skip
                    message = {**message, "body": body}
                await send(start)
                start = None
            await send(message)

        await self._app(scope, receive, squeezed)


def _takes_gzip(scope: Scope) -> bool:
    found = dict(scope["headers"])
    return b"gzip" in found.get(b"accept-encoding", b"") and b"authorization" not in found


def _fits(start: Message, message: Message) -> bool:
    headers = dict(start["headers"])
    return (
        headers.get(b"content-type") == b"application/json"
        and b"etag" not in headers
        and not message.get("more_body", False)
        and len(message.get("body", b"")) >= LEAST
    )
