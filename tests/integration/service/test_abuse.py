"""What people send who mean harm: it is refused with the reason, nothing of it is stored, and others are answered.

What each route refuses of well-formed requests is held by its own tests; here is what remains, and what it costs.
"""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from chain.feedback import dense_ranks
from chain.messages import Ranking, sign
from service import server
from service.guard import MAX_BODY_BYTES, MAX_HEAD_BYTES
from tests.integration.service.conftest import quality

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of secp256k1."""
QUICK_S = 1.0
"""In which anybody else is answered meanwhile, on a machine that others use too."""
ROUTES = (
    "/v1/sessions",
    "/v1/login",
    "/v1/rankings",
    "/v1/typed-data/ranking",
    "/v1/tasks/0x" + "11" * 32 + "/skip",
)


@pytest.fixture(scope="module")
def held(net: Any) -> Any:
    """Return a wallet, and a ranking of the task that it holds and has not sent."""
    who = net.person(stake=1)
    task = who.next_task()
    return who, who.ranking(task, dense_ranks([quality(t) for t in task.shown]), now=net.now())


def _body(ranking: Ranking, signature: str) -> dict[str, Any]:
    return {"ranking": ranking.to_json(), "signature": signature}


def _variants(signature: str) -> Iterator[tuple[str, str]]:
    """Yield what else a signature can be made into that recovers to the same key in a lenient library."""
    raw = bytes.fromhex(signature[2:])
    r, s, v = raw[:32], int.from_bytes(raw[32:64], "big"), raw[64]
    high = r + (N - s).to_bytes(32, "big") + bytes([55 - v])
    yield "high s", "0x" + high.hex()
    yield "v of 0 or 1", "0x" + (raw[:64] + bytes([v - 27])).hex()
    yield "v of EIP-155", "0x" + (raw[:64] + bytes([v + 10])).hex()
    compact = s | (v - 27) << 255
    yield "64 bytes of EIP-2098", "0x" + (r + compact.to_bytes(32, "big")).hex()
    yield "without v", "0x" + raw[:64].hex()
    yield "a byte more", signature + "00"
    yield "uppercase", "0x" + raw.hex().upper()
    yield "without 0x", raw.hex()
    yield "s of 0", "0x" + (r + bytes(32) + raw[64:]).hex()
    yield "r of 0", "0x" + (bytes(32) + raw[32:]).hex()


def test_no_other_form_of_a_right_signature_is_taken(net: Any, held: Any) -> None:
    who, ranking = held
    right = sign(ranking, net.ctx.domain, who.wallet)
    for name, signature in _variants(right):
        with net.nothing_written():
            answer = net.ask("POST", "/v1/rankings", _body(ranking, signature))
        assert answer.status_code in {400, 422}, name
        assert answer.json()["detail"], name


@pytest.mark.parametrize("epoch", [1, 2**31 - 1])
def test_a_ranking_for_an_epoch_that_is_to_come_is_refused(net: Any, held: Any, epoch: int) -> None:
    who, ranking = held
    said = f"the ranking is for epoch {epoch}, the running one is 0"
    net.refused_ranking(409, said, ranking=replace(ranking, epoch=epoch), by=who.wallet)


@contextmanager
def _others_are_answered(net: Any) -> Iterator[None]:
    """Check that somebody else is answered within QUICK_S, during what is done and after it."""
    yield
    began = time.monotonic()
    assert httpx.get(f"{net.api.url}/v1/terms", timeout=5).status_code == 200
    assert time.monotonic() - began < QUICK_S


def _deep(size: int) -> Iterator[tuple[str, bytes]]:
    half = (size - 60) // 2
    yield "brackets", b"[" * half + b"]" * half
    yield "braces", b'{"a":' * (size // 8) + b"1" + b"}" * (size // 8)
    yield (
        "brackets within a ranking",
        b'{"ranking":{"a":' + b"[" * half + b"]" * half + b'},"signature":"0x"}',
    )
    yield "unclosed", b"[" * size
    yield "one long number", b'{"ranking":' + b"9" * (size - 20) + b"}"
    yield "one long name", b'{"' + b"x" * (size - 20) + b'":1}'
    yield "many names", b"{" + b",".join(b'"%d":1' % n for n in range(size // 12)) + b"}"
    yield "one name again and again", b"{" + b",".join([b'"a":1'] * (size // 6 - 2)) + b"}"
    yield "escapes", b'{"ranking":"' + b"\\ud800" * (size // 6 - 10) + b'"}'
    yield "invalid UTF-8", b'{"ranking":{"wallet":"\xff\xfe' + b"\x80" * 1000 + b'"},"signature":""}'
    yield "NUL", b'{"ranking":{"wallet":"\\u0000"},"signature":"\\u0000"}'
    yield "infinities", b'{"ranking":{"epoch":1e999999},"signature":"NaN"}'


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_just_under_the_limit_is_refused_whatever_it_is_and_soon(
    net: Any, held: Any, path: str
) -> None:
    token = held[0]._token
    for name, content in _deep(MAX_BODY_BYTES):
        assert len(content) <= MAX_BODY_BYTES, name
        began = time.monotonic()
        with net.nothing_written(), _others_are_answered(net):
            answer = net.ask("POST", path, content=content, token=token)
        assert 400 <= answer.status_code < 500, (name, answer.status_code)
        assert len(answer.content) < 4 * MAX_BODY_BYTES, name
        assert time.monotonic() - began < 5, name


def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(net: Any) -> None:
    with net.nothing_written(), _others_are_answered(net):
        answer = httpx.post(f"{net.api.url}/v1/rankings", content=b"[" * 10_000_000)
    assert answer.status_code == 413
    assert f"10000000 bytes, at most {MAX_BODY_BYTES}" in answer.json()["detail"]


@pytest.mark.parametrize("size", ["-1", "1e3", "0x10", "+5", "\u0663", "9" * 5000, "5, 5"])
def test_a_length_that_is_none_is_refused(net: Any, size: str) -> None:
    raw = f"POST /v1/rankings HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n[1,2]"
    assert _sent(net, raw.encode())[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 413"}


def _connect(net: Any) -> socket.socket:
    url = httpx.URL(net.api.url)
    return socket.create_connection((url.host, url.port or 80), timeout=10)


def _rest(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    found = b""
    try:
        while part := connection.recv(65_536):
            found += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    return found


def _sent(net: Any, raw: bytes) -> bytes:
    with _connect(net) as connection:
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return _rest(connection)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/info HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 10 * MAX_HEAD_BYTES,
        b"GET /v1/info HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * MAX_HEAD_BYTES,
        b"GET /" + b"a" * 10 * MAX_HEAD_BYTES,
        b"GET /v1/info HTTP/1.1\r\nhost: x\r\nx: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET /v1/info?" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["one header", "many headers", "path", "one whole header", "query"],
)
def test_a_head_without_end_is_refused_and_its_connection_closed(net: Any, head: bytes) -> None:
    with net.nothing_written(), _others_are_answered(net):
        answer = _sent(net, head)
    assert answer.startswith(b"HTTP/1.1 431"), answer[:200]
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\x01", b"HELLO\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100]
)
def test_what_is_no_http_is_told_so_in_the_form_of_every_error(net: Any, raw: bytes) -> None:
    answer = _sent(net, raw)
    assert answer.startswith(b"HTTP/1.1 400")
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (body["status"], body["title"]) == (400, "Bad Request")


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"\r\n",
        b"GET /v1/",
        b"GET /v1/info HTTP/1.1\r\nhost: x\r\nx-slow: ",
        b"POST /v1/rankings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
        b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
    ],
    ids=["nothing", "empty line", "half a line", "half a head", "half a ranking", "half a session"],
)
def test_who_sends_slowly_is_cut_off_though_a_byte_comes_now_and_then(
    net: Any, monkeypatch: pytest.MonkeyPatch, begun: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 1.5)
    with _connect(net) as connection, net.nothing_written():
        connection.sendall(begun)
        began = time.monotonic()
        connection.settimeout(0.2)
        while time.monotonic() - began < 8:
            try:
                if begun:
                    connection.sendall(b"\r\n" if begun == b"\r\n" else b"1")
                if not connection.recv(65_536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 1 < time.monotonic() - began < 6
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_many_who_send_slowly_keep_nobody_waiting(net: Any) -> None:
    half = b"POST /v1/rankings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(_connect(net)).sendall(half)
        with _others_are_answered(net):
            pass
        began = time.monotonic()
        assert net.person(stake=1).next_task() is not None
        assert time.monotonic() - began < 5


def _memory() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # of this process, where the service runs
        return int(file.read().split()[1]) * resource.getpagesize()


def test_twenty_thousand_nonces_store_nothing_and_keep_no_memory(net: Any) -> None:
    app_asks = net.ctx.settings.master  # what nonces are made of; nothing else is kept of them
    assert app_asks
    from service import login

    with net.nothing_written():
        for _ in range(500):
            net.ask("GET", "/v1/login/nonce")
        before = _memory()
        found = {login.make_nonce(app_asks, n.to_bytes(16, "big"), 1000) for n in range(20_000)}
        assert len(found) == 20_000
        del found
        for _ in range(1500):
            assert net.ask("GET", "/v1/login/nonce").status_code == 200
        assert _memory() - before < 20_000_000


def test_a_replay_of_all_that_a_wallet_sent_adds_nothing(net: Any, right: Callable[..., Any]) -> None:
    who = net.person(stake=1)
    sent = []
    for _ in range(3):
        task = who.next_task()
        ranking = who.ranking(task, right(task), now=net.now())
        body = _body(ranking, sign(ranking, net.ctx.domain, who.signer))
        sent.append((body, net.ask("POST", "/v1/rankings", body).json()))
    with net.nothing_written():
        for body, receipt in sent * 3:
            again = net.ask("POST", "/v1/rankings", body)
            assert (again.status_code, again.json()["signature"]) == (200, receipt["signature"])


def test_who_is_answered_slowly_is_not_cut_off(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 1.0)
    with _connect(net) as connection:
        connection.sendall(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(
            b"GET /v1/terms HTTP/1.1\r\n"
        )  # the next request, sent while the first is answered
        connection.settimeout(0.2)
        began = time.monotonic()
        while time.monotonic() - began < 3.5:
            try:
                assert connection.recv(65_536)
            except TimeoutError:
                continue
