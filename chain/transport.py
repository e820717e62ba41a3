"""JSON-RPC to one node over kept-alive HTTP: growing pauses, batches mended call by call, errors without keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import httpx
import msgspec

from chain.errors import RpcError
from chain.exchange import MAX_ANSWER_BYTES, SLOWEST, Exchange, OversizeError, TooSlowError, public_url
from chain.refusals import is_busy, is_local, is_too_large
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
    """The node is there and answered with a JSON-RPC error; `data` holds the bytes of a revert, if any.

    `local` says that it is this node's own trouble, such as a block that it has not: another may answer.
    """

    def __init__(
        self, message: str, *, code: int, text: str, data: bytes | None, local: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.text = text
        self.data = data
        self.local = local


class RpcTimeoutError(RpcError):
    """The node is there and took too long: asking for less at once may do."""


class UnknownBlockError(RpcError):
    """The node has no such block: it lags, has pruned it, or there is none."""


class _TooLargeError(Exception):
    """The node wants fewer calls at once, or would send too much."""


class _Tried(NamedTuple):
    """What one HTTP exchange brought."""

    found: dict[int, msgspec.Raw]
    problem: str = ""
    """What kept the other calls from being answered, as a sentence about the node."""
    wait_s: float = 0.0
    """What the node asks to wait."""
    is_slow: bool = False


def check_url(url: str) -> None:
    """Raise an RpcError, which does not show it, where this is no URL of a node."""
    try:
        parts = urlsplit(url)
        httpx.URL(public_url(url))
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise RpcError(
            "the RPC URL must look like http://host:port or https://host/path; several are separated by commas"
        )


_OVERSIZE = Failure(-32005, f"response size limit exceeded: more than {MAX_ANSWER_BYTES >> 20} MiB")
"""What a node might have said itself of what it sends too much of."""


class Transport:
    """The way to one node.

    Connection errors, unreadable or missing answers, HTTP 429/5xx and errors that say "busy" are tried again up
    to `retries` times with growing pauses (or the server's Retry-After), of a batch only what is missing; then,
    and for every other JSON-RPC error, an RpcError names the node without its keys. Safe to share between
    threads: they take turns on the connection.
    """

    def __init__(
        self, url: str, timeout_s: float, *, retries: int, sleep: Callable[[float], None], name: str
    ) -> None:
        self.name = name
        self._url = url
        self._secrets = _secrets(url)
        self._timeout_s = timeout_s
        self._retries = retries
        self._sleep = sleep
        self._most = BATCH
        self._http = Exchange(url, timeout_s)

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def results(self, calls: Sequence[Call], retries: int | None = None) -> list[msgspec.Raw]:
        """Return the raw results of `calls` in their order; the first error among them is raised."""
        found: list[msgspec.Raw] = []
        while len(found) < len(calls):
            batch = calls[len(found) : len(found) + self._most]
            found += self._exchange(batch, self._retries if retries is None else retries)
        return found

    def _exchange(self, calls: Sequence[Call], retries: int) -> list[msgspec.Raw]:
        """Return the results of one batch, halved for as long as the node finds it too large."""
        try:
            return self._settle(calls, retries)
        except _TooLargeError:
            half = len(calls) // 2
        found = self._exchange(calls[:half], retries)
        self._most = min(self._most, half)
        return found + self._exchange(calls[half:], retries)

    def _settle(self, calls: Sequence[Call], retries: int) -> list[msgspec.Raw]:
        """Ask until every call is answered; those that were are not asked again."""
        found: dict[int, msgspec.Raw] = {}
        pause, left, tries = FIRST_PAUSE_S, retries, 0
        while True:
            tried = self._attempt(calls, [n for n in range(len(calls)) if n not in found])
            known, tries = len(found), tries + 1
            found |= tried.found
            if len(found) == len(calls):
                return [found[n] for n in range(len(calls))]
            if not left:
                kind = RpcTimeoutError if tried.is_slow else RpcError
                raise kind(
                    f"{self.name} {tried.problem}; tried {tries} times. "
                    "Check that the node runs and that the RPC URL is right."
                )
            self._sleep(min(max(tried.wait_s, pause), LONGEST_PAUSE_S))
            if len(found) > known:
                pause = FIRST_PAUSE_S
            else:
                left -= 1
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _attempt(self, calls: Sequence[Call], waiting: Sequence[int]) -> _Tried:
        """Ask for the calls that wait, under their places among all, in one HTTP exchange."""
        wanted = [
            {"jsonrpc": "2.0", "id": n, "method": calls[n][0], "params": list(calls[n][1])} for n in waiting
        ]
        try:
            body = msgspec.json.encode(wanted if len(wanted) > 1 else wanted[0])
            response, content = self._http.post(body)
            if response.status_code in BUSY:
                slow = response.status_code == HTTPStatus.GATEWAY_TIMEOUT
                return _Tried(
                    {}, f"does not answer: HTTP {response.status_code}", _retry_after(response), slow
                )
            if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(waiting) > 1:
                raise _TooLargeError
            return self._sort(calls, waiting, self._answers(response, content))
        except OversizeError:
            if len(waiting) > 1:
                raise _TooLargeError from None
            refusal = self._refusal(_OVERSIZE, calls[waiting[0]])
            # Only a range of logs can be asked for in parts; of anything else another node may have less to say.
            refusal.local |= calls[waiting[0]][0] != "eth_getLogs"
            raise refusal from None
        except TooSlowError:
            longest = f"{SLOWEST * self._timeout_s:g} s"
            return _Tried({}, f"does not answer: it drips, and was not done within {longest}", is_slow=True)
        except httpx.TimeoutException:
            return _Tried({}, f"does not answer: no answer within {self._timeout_s:g} s", is_slow=True)
        except (httpx.TransportError, httpx.DecodingError) as error:
            return _Tried({}, f"does not answer: {self._scrub(str(error)) or type(error).__name__}")
        except (msgspec.DecodeError, RecursionError):
            return _Tried({}, "does not answer: the answer is no JSON-RPC (cut off, or a web page)")

    def _sort(self, calls: Sequence[Call], waiting: Sequence[int], answers: Sequence[Answer]) -> _Tried:
        """Return what was answered; the first error that no other attempt cures is raised."""
        given = {answer.id: answer for answer in answers}
        if len(answers) == 1 and (refused := answers[0].error) is not None:
            method = calls[waiting[0]][0]
            # A batch that is refused as a whole gets one error, under whatever id.
            if len(waiting) > 1 and not is_busy(refused, method):
                raise _TooLargeError
            given = dict.fromkeys(waiting, answers[0])
        elif len(given) < len(answers) or not given.keys() <= set(waiting):
            # Where one id is wrong, so may be those that look right: `latest` must not pass for `finalized`.
            given = {}
        found: dict[int, msgspec.Raw] = {}
        problem = ""
        for n in waiting:
            method, answer = calls[n][0], given.get(n, Answer())
            if answer.error is None and bytes(answer.result):
                found[n] = answer.result
                continue
            again = f"sent no result for {method}"
            if answer.error is not None:
                cured = is_too_large(answer.error, method) and len(waiting) > 1
                if not cured and not is_busy(answer.error, method):
                    raise self._refusal(answer.error, calls[n])
                again = f"refused {method}: {self._scrub(answer.error.message)} (code {answer.error.code})"
            problem = problem or again
        return _Tried(found, problem)

    def _refusal(self, error: Failure, call: Call) -> RpcAnswerError:
        method, params = call
        text = self._scrub(error.message)
        data = error.data.get("data") if isinstance(error.data, dict) else error.data
        try:
            revert = bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else None
        except ValueError:
            revert = None
        said = f"{self.name} refused {method}: {text} (code {error.code})"
        return RpcAnswerError(
            said, code=error.code, text=text, data=revert, local=is_local(error, method, params)
        )

    def _answers(self, response: httpx.Response, content: bytes) -> list[Answer]:
        if response.is_success:
            return answers_of(content)
        try:
            answers = answers_of(content)
        except (msgspec.DecodeError, RecursionError):
            answers = []
        if any(answer.error for answer in answers):
            return answers
        raise RpcError(f"{self.name} answered HTTP {response.status_code}: check the RPC URL and its key")

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _secrets(url: str) -> list[str]:
    """Return the pieces of a URL that may be a key, longest first."""
    parts = urlsplit(url)
    pieces = [url, parts.path, parts.query, parts.username or "", parts.password or ""]
    pieces += parts.path.split("/") + [pair.partition("=")[2] for pair in parts.query.split("&")]
    return sorted(
        {p for piece in pieces for p in (piece, unquote(piece)) if len(p) > 5}, key=len, reverse=True
    )
