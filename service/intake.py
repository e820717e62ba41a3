"""Where rankings wait for their turn: many are taken in and committed in one transaction, by one thread.

A commit waits for the disk, and what a ranking is held against is read from tables. Both cost the same for a hundred
rankings as for one, so those that come in meanwhile share the next. Nobody is told "accepted" before the commit.

    route ──Sent──▶ queue ──▶ this thread: lock the epoch, check each, append, commit ──▶ a receipt to each route
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from service.clock import ChainClock
from service.database import BUSY_ERRORS, Database
from service.epochs import Place
from service.errors import ConflictError, ServiceError, UnavailableError
from service.feedback import Accepted, Desk, Running, Sent, accept_all

log = logging.getLogger(__name__)
MOST = 256
"""Rankings in one transaction: it holds the epoch's lock for some tens of milliseconds."""
WAITING = 4096
"""Rankings that may wait; more are asked to come again, before they cost memory."""


class _Item(NamedTuple):
    sent: Sent
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Accepted]


class Intake:
    """The queue and its thread; `take` may be called from any event loop while it is open."""

    def __init__(self, db: Database, desk: Desk, place: Place, clock: ChainClock) -> None:
        self._db, self._desk, self._place, self._clock = db, desk, place, clock
        self._queue: deque[_Item] = deque()
        self._there_is = threading.Condition()
        self._closed = False
        self._running: Running | None = None
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what waits, and take no more."""
        with self._there_is:
            self._closed = True
            self._there_is.notify()
        self._thread.join()

    async def take(self, sent: Sent) -> Accepted:
        """Return the receipt once the ranking is committed; a ServiceError where it is refused."""
        loop = asyncio.get_running_loop()
        item = _Item(sent, loop, loop.create_future())
        with self._there_is:
            if self._closed or len(self._queue) >= WAITING:
                raise UnavailableError(
                    "too many rankings wait at once, so this was not recorded; send it again"
                )
            self._queue.append(item)
            self._there_is.notify()
        return await item.answer

    def _work(self) -> None:
        while True:
            with self._there_is:
                self._there_is.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                items = [self._queue.popleft() for _ in range(min(MOST, len(self._queue)))]
            by_epoch: dict[int, list[_Item]] = {}
            for item in items:
                by_epoch.setdefault(item.sent.ranking.epoch, []).append(item)
            for epoch, part in by_epoch.items():
                _answer(part, self._settle(epoch, part))

    def _settle(self, epoch: int, items: Sequence[_Item]) -> list[Accepted | Exception]:
        """Return what became of each; what fails for all, such as a database that is away, is said to each."""
        try:
            return self._commit(epoch, [item.sent for item in items])
        except (ServiceError, *BUSY_ERRORS) as error:
            self._running = None
            return [error] * len(items)
        except Exception as error:
            self._running = None
            if len(items) == 1:
                return [error]
            # What one of them holds must not be the others' loss.
            log.exception("a batch of %s rankings failed; each is tried by itself", len(items))
        return [self._settle(epoch, [item])[0] for item in items]

    def _commit(self, epoch: int, sent: Sequence[Sent]) -> list[Accepted | Exception]:
        running = self._running
        if running is None or running.epoch != epoch:
            self._running = running = Running(epoch, self._place.seed(epoch))
        now = self._clock.now()
        if epoch != (current := self._place.epoch_at(now)):
            raise ConflictError(f"the ranking is for epoch {epoch}, the running one is {current}")
        with self._db.write() as db:
            found = accept_all(db, self._desk, running, sent, now)
            db.commit()
        running.advance(sent, found)
        return list(found)


def _answer(items: Sequence[_Item], found: Sequence[Accepted | Exception]) -> None:
    """Tell each route its result; one call wakes an event loop for all of them."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Item, Accepted | Exception]]] = {}
    for pair in zip(items, found, strict=True):
        by_loop.setdefault(pair[0].loop, []).append(pair)
    for loop, pairs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_tell, pairs)
        except RuntimeError:  # the loop was closed: who asked is gone, what was committed stays
            log.info("%s rankings were settled after those who sent them had gone", len(pairs))


def _tell(pairs: Sequence[tuple[_Item, Accepted | Exception]]) -> None:
    for item, result in pairs:
        if item.answer.cancelled():
            continue
        if isinstance(result, Exception):
            item.answer.set_exception(result)
        else:
            item.answer.set_result(result)
