"""What takes seconds to put together: made once, kept a while, waited for by few, so that others have threads left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from service.errors import UnavailableError

AT_ONCE: Final = 5
"""Requests that may make one thing or wait for it; a server has forty threads, and whoever asks for what is kept needs
none of these places."""
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Once(Generic[K, V]):
    """The newest few things that were made, by their keys."""

    def __init__(self, kept: int) -> None:
        self._most = kept
        self._kept: dict[K, V] = {}
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def find(self, key: K, make: Callable[[], V]) -> V:
        """Return what is kept, or make it: one makes, and few wait; UnavailableError for more than these."""
        known = self._kept.get(key)
        if known is not None:
            return known
        if not self._places.acquire(blocking=False):
            raise UnavailableError(
                "this is being put together, which takes seconds, and enough wait for it; ask again in a moment"
            )
        try:
            with self._lock:
                if key not in self._kept:
                    self._kept[key] = make()
                    for oldest in list(self._kept)[: -self._most]:
                        del self._kept[oldest]
                return self._kept[key]
        finally:
            self._places.release()
