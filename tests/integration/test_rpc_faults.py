"""A node may be down, slow, busy or talk nonsense: every time an RpcError says so, and no key leaks."""

from __future__ import annotations

import json
import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from chain.errors import RpcError
from chain.rpc import Rpc
from chain.transport import RpcAnswerError
from chain.types import Hash32

KEY = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Node:
    """A node that plays its answers in order and then repeats the last."""

    url: str
    answers: list[Answer]
    asked: list[Any] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)


def _ok(result: Any, number: int = 0) -> Answer:
    return 200, {}, json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()


@pytest.fixture
def node() -> Iterator[Callable[..., Node]]:
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: Answer) -> Node:
        state = Node("", list(answers))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                state.connections.add(self.client_address)
                state.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                code, headers, body = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        state.url = f"http://127.0.0.1:{server.server_port}/v3/{KEY}"
        return state

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _rpc(url: str, pauses: list[float], retries: int = 4) -> Rpc:
    return Rpc(url, 2.0, retries=retries, sleep=pauses.append)


@pytest.mark.parametrize(
    "bad",
    [(429, {}, b""), (500, {}, b"oops"), (503, {}, b"{}"), (200, {}, b'{"jsonrpc": "2.0", "id": 0, "res')],
)
def test_a_passing_fault_is_tried_again_with_longer_pauses(node: Callable[..., Node], bad: Answer) -> None:
    pauses: list[float] = []
    with _rpc(node(bad, bad, bad, _ok("0x7a69")).url, pauses) as rpc:
        assert rpc.chain_id() == 31337
    assert len(pauses) == 3
    assert pauses == sorted(set(pauses))


def test_retry_after_is_kept_within_bounds(node: Callable[..., Node]) -> None:
    pauses: list[float] = []
    busy = [(429, {"retry-after": wait}, b"") for wait in ("3", "99999", "soon")]
    with _rpc(node(*busy, _ok("0x1")).url, pauses) as rpc:
        assert rpc.chain_id() == 1
    assert pauses[0] == 3
    assert pauses[1] == 10
    assert 0 < pauses[2] < 3


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ((429, {}, b""), "HTTP 429; tried 3 times"),
        ((502, {}, b""), "HTTP 502"),
        ((200, {}, b"<html>login</html>"), "no JSON-RPC"),
        ((200, {}, b"[]"), "no result for eth_chainId"),
        ((200, {}, b'{"jsonrpc": "2.0", "id": 0}'), "no result for eth_chainId"),
        ((200, {}, b'{"jsonrpc": "2.0", "id": 5, "result": "0x1"}'), "no result for eth_chainId"),
        (_ok(None), "something else than expected"),
        (_ok("hello"), "something else than expected"),
        (_ok({}), "something else than expected"),
        ((401, {}, b"who are you"), "HTTP 401: check the RPC URL and its key"),
        ((404, {}, b""), "HTTP 404"),
        ((302, {"location": "http://127.0.0.1:1/"}, b""), "HTTP 302"),
        (
            (400, {}, b'{"id": null, "error": {"code": -32600, "message": "batch too large"}}'),
            "refused eth_chainId: batch too large",
        ),
        ((200, {}, b'{"id": 0, "error": {"code": -32000, "message": "no"}}'), "refused eth_chainId: no"),
    ],
)
def test_every_failure_is_an_rpc_error_without_the_key(
    node: Callable[..., Node], bad: Answer, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="httpx")
    with _rpc(node(bad).url, [], retries=2) as rpc, pytest.raises(RpcError, match=words) as caught:
        rpc.chain_id()
    assert "http://127.0.0.1:" in str(caught.value)
    assert caplog.records
    assert KEY not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_a_key_that_the_node_repeats_is_not_passed_on(node: Callable[..., Node]) -> None:
    said = json.dumps({"id": 0, "error": {"code": 1, "message": f"project {KEY} is over its limit"}}).encode()
    with (
        _rpc(node((200, {}, said)).url, []) as rpc,
        pytest.raises(RpcError, match="over its limit") as caught,
    ):
        rpc.chain_id()
    assert KEY not in str(caught.value)


def test_a_node_that_is_down_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        pauses: list[float] = []
        with _rpc(f"http://127.0.0.1:{port}/{KEY}", pauses) as rpc, pytest.raises(RpcError) as caught:
            rpc.chain_id()
    assert f"http://127.0.0.1:{port}/… does not answer" in str(caught.value)
    assert "Check that the node runs" in str(caught.value)
    assert len(pauses) == 4


def test_a_node_that_says_nothing_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Rpc(url, 0.1, retries=1, sleep=lambda _: None) as rpc, pytest.raises(RpcError, match=r"0\.1 s"):
            rpc.chain_id()


def test_an_error_inside_a_batch_names_its_method(node: Callable[..., Node]) -> None:
    said = b'[{"id": 1, "error": {"code": 3, "message": "x", "data": "0x0102"}}, {"id": 0, "result": "0x1"}]'
    played = node((200, {}, said))
    with _rpc(played.url, []) as rpc, pytest.raises(RpcAnswerError, match="refused eth_b") as caught:
        rpc.batch([("eth_a", []), ("eth_b", [])])
    assert (caught.value.code, caught.value.data) == (3, b"\x01\x02")


def test_a_batch_keeps_its_order_whatever_the_nodes(node: Callable[..., Node]) -> None:
    said = b'[{"id": 2, "result": "c"}, {"id": 0, "result": "a"}, {"id": 1, "result": null}]'
    with _rpc(node((200, {}, said)).url, []) as rpc:
        assert rpc.batch([("x", []), ("y", []), ("z", [])]) == ["a", None, "c"]


@pytest.mark.parametrize("ids", [(1, 2), (0, 0), (None, 1)])
def test_where_one_id_is_wrong_no_answer_of_the_batch_is_believed(
    node: Callable[..., Node], ids: tuple[Any, Any]
) -> None:
    wrong = [{"id": ids[0], "result": "a"}, {"id": ids[1], "result": "b"}]
    right = [{"id": 0, "result": "c"}, {"id": 1, "result": "d"}]
    played = node(*((200, {}, json.dumps(each).encode()) for each in (wrong, right)))
    with _rpc(played.url, []) as rpc:
        assert rpc.batch([("first", []), ("second", [])]) == ["c", "d"]
    assert [len(calls) for calls in played.asked] == [2, 2]


def test_a_batch_with_a_missing_answer_is_refused(node: Callable[..., Node]) -> None:
    said = b'[{"id": 0, "result": "a"}]'
    with _rpc(node((200, {}, said)).url, []) as rpc, pytest.raises(RpcError, match="no result for second"):
        rpc.batch([("first", []), ("second", [])])


def test_a_block_that_is_not_there_is_no_block_zero(node: Callable[..., Node]) -> None:
    with _rpc(node(_ok(None)).url, []) as rpc, pytest.raises(RpcError, match="has no block 77"):
        rpc.block(77)


def test_another_block_than_asked_for_is_refused(node: Callable[..., Node]) -> None:
    header = {"number": "0x5", "hash": "0x1", "parentHash": "0x0", "timestamp": "0x9"}
    with _rpc(node(_ok(header)).url, []) as rpc:
        assert rpc.block("latest").number == 5
        with pytest.raises(RpcError, match="answered block 5 when asked for 6"):
            rpc.block(6)


def test_one_connection_serves_all_calls(node: Callable[..., Node]) -> None:
    played = node(_ok("0x1"))
    with _rpc(played.url, []) as rpc:
        for _ in range(5):
            rpc.chain_id()
    assert len(played.asked) == 5
    assert len(played.connections) == 1


def test_a_real_node_answers_calls_at_a_block_by_hash(deployed: Any) -> None:
    rpc, vault = deployed.rpc, deployed.deployment.stake_vault()
    before = rpc.block("latest")
    deployed.stake(0, 5)
    data = vault.encode("totalStaked")
    assert rpc.call(vault.address, data, before) == bytes(32)
    assert int.from_bytes(rpc.call(vault.address, data, "latest")) == 5
    assert rpc.code(deployed.address(9)) == b""
    assert rpc.receipt(Hash32("0x" + "0" * 64)) is None
    many = rpc.calls([(vault.address, data)] * 250, "latest")
    assert {int.from_bytes(each) for each in many} == {5}
    with pytest.raises(RpcError):
        rpc.call(vault.address, data, replace(before, hash=Hash32("0x" + "7" * 64)))
