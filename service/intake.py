"""Where rankings wait for their turn: many are taken in and committed in one transaction.

A commit waits for the disk, and what a ranking is held against is read from tables. Both cost the same for a hundred
rankings as for one, so those that come in meanwhile share the next. Nobody is told "accepted" before the commit.

    route ──Sent──▶ queue ──▶ a turn: lock the epoch, check each, append, commit ──▶ a receipt to each route

The event loop takes the turn itself where there is nothing to wait for but the disk: on SQLite while nobody else writes.
A thread beside it would take the interpreter from it at every call, and it from the thread. What has to wait, for
PostgreSQL's answers, for another writer or for the chain's clock, is the thread's, so that pages are served meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlmodel import Session as Db

from service.clock import ChainClock
from service.database import BUSY_ERRORS, Database
from service.epochs import Place
from service.errors import ConflictError, ServiceError, UnavailableError
from service.feedback import Accepted, Desk, Running, Sent, accept_all

log = logging.getLogger(__name__)
MOST = 256
"""Rankings in one transaction of the thread: it holds the epoch's lock for some tens of milliseconds."""
AT_ONCE = 64
"""Rankings in one transaction of the event loop: so long, some ten milliseconds, it serves nothing else."""
WAITING = 4096
"""Rankings that may wait; more are asked to come again, before they cost memory."""


class _Item(NamedTuple):
    sent: Sent
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Accepted]


class Intake:
    """The queue, and who empties it; `take` may be called from any event loop while it is open."""

    def __init__(self, db: Database, desk: Desk, place: Place, clock: ChainClock) -> None:
        self._db, self._desk, self._place, self._clock = db, desk, place, clock
        self._queue: deque[_Item] = deque()
        self._there_is = threading.Condition()
        self._closed = False
        self._patient = not db.embedded
        """The next turn is the thread's; on a server's database each is."""
        self._awake: set[asyncio.AbstractEventLoop] = set()
        """The event loops that are about to empty the queue."""
        self._turn = threading.Lock()
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
            if self._patient:
                self._there_is.notify()
            elif loop not in self._awake:
                self._awake.add(loop)
                # Behind all that the loop has read already: they share the transaction.
                loop.call_soon(self._take_turn, loop)
        return await item.answer

    def _take_turn(self, loop: asyncio.AbstractEventLoop, before: int = 0) -> None:
        """Take in on the event loop what waits, or leave it to the thread where that would have to wait.

        As long as each look at the sockets brings more it looks again; `before` is how many waited the last time.
        """
        if before < (waiting := len(self._queue)) < AT_ONCE:
            loop.call_soon(self._take_turn, loop, waiting)
            return
        with self._there_is:
            self._awake.discard(loop)
        now = self._clock.known()
        if now is None or not self._turn.acquire(blocking=False):
            self._leave([])
            return
        try:
            for epoch, items in self._next(AT_ONCE).items():
                if self._running is None or self._running.epoch != epoch:
                    self._leave(items)  # to read in what the epoch has so far may take long
                    continue
                try:
                    found = self._commit(epoch, [x.sent for x in items], self._db.write_at_once, lambda: now)
                except ServiceError as error:
                    found = [error] * len(items)
                except BUSY_ERRORS:
                    self._leave(items)
                    continue
                except Exception:
                    log.exception("a batch of %s rankings failed; the thread tries it again", len(items))
                    self._leave(items)
                    continue
                _answer(items, found, loop)
        finally:
            self._turn.release()
        with self._there_is:
            if self._queue and not self._patient and loop not in self._awake:
                self._awake.add(loop)
                loop.call_soon(self._take_turn, loop)

    def _leave(self, items: Sequence[_Item]) -> None:
        """Let the thread take in these and all that wait."""
        with self._there_is:
            self._queue.extendleft(reversed(items))
            self._patient = True
            self._there_is.notify()

    def _next(self, most: int) -> Mapping[int, Sequence[_Item]]:
        """Take rankings from the queue, by epoch."""
        by_epoch: dict[int, list[_Item]] = {}
        with self._there_is:
            for _ in range(min(most, len(self._queue))):
                item = self._queue.popleft()
                by_epoch.setdefault(item.sent.ranking.epoch, []).append(item)
        return by_epoch

    def _work(self) -> None:
        while True:
            with self._there_is:
                self._there_is.wait_for(lambda: (self._queue and self._patient) or self._closed)
                if not self._queue:
                    return
            with self._turn:
                for epoch, items in self._next(MOST).items():
                    _answer(items, self._settle(epoch, items))
            if self._db.embedded:
                self._give_back()

    def _give_back(self) -> None:
        """Let the event loop take the next turn: it takes fewer at a time, and each for less."""
        with self._there_is:
            self._patient = False
            if not self._queue or (loop := self._queue[0].loop) in self._awake:
                return
            try:
                loop.call_soon_threadsafe(self._take_turn, loop)
            except RuntimeError:  # the loop was closed; what it sent is taken in all the same
                self._patient = True
            else:
                self._awake.add(loop)

    def _settle(self, epoch: int, items: Sequence[_Item]) -> Sequence[Accepted | Exception]:
        """Return what became of each; what fails for all, such as a database that is away, is said to each."""
        try:
            return self._commit(epoch, [item.sent for item in items], self._db.write, self._clock.now)
        except (ServiceError, *BUSY_ERRORS) as error:
            return [error] * len(items)
        except Exception as error:
            self._running = None
            if len(items) == 1:
                return [error]
            # What one of them holds must not be the others' loss.
            log.exception("a batch of %s rankings failed; each is tried by itself", len(items))
        return [self._settle(epoch, [item])[0] for item in items]

    def _commit(
        self, epoch: int, sent: Sequence[Sent], write: Callable[[], Db], clock: Callable[[], int]
    ) -> list[Accepted | Exception]:
        now = clock()
        # First of all: whoever names another epoch must not cost the running one what is known of it.
        if epoch != (current := self._place.epoch_at(now)):
            raise ConflictError(f"the ranking is for epoch {epoch}, the running one is {current}")
        running = self._running
        if running is None or running.epoch != epoch:
            self._running = running = Running(epoch, self._place.seed(epoch))
        with write() as db:
            found = accept_all(db, self._desk, running, sent, now)
            db.commit()
        running.advance(sent, found)
        return list(found)


def _answer(
    items: Sequence[_Item],
    found: Sequence[Accepted | Exception],
    here: asyncio.AbstractEventLoop | None = None,
) -> None:
    """Tell each route its result; one call wakes an event loop for all of them, and none the loop that is `here`."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Item, Accepted | Exception]]] = {}
    for pair in zip(items, found, strict=True):
        by_loop.setdefault(pair[0].loop, []).append(pair)
    for loop, pairs in by_loop.items():
        if loop is here:
            _tell(pairs)
            continue
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
