"""Server-sent events of a real service: counts and nothing else, seldom enough, to a bounded number, until it stops."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx

from service.app import create_app
from service.events import BY_ADDRESS, Counts, Events, read_counts
from service.server import Server

FIELDS = {"epoch", "rankings", "handouts", "skips", "seconds_left"}


@dataclass
class Stand:
    """A server of its own over the shared service's context, whose events come as often as the test wants."""

    url: str
    server: Server
    thread: threading.Thread
    events: Events

    def stop(self) -> float:
        """Stop it and return how long that took."""
        began = time.monotonic()
        self.server.should_exit = True
        self.thread.join(15)
        assert not self.thread.is_alive()
        return time.monotonic() - began


@contextmanager
def _stand(net: Any, **options: Any) -> Iterator[Stand]:
    app = create_app(net.ctx, clock=False)
    app.router.lifespan_context = _NoLife  # the context is the shared service's, which closes it
    events = app.state.events = Events(options.pop("read", lambda: read_counts(net.ctx)), **options)
    server = Server(app)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        stand = Stand(f"http://127.0.0.1:{listening.getsockname()[1]}", server, thread, events)
        try:
            yield stand
        finally:
            stand.stop()


@contextmanager
def _listening(stand: Stand) -> Iterator[tuple[httpx.Response, Iterator[tuple[str, Any]]]]:
    with httpx.stream("GET", f"{stand.url}/v1/events", timeout=5) as answer:
        yield answer, _events(answer)


def _events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Yield name and data of each event, and ("", None) for a heartbeat, as the standard reads them."""
    name = ""
    for line in answer.iter_lines():
        field, _, value = line.partition(":")
        if line.startswith(":"):
            yield "", None
        elif field == "event":
            name = value.strip()
        elif field == "data":
            yield name, json.loads(value)


class _NoLife:
    """A lifespan that neither opens nor closes anything."""

    def __init__(self, _app: Any) -> None:
        pass

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


def test_who_listens_is_told_the_counts_as_they_change_and_nothing_else(net: Any, right: Any) -> None:
    who = net.person(stake=1)
    with _stand(net, period_s=0.05) as stand, _listening(stand) as (answer, events):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        name, before = next(events)
        assert (name, set(before)) == ("counts", FIELDS)
        assert before["epoch"] == 0
        task = who.next_task()
        who.send(who.ranking(task, right(task), now=net.now()))
        for name, counts in events:
            assert (name, set(counts)) == ("counts", FIELDS)
            assert all(type(value) is int for value in counts.values())
            if counts["rankings"] == before["rankings"] + 1:
                break
        assert counts["handouts"] == before["handouts"] + 1


def test_counts_come_at_most_once_a_period_and_are_read_once_for_all(net: Any) -> None:
    asked: list[float] = []

    def read() -> Counts:
        asked.append(time.monotonic())
        return Counts(0, len(asked), 0, 0, 0)

    with _stand(net, read=read, period_s=0.2) as stand, ExitStack() as stack:
        streams = [stack.enter_context(_listening(stand))[1] for _ in range(5)]
        told = [[next(events)[1]["rankings"] for _ in range(4)] for events in streams]
    assert all(numbers == sorted(set(numbers)) for numbers in told)
    assert all(later - earlier >= 0.19 for earlier, later in pairwise(asked))


def test_a_new_epoch_is_told_as_such(net: Any) -> None:
    counts = [Counts(0, 5, 5, 0, 1)]
    with _stand(net, read=lambda: counts[0], period_s=0.02) as stand, _listening(stand) as (_, events):
        assert next(events)[0] == "counts"
        counts[0] = Counts(1, 0, 0, 0, 600)
        assert next(events) == ("epoch", {"epoch": 1})
        assert next(events) == ("counts", counts[0]._asdict())


def test_where_nothing_changes_it_is_said_that_we_are_still_here(net: Any) -> None:
    with (
        _stand(net, read=lambda: Counts(0, 0, 0, 0, 0), period_s=0.02, heartbeat_s=0.1) as stand,
        _listening(stand) as (_, events),
    ):
        assert [next(events)[0] for _ in range(4)] == ["counts", "", "", ""]


def test_only_so_many_listen_and_who_goes_makes_room(net: Any) -> None:
    with _stand(net, period_s=0.02, heartbeat_s=0.05, most=3) as stand:
        with ExitStack() as stack:
            streams = [stack.enter_context(_listening(stand))[1] for _ in range(3)]
            assert [next(events)[0] for events in streams] == ["counts"] * 3
            refused = httpx.get(f"{stand.url}/v1/events", timeout=5)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
            assert "3 listen already" in refused.json()["detail"]
            assert httpx.get(f"{stand.url}/v1/terms").status_code == 200
        deadline = time.monotonic() + 5
        while stand.events.listeners and time.monotonic() < deadline:
            time.sleep(0.02)
        assert stand.events.listeners == 0
        with _listening(stand) as (_, events):
            assert next(events)[0] == "counts"


def test_one_address_takes_not_all_places(net: Any) -> None:
    with _stand(net, period_s=0.02) as stand, ExitStack() as stack:
        for _ in range(BY_ADDRESS):
            stack.enter_context(_listening(stand))
        assert (
            f"{BY_ADDRESS} listen from this address" in httpx.get(f"{stand.url}/v1/events").json()["detail"]
        )


def test_a_service_that_stops_ends_its_streams_in_good_order(net: Any) -> None:
    with _stand(net, period_s=0.02, heartbeat_s=60) as stand, _listening(stand) as (_, events):
        next(events)
        stopped: list[float] = []
        stopping = threading.Thread(target=lambda: stopped.append(stand.stop()))
        stopping.start()
        assert all(name in {"counts", ""} for name, _ in events)  # and the stream ends without an error
        stopping.join(15)
    assert stopped[0] < 5


def test_a_chain_that_fails_ends_no_stream(net: Any) -> None:
    from chain.errors import RpcError

    fails = [True]

    def read() -> Counts:
        if fails[0]:
            raise RpcError("the node is away")
        return Counts(0, 0, 0, 0, 0)

    with _stand(net, read=read, period_s=0.02, heartbeat_s=0.05) as stand, _listening(stand) as (_, events):
        assert next(events) == ("", None)
        fails[0] = False
        assert next(e for e in events if e[0])[0] == "counts"
