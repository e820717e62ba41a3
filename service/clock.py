"""The service's clock: block time of the chain's head, because epochs are intervals of block time."""

from __future__ import annotations

import threading
import time

from chain.errors import RpcError
from chain.rpc import Rpc
from service.errors import UnavailableError


class ChainClock:
    """Tells the head's timestamp; asks the node at most once in `ttl_s` seconds, silent or not."""

    def __init__(self, rpc: Rpc, ttl_s: float = 0.5) -> None:
        self._rpc, self._ttl_s = rpc, ttl_s
        self._read_at, self._now, self._error = -1.0e9, 0, ""
        self._lock = threading.Lock()

    def now(self) -> int:
        """Return the head's block time, Unix seconds; UnavailableError when the node does not answer."""
        with self._lock:
            if time.monotonic() - self._read_at > self._ttl_s:
                try:
                    self._now, self._error = self._rpc.block("latest").timestamp, ""
                except RpcError as error:
                    self._error = f"the chain cannot be read, so nothing was recorded; try again: {error}"
                self._read_at = time.monotonic()
            # Those who waited for the lock get the same answer: else each would wait out all retries in turn.
            if self._error:
                raise UnavailableError(self._error)
            return self._now
