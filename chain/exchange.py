"""One HTTP exchange with a node, bounded in time and size: httpx limits each read alone."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import httpx

from chain.errors import RpcError

SLOWEST = 3
"""An HTTP exchange may take so many times the timeout of one read: a node that drips bytes keeps to each of those."""
MAX_ANSWER_BYTES = 1 << 26
"""Most that is taken in one HTTP answer; the logs of one full block are about a megabyte."""
_OPENED = (".connect_tcp.complete", ".start_tls.complete")
"""How the names of the events end after which httpx has a connection, be it through a proxy."""

DIRECT = dict.fromkeys(f"all://{host}" for host in ("127.0.0.1", "localhost", "[::1]"))
"""What httpx asks without a proxy, whatever the environment says: its `mounts`. None of them is on another machine."""


class TooSlowError(RpcError):
    """The exchange as a whole took too long."""


class OversizeError(RpcError):
    """The node sends more than is taken."""


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


class Watchdog:
    """Cuts exchanges off that take too long as a whole, be it over headers or body. Safe to share between threads."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()

    def remember(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep the socket of each connection that httpx opens, for as long as it does: its `trace` extension."""
        if event.endswith(_OPENED):
            with self._lock:
                self._sockets.add(info["return_value"].get_extra_info("socket"))

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raise a TooSlowError where what is done here is not done in so many seconds."""
        over = threading.Event()

        def cut() -> None:
            over.set()
            with self._lock:
                connections = list(self._sockets)
            # Which of them it is does not show; another thread's exchange with this node is tried again.
            for connection in connections:
                with suppress(OSError):
                    # Not what TLS makes of it, which is not for another thread to call.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except httpx.TransportError:
            if not over.is_set():
                raise
        finally:
            timer.cancel()
        # What ends with its connection looks whole where it was cut.
        if over.is_set():
            raise TooSlowError


class Exchange:
    """Kept-alive HTTP to one URL. Safe to share between threads."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._watchdog = Watchdog()
        logging.getLogger("httpx").addFilter(_NO_KEYS)
        self._http = httpx.Client(
            timeout=timeout_s,
            # Reading the certificates takes 40 ms, which plain HTTP to a node next door can do without.
            verify=url.startswith("https:"),
            # No upper limit: with one connection for several threads the pool loses wake-ups and stalls for 10 s.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            headers={"content-type": "application/json"},
            mounts=DIRECT,
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def post(self, body: bytes) -> tuple[httpx.Response, bytes]:
        """Return the response to a request, and what it holds, at most MAX_ANSWER_BYTES."""
        parts, size = [], 0
        seen = {"trace": self._watchdog.remember}
        with (
            self._watchdog.within(SLOWEST * self._timeout_s),
            self._http.stream("POST", self._url, content=body, extensions=seen) as response,
        ):
            for part in response.iter_bytes():
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise OversizeError
                parts.append(part)
        return response, b"".join(parts)
