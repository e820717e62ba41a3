"""What the command line's client makes of a server that is no Haptic service."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path
from types import MappingProxyType

import pytest

from service import api as api_module
from service.answers import ApiError, UnsentError
from service.api import Api
from tests.integration.service.shell import Shell

WALLET = "0x" + "11" * 20


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


@pytest.mark.parametrize("content", [b"{}", b"[]", b"5", b"null", b'"words"', b"[{}]", b'{"terms": 5}'])
@pytest.mark.parametrize(
    "command",
    [
        ("score", WALLET),
        ("score", WALLET, "--history"),
        ("score", WALLET, "--epoch", "0"),
        ("status",),
        ("rank",),
    ],
    ids=" ".join,
)
def test_what_a_command_cannot_read_is_one_line_and_no_traceback(
    answering: Callable[..., str], forker: subprocess.Popen[str], tmp_path: Path, content: bytes,
    command: tuple[str, ...],
) -> None:  # fmt: skip
    Shell(forker, tmp_path).fails(*command, "--service", answering(200, content), words=())


def test_where_nobody_listens_it_is_said_how_to_start_a_service() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with Api(f"http://127.0.0.1:{free.getsockname()[1]}") as api, pytest.raises(ApiError) as caught:
            api.get("/info")
    assert "haptic serve" in str(caught.value)
    assert caught.value.status == 0
    assert isinstance(caught.value, UnsentError)


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"])
def test_who_hangs_up_may_have_read_what_was_sent(content: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(content)

        threading.Thread(target=hang_up, daemon=True).start()
        with Api(f"http://127.0.0.1:{listening.getsockname()[1]}") as api, pytest.raises(ApiError) as caught:
            api.get("/info")
    assert not isinstance(caught.value, UnsentError)


@pytest.mark.parametrize("link", ["http://elsewhere.example/?cursor=again", "?limit=1", "http://[", ""])
def test_of_a_list_nothing_else_is_asked_for_and_it_ends(answering: Callable[..., str], link: str) -> None:
    url = answering(200, b"[1]", {"link": f'<{link}>; rel="next"'})
    with Api(url) as api, pytest.raises(ApiError, match="does not say where the next page of /runs is"):
        list(api.every("/runs"))


@pytest.fixture
def endless() -> Iterator[str]:
    """Return the URL of a web server that gives one page after the other, each with a row and a new cursor."""
    numbers = count()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b'["%s"]' % (b"x" * 1000)
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.send_header("link", f'<?cursor={next(numbers)}>; rel="next"')
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("most", "size", "rows"), [(5, 1 << 20, 5), (1000, 3000, 3)])
def test_a_list_that_does_not_end_is_read_to_a_bound(
    endless: str, monkeypatch: pytest.MonkeyPatch, most: int, size: int, rows: int
) -> None:
    monkeypatch.setattr(api_module, "MAX_PAGES", most)
    monkeypatch.setattr(api_module, "MAX_LIST_BYTES", size)
    with (
        Api(endless) as api,
        pytest.raises(ApiError, match=f"gave {rows} pages of /runs.*it is not asked on"),
    ):
        list(api.every("/runs"))


def test_an_answer_is_read_to_a_bound(answering: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'"%s"' % (b"x" * 5000)
    with Api(answering(200, content)) as api:
        assert len(api.get("/info")) == 5000
        monkeypatch.setattr(api_module, "MAX_ANSWER_BYTES", 5001)
        with pytest.raises(ApiError, match="it was not read on"):
            api.get("/info")


def test_what_is_nested_without_end_is_no_answer(answering: Callable[..., str]) -> None:
    with (
        Api(answering(200, b"[" * 1_000_000)) as api,
        pytest.raises(ApiError, match="no JSON of a Haptic service"),
    ):
        api.get("/info")


@pytest.mark.parametrize("wait", ["0", "61", "soon", "-1", "9" * 5000, None])
def test_who_is_put_off_waits_as_long_as_it_is_told_and_not_for_ever(
    answering: Callable[..., str], wait: str | None
) -> None:
    url = answering(429, b'{"detail": "too many"}', {} if wait is None else {"retry-after": wait})
    with Api(url) as api, pytest.raises(ApiError, match="too many"):
        api.get("/info")
