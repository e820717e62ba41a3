"""What the command line's client makes of a server that is no Haptic service."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import MappingProxyType

import pytest

from service.client import Api, ApiError


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Return the way to the URL of a web server that gives one answer to everything."""
    servers = []

    def start(status: int, content: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_refusal_is_told_in_the_services_own_words(answering: Callable[..., str]) -> None:
    url = answering(409, b'{"detail": "epoch 3 is not open"}')
    with Api(url) as api, pytest.raises(ApiError) as caught:
        api.get("/info")
    assert (str(caught.value), caught.value.status) == ("epoch 3 is not open", 409)


@pytest.mark.parametrize("status", [200, 404, 502])
@pytest.mark.parametrize("content", [b"<html>hello</html>", b"", b"\xff", b"[1"])
def test_a_web_page_is_no_service(answering: Callable[..., str], status: int, content: bytes) -> None:
    with Api(answering(status, content)) as api, pytest.raises(ApiError, match=f"HTTP {status} and no JSON"):
        api.get("/info")


def test_where_nobody_listens_it_is_said_how_to_start_a_service() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with Api(f"http://127.0.0.1:{free.getsockname()[1]}") as api, pytest.raises(ApiError) as caught:
            api.get("/info")
    assert "haptic serve" in str(caught.value)
    assert caught.value.status == 0


@pytest.mark.parametrize("link", ["http://elsewhere.example/?cursor=again", "?limit=1", "http://[", ""])
def test_of_a_list_nothing_else_is_asked_for_and_it_ends(answering: Callable[..., str], link: str) -> None:
    url = answering(200, b"[1]", {"link": f'<{link}>; rel="next"'})
    with Api(url) as api, pytest.raises(ApiError, match="does not say where the next page of /runs is"):
        list(api.every("/runs"))


@pytest.mark.parametrize("wait", ["0", "61", "soon", "-1", "9" * 5000, None])
def test_who_is_put_off_waits_as_long_as_it_is_told_and_not_for_ever(
    answering: Callable[..., str], wait: str | None
) -> None:
    url = answering(429, b'{"detail": "too many"}', {} if wait is None else {"retry-after": wait})
    with Api(url) as api, pytest.raises(ApiError, match="too many"):
        api.get("/info")
