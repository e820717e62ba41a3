"""A service by its URL: requests sent with patience, answers and lists read to a bound, errors said in its words."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

import httpx

from chain.exchange import MAX_ANSWER_BYTES, SLOWEST, TooSlowError, Watchdog
from chain.messages import Domain
from service import answers
from service.answers import ApiError, Info, UnsentError

PATIENCE: Final = 10
"""How often a request is sent again that the service's limits put off."""
LONGEST_WAIT_S: Final = 60
PAGE: Final = 500
"""Most rows of a list that a service gives at once."""
MAX_PAGES: Final = 1000
MAX_LIST_BYTES: Final = 1 << 28
"""Most that is read of one list: no wallet's epoch is half as long."""
_UNOPENED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""What httpx says where it has no connection, so that not a byte of the request was sent."""


class _Answer(NamedTuple):
    """An HTTP answer, read to its end."""

    head: httpx.Response
    body: bytes


class Api:
    """A service by its URL. It is not trusted: what it sends is bounded in size and time, and read by `answers`."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._longest_s = SLOWEST * timeout_s
        self._watchdog = Watchdog()
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout_s)
        except httpx.InvalidURL as error:
            raise ApiError(f"{url!r} is no URL ({error}); it looks like http://127.0.0.1:8000") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def request(
        self, method: str, path: str, *, token: str = "", body: Any = None, params: Any = None
    ) -> Any:
        """Return the JSON answer; ApiError with the service's own words otherwise.

        An UnsentError where no connection was opened: the service knows nothing of the request then.
        """
        return self._read(self._send(method, path, token, body, params))

    def _send(self, method: str, path: str, token: str, body: Any, params: Any) -> _Answer:
        """Return the answer, sending again what was put off (429) when the service said to."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            for _ in range(PATIENCE):
                answer = self._once(method, path, json=body, params=params, headers=headers)
                wait = answer.head.headers.get("retry-after", "")
                if answer.head.status_code != httpx.codes.TOO_MANY_REQUESTS or not _is_wait(wait):
                    break
                time.sleep(int(wait))
        except TooSlowError as error:
            raise ApiError(
                f"{self.url} was not done with its answer after {self._longest_s:.0f} s; try again"
            ) from error
        except httpx.HTTPError as error:
            kind = UnsentError if isinstance(error, _UNOPENED) else ApiError
            raise kind(
                f"no service answers at {self.url} ({error}); start one with `haptic serve`, or set --service"
            ) from error
        return answer

    def _once(self, method: str, path: str, **options: Any) -> _Answer:
        """Return the answer to one request, of at most MAX_ANSWER_BYTES."""
        seen, found = {"trace": self._watchdog.remember}, bytearray()
        with (
            self._watchdog.within(self._longest_s),
            self._http.stream(method, path, extensions=seen, **options) as answer,
        ):
            for part in answer.iter_bytes():
                found += part
                if len(found) > MAX_ANSWER_BYTES:
                    raise ApiError(
                        f"{self.url} sends more than {MAX_ANSWER_BYTES >> 20} MiB at {path}: it was not read on"
                    )
        return _Answer(answer, bytes(found))

    def _read(self, answer: _Answer) -> Any:
        status = answer.head.status_code
        try:
            found = json.loads(answer.body, parse_constant=_no_number)
            if answer.head.is_success:
                return found
            detail = str(found["detail"])
        except (ValueError, KeyError, TypeError, RecursionError):
            detail = f"{self.url} answered HTTP {status} and no JSON of a Haptic service"
        raise ApiError(detail, status)

    def get(self, path: str, **params: Any) -> Any:
        """GET a public path under /v1."""
        return self.request("GET", f"/v1{path}", params=params or None)

    def every(self, path: str, *, token: str = "", **params: Any) -> Iterator[Any]:
        """Yield the rows of a list under /v1, asking for one page after the other."""
        for page in self.pages(path, token=token, **params):
            if not isinstance(page, list):
                raise ApiError(f"{self.url} answers no list at {path}")
            yield from page

    def pages(self, path: str, *, token: str = "", **params: Any) -> Iterator[Any]:
        """Yield one page after the other of what is under /v1, of at most MAX_PAGES and MAX_LIST_BYTES in all."""
        seen, size = {""}, 0
        while True:
            answer = self._send("GET", f"/v1{path}", token, None, params or None)
            page = self._read(answer)
            size += len(answer.body)
            yield page
            link = answer.head.links.get("next", {}).get("url")
            if link is None:
                return
            if _is_bare(page):  # else a list without rows could go on for ever
                raise ApiError(f"{self.url} gives an empty page of {path} and says that there is a next one")
            if len(seen) >= MAX_PAGES or size > MAX_LIST_BYTES:
                raise ApiError(
                    f"{self.url} gave {len(seen)} pages of {path}, {size >> 20} MiB in all, and says there are more: "
                    f"after {MAX_PAGES} pages or {MAX_LIST_BYTES >> 20} MiB it is not asked on"
                )
            try:
                # Only the query is taken: whatever a service says, no other place than this list is asked.
                params = dict(parse_qsl(urlsplit(link).query))
            except ValueError:
                params = {}
            if (cursor := params.get("cursor", "")) in seen:
                raise ApiError(f"{self.url} does not say where the next page of {path} is: {link!r}")
            seen.add(cursor)

    def info(self) -> Info:
        """Return what the service says of the network, and which epoch runs; its own word, until `Info.check`."""
        return Info.parse(self.get("/info"))

    def domain(self) -> Domain:
        """Return the EIP-712 domain that the service signs and checks for."""
        return self.info().domain

    def terms(self) -> str:
        """Return the text that a Session agrees to."""
        return answers.text(self.get("/terms"), "terms")


def _is_bare(page: Any) -> bool:
    """Return whether a page has no row: neither it nor what it holds is a list with one."""
    lists = page.values() if isinstance(page, dict) else [page]
    return not any(isinstance(rows, list) and rows for rows in lists)


def _no_number(name: str) -> None:
    """Refuse what Python reads beyond JSON: NaN and infinities, which no count can be."""
    raise ValueError(f"{name} is no JSON")


def _is_wait(seconds: str) -> bool:
    return seconds.isascii() and seconds.isdecimal() and len(seconds) < 9 and int(seconds) <= LONGEST_WAIT_S
