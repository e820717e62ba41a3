"""The HTTP server: uvicorn, which waits for nobody who sends slowly, reads no endless head, and ends with its streams."""

from __future__ import annotations

import gc
import json
import socket
import sys
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.events import Events
from service.guard import MAX_HEAD_BYTES, Problem

REQUEST_S: Final = 30.0
"""From the first byte of a request, or from the connection, to the last one of its body."""
IDLE_S: Final = 30
"""Between two requests on one connection."""
ENDING_S: Final = 10
"""What requests under way have to end in when the service stops."""
BACKLOG: Final = 2048


class Protocol(HttpToolsProtocol):
    """One connection, watched: since when its request has been incomplete, and how long its head is."""

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(transport)
        self.since: float | None = self.loop.time()
        self._head, self._in_head = 0, True

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        super().on_message_begin()
        self.since = self.loop.time()
        self._head, self._in_head = 0, True

    def on_headers_complete(self) -> None:
        """Note that its head is there."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that all of it is there."""
        self.since = None
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Read; a head that does not end is refused before it costs memory."""
        if self.since is None and not self._answering:
            self.since = self.loop.time()  # also of what never becomes a request, such as empty lines
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MAX_HEAD_BYTES:
                self._refuse(431, f"path and headers have more than {MAX_HEAD_BYTES} bytes")

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with what is no HTTP, in the form of every error here."""
        self._refuse(400, msg)

    def end_if_late(self, now: float) -> None:
        """Close the connection where its request has not come whole in time."""
        if self.since is None or now - self.since < REQUEST_S or self.transport.is_closing():
            return
        if self._in_head and self._answering:
            return  # the next request's head came early: it is waited for once this one is answered
        if self._in_head and self._head:
            self._refuse(408, f"the request did not come whole within {REQUEST_S:.0f} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        phrase = HTTPStatus(status).phrase
        body = json.dumps(Problem(title=phrase, status=status, detail=detail).model_dump())
        head = (
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n"
            f"x-content-type-options: nosniff\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        if not self._answering:  # else it would stand in the middle of another answer
            self.transport.write((head + body).encode())
        self.transport.close()


class Server(uvicorn.Server):
    """A server of the application, with limits on time."""

    def __init__(self, app: Any, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(
            uvicorn.Config(
                app, host=host, port=port, http=Protocol, ws="none", log_config=None, log_level="error",
                access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=ENDING_S, backlog=BACKLOG,
            )
        )  # fmt: skip
        self._events: Events = app.state.events

    async def on_tick(self, counter: int) -> bool:
        """Look once a second for requests that do not come whole."""
        if counter % 10 == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.end_if_late(connection.loop.time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, which have no end of their own, then wait for what is under way."""
        self._events.close()
        await super().shutdown(sockets)


def run(app: Any, host: str, port: int) -> None:
    """Serve until a signal; exit with uvicorn's status where it cannot start."""
    server = Server(app, host, port)
    # What was loaded lives as long as the process: to search all of it for garbage, now and then, would hold up
    # whoever waits for an answer.
    gc.collect()
    gc.freeze()
    try:
        server.run()
    except KeyboardInterrupt:
        return  # it has ended in good order by then
    if not server.started:
        sys.exit(3)
