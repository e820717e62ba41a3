"""JSON-RPC over kept-alive HTTP connections: retries with growing pauses, errors that never show a key."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import msgspec

from chain.errors import RpcError
from chain.wire import Answer, Failure, answers_of

Call = tuple[str, Sequence[Any]]
"""A JSON-RPC method and its parameters."""

BATCH = 100
"""Most calls in one HTTP request; providers refuse larger batches."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that another attempt can cure."""


class RpcAnswerError(RpcError):
    """The node is there and answered with a JSON-RPC error; `data` holds the bytes of a revert, if any."""

    def __init__(self, message: str, *, code: int, text: str, data: bytes | None) -> None:
        super().__init__(message)
        self.code = code
        self.text = text
        self.data = data


def public_url(url: str) -> str:
    """Return scheme, host and port of `url`: user, path and query may hold a provider's key."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}" + ("/…" if parts.path.strip("/") else "")


class _NoKeys(logging.Filter):
    """Takes everything that may be a key out of the URLs that httpx logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(public_url(str(x)) if isinstance(x, httpx.URL) else x for x in record.args)
        return True


_NO_KEYS = _NoKeys()


class Transport:
    """The way to one node.

    Connection errors, unreadable answers and HTTP 429/5xx are tried again up to `retries` times with growing
    pauses (or the server's Retry-After); then, and for every JSON-RPC error, an RpcError names the node
    without its keys. Safe to share between threads: they take turns on the connection.
    """

    def __init__(self, url: str, timeout_s: float, *, retries: int, sleep: Callable[[float], None]) -> None:
        try:
            parts = urlsplit(url)
            self.name = public_url(url)
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL):
            parts, self.name = urlsplit(""), ""
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise RpcError("the RPC URL must look like http://host:port or https://host/path")
        self._url = url
        self._secrets = _secrets(url)
        self._timeout_s = timeout_s
        self._retries = retries
        self._sleep = sleep
        logging.getLogger("httpx").addFilter(_NO_KEYS)
        self._http = httpx.Client(
            timeout=timeout_s,
            # Reading the certificates takes 40 ms, which plain HTTP to a node next door can do without.
            verify=parts.scheme == "https",
            # No upper limit: with one connection for several threads the pool loses wake-ups and stalls for 10 s.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            headers={"content-type": "application/json"},
            mounts={f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")},
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def results(self, calls: Sequence[Call]) -> list[msgspec.Raw]:
        """Return the raw results of `calls` in their order; the first error among them is raised."""
        found: list[msgspec.Raw] = []
        for start in range(0, len(calls), BATCH):
            found += self._exchange(calls[start : start + BATCH])
        return found

    def _exchange(self, calls: Sequence[Call]) -> list[msgspec.Raw]:
        wanted = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
            for number, (method, params) in enumerate(calls)
        ]
        answers = self._post(msgspec.json.encode(wanted if len(wanted) > 1 else wanted[0]))
        for answer in answers:
            if answer.error is not None:
                known = isinstance(answer.id, int) and answer.id < len(calls)
                raise self._refusal(answer.error, calls[answer.id][0] if known else calls[0][0])  # type: ignore[index]
        by_id = {answer.id: answer.result for answer in answers}
        missing = [calls[n][0] for n in range(len(calls)) if not bytes(by_id.get(n, b""))]
        if missing:
            raise RpcError(f"{self.name} sent no result for {missing[0]}: use another node")
        return [by_id[n] for n in range(len(calls))]

    def _refusal(self, error: Failure, method: str) -> RpcAnswerError:
        text = self._scrub(error.message)
        data = error.data.get("data") if isinstance(error.data, dict) else error.data
        try:
            revert = bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else None
        except ValueError:
            revert = None
        said = f"{self.name} refused {method}: {text} (code {error.code})"
        return RpcAnswerError(said, code=error.code, text=text, data=revert)

    def _post(self, body: bytes) -> list[Answer]:
        """Return the answers of one HTTP exchange, tried again where that can help."""
        pause = FIRST_PAUSE_S
        for left in range(self._retries, -1, -1):
            wait = pause
            try:
                response = self._http.post(self._url, content=body)
                if response.status_code not in BUSY:
                    return self._answers(response)
                problem = f"HTTP {response.status_code}"
                wait = _retry_after(response, pause)
            except httpx.TimeoutException:
                problem = f"no answer within {self._timeout_s:g} s"
            except (httpx.TransportError, httpx.DecodingError) as error:
                problem = self._scrub(str(error)) or type(error).__name__
            except msgspec.DecodeError:
                problem = "the answer is no JSON-RPC (cut off, or a web page)"
            if left:
                self._sleep(wait)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        raise RpcError(
            f"{self.name} does not answer: {problem}; tried {self._retries + 1} times. "
            "Check that the node runs and that the RPC URL is right."
        )

    def _answers(self, response: httpx.Response) -> list[Answer]:
        if response.is_success:
            return answers_of(response.content)
        try:
            answers = answers_of(response.content)
        except msgspec.DecodeError:
            answers = []
        if any(answer.error for answer in answers):
            return answers
        raise RpcError(f"{self.name} answered HTTP {response.status_code}: check the RPC URL and its key")

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    text = response.headers.get("retry-after", "")
    return min(max(float(text), otherwise), LONGEST_PAUSE_S) if text.isdigit() else otherwise


def _secrets(url: str) -> list[str]:
    """Return the pieces of a URL that may be a key, longest first."""
    parts = urlsplit(url)
    pieces = [url, parts.path, parts.query, parts.username or "", parts.password or ""]
    pieces += parts.path.split("/") + [pair.partition("=")[2] for pair in parts.query.split("&")]
    return sorted(
        {p for piece in pieces for p in (piece, unquote(piece)) if len(p) > 5}, key=len, reverse=True
    )
