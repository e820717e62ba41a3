"""Server-sent events: how far the running epoch is, in counts, to everybody who listens, at most once a second.

Only counts, as long as an epoch is open: an answer that can be seen can be copied. They are read once for all listeners,
and only while there are some.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NamedTuple

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chain.errors import HapticError
from service.context import Context
from service.guard import ORIGIN, problem
from service.ledger import queries

log = logging.getLogger(__name__)
LISTENERS: Final = 500
"""Who may listen at once, to one service."""
BY_ADDRESS: Final = 20
"""Of them, from one address."""


class Counts(NamedTuple):
    """What is public of the running epoch."""

    epoch: int
    """By block time; negative before genesis."""
    rankings: int
    handouts: int
    skips: int
    seconds_left: int


def read_counts(ctx: Context) -> Counts:
    """Read chain and database once."""
    now = ctx.clock.now()
    epoch = ctx.place.epoch_at(now)
    with ctx.db.read() as db:
        row, skips = queries.epoch_row(db, epoch), queries.skip_count(db, epoch)
        rankings = queries.judgement_count(db, epoch)
    handouts = row.entries - skips if row else 0
    return Counts(epoch, rankings, handouts, skips, ctx.place.start(epoch + 1) - now)


class Events:
    """The listeners of a service, and what they are told; all of it lives on one event loop."""

    def __init__(
        self,
        read: Callable[[], Counts],
        period_s: float = 1.0,
        heartbeat_s: float = 15.0,
        most: int = LISTENERS,
    ) -> None:
        self._read, self._period_s, self._heartbeat_s, self._most = read, period_s, heartbeat_s, most
        self._addresses: Counter[str] = Counter()
        self._counts: Counts | None = None
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return self._addresses.total()

    def close(self) -> None:
        """Let every stream end; none begins any more."""
        self._closed = True
        self._changed.set()

    def enter(self, address: str) -> str:
        """Take a place for a listener; return in words why there is none."""
        if self._closed:
            return "the service is about to stop"
        if self.listeners >= self._most:
            return f"{self._most} listen already, and no more may"
        if self._addresses[address] >= BY_ADDRESS:
            return f"{BY_ADDRESS} listen from this address already, and no more may"
        self._addresses[address] += 1
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._follow())
        return ""

    def leave(self, address: str) -> None:
        """Give a listener's place back."""
        self._addresses[address] -= 1
        self._addresses += Counter()  # so that who has gone costs nothing

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield events as the standard writes them, until the service stops."""
        told: Counts | None = None
        while not self._closed:
            counts, changed = self._counts, self._changed
            if counts is not None and counts != told:
                if told is not None and counts.epoch != told.epoch:
                    yield _event("epoch", {"epoch": counts.epoch})
                yield _event("counts", counts._asdict())
                told = counts
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await changed.wait()
            except TimeoutError:
                yield b": still here\n\n"

    async def _follow(self) -> None:
        """Read the counts again and again, as long as anybody listens."""
        while self.listeners and not self._closed:
            try:
                found = await to_thread.run_sync(self._read)
            except (HapticError, SQLAlchemyError) as error:
                # Those who listen are told that we are still here; what is wrong, the jobs say loudly.
                log.info("the counts cannot be read: %s", type(error).__name__)
            else:
                if found != self._counts:
                    self._counts = found
                    self._changed.set()
                    if not self._closed:
                        self._changed = asyncio.Event()
            await asyncio.sleep(self._period_s)
        self._counts = None


class Listening(StreamingResponse):
    """A listener's answer: its place is taken when it begins, and given back however it ends."""

    media_type = "text/event-stream"

    def __init__(self, events: Events) -> None:
        # A proxy that buffers would keep the events to itself.
        super().__init__(events.stream(), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with events, or say why there is no place."""
        address = scope[ORIGIN]
        if said := self._events.enter(address):
            await problem(503, said, {"Retry-After": "30"})(scope, receive, send)
            return
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._events.leave(address)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
