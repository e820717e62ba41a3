"""What every request passes first and every answer last: sizes, rate limits, the headers worn, problem+json."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.headers import HEADERS, Readers, worn
from service.origin import Origins
from service.rates import Limits, RateError

MAX_BODY_BYTES: Final = 256 * 1024
"""No signed message with its comment is larger."""
MAX_HEAD_BYTES: Final = 32 * 1024
"""Of all headers and the path together."""
HEAD: Final = "haptic.head"
"""Set in the scope of a GET whose body nobody will see: what is costly to make need not be made."""
ORIGIN: Final = "haptic.origin"
"""The address that a request is counted under, in its scope."""


class Problem(BaseModel):
    """An error, as RFC 9457 has it: what the status means, and what was wrong here."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


_FORM: Final = {"application/problem+json": {"schema": Problem.model_json_schema()}}
_SECONDS: Final = {"description": "seconds until it is worth trying again", "schema": {"type": "integer"}}
PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {
        "description": "What is wrong with the request, in words; 429 says by Retry-After when to come again",
        "content": _FORM,
        "headers": {"Retry-After": _SECONDS},
    },
    "5XX": {
        "description": "503: the chain or the database cannot be asked now, try again; 500: a fault of the service",
        "content": _FORM,
        "headers": {"Retry-After": _SECONDS},
    },
}
"""What the OpenAPI document says of refusals; every one has this form."""


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as application/problem+json (RFC 9457)."""
    # A lone surrogate that somebody sent has no UTF-8 form; escaped, it can be sent back.
    shown = detail.encode("utf-8", "backslashreplace").decode()
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=shown).model_dump()
    given = {**HEADERS, "Cache-Control": "no-store", **(headers or {})}
    return JSONResponse(body, status, given, media_type="application/problem+json")


class Guard:
    """Refuses what is too large or too much, lets HEAD ask as GET does, and puts on each answer what it wears.

    Plain ASGI: a middleware that sees Request and Response would take longer than all else a request needs.
    """

    def __init__(self, app: ASGIApp, limits: Limits, origins: Origins, readers: Readers) -> None:
        self._app, self._limits, self._origins, self._readers = app, limits, origins, readers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, method, path = dict(scope["headers"]), scope["method"], scope["path"]
        address, secure = self._origins.of(scope, headers)
        private = method == "POST" or b"authorization" in headers
        given = [*worn(path, private=private, secure=secure), *self._readers.allowed(headers)]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message["headers"]
                names = {name for name, _ in own}
                message["headers"] = [*own, *(h for h in given if h[0] not in names or h[0] == b"vary")]
            await send(message)

        app: ASGIApp
        if (allowed := self._readers.preflight(method, headers)) is not None:
            given = [*worn(path, private=True, secure=secure), *allowed]
            app = Response(status_code=204)
        else:
            try:
                quota, left = self._limits.arrive(address, method, path)
                if quota.most:
                    given += [
                        (b"ratelimit-policy", quota.policy.encode()),
                        (b"ratelimit", f'"{quota.name}";r={left}'.encode()),
                    ]
                app = _refusal(scope, headers) or self._app
            except RateError as error:
                app = problem(error.status, str(error), error.headers)
        # uvicorn has the scope that came in, and leaves the body out itself.
        as_get = {"method": "GET", HEAD: True} if method == "HEAD" else {}
        await app({**scope, **as_get, ORIGIN: address}, receive, answer)


def _refusal(scope: Scope, headers: Mapping[bytes, bytes]) -> JSONResponse | None:
    size = headers.get(b"content-length", b"0").decode("latin-1")
    head = sum(len(k) + len(v) for k, v in scope["headers"]) + len(scope.get("raw_path", b""))
    if head + len(scope["query_string"]) > MAX_HEAD_BYTES:
        return problem(431, f"path and headers have {head} bytes, at most {MAX_HEAD_BYTES} are taken")
    if b"transfer-encoding" in headers:
        return problem(411, "send the body with a Content-Length, not in chunks")
    if (
        not (size.isascii() and size.isdecimal())
        or len(size) > len(str(MAX_BODY_BYTES))
        or int(size) > MAX_BODY_BYTES
    ):
        return problem(413, f"the body has {size[:40]} bytes, at most {MAX_BODY_BYTES} are taken")
    return None
