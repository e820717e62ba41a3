"""A node in front of a real one, over real HTTP, that goes wrong in the way that it is told to.

    with Faulty(anvil.url) as node:
        node.fault = drops_log(2)
        index(Rpc(node.url), ...)

A fault gets the calls of one request and `forward`, which asks the real node. It returns the answers, or a
Reply with a status and body of its own, or raises a ConnectionAbortedError to hang up.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

import httpx

Call = dict[str, Any]
"""A JSON-RPC request, as parsed."""
Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class Reply:
    """An HTTP response that is not simply the answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """None: the answers, as JSON."""
    answers: Answers = field(default_factory=list)
    cut: bool = False
    """Send half of the body."""
    drip: float = 0.0
    """Seconds between a byte and the next."""
    of: Literal["body", "headers"] = "body"
    """Where it begins to drip."""


Forward = Callable[[list[Call]], Answers]
Fault = Callable[[list[Call], Forward], "Answers | Reply"]


def honest(calls: list[Call], forward: Forward) -> Answers:
    """Pass everything on."""
    return forward(calls)


# -- the way there ------------------------------------------------------------------------------------------------


def hangs_up(_calls: list[Call], _forward: Forward) -> Answers:
    """Close the connection without an answer."""
    raise ConnectionAbortedError


def times_out(seconds: float) -> Fault:
    """Say nothing for so long, then hang up."""

    def fault(_calls: list[Call], _forward: Forward) -> Answers:
        time.sleep(seconds)
        raise ConnectionAbortedError

    return fault


def is_busy(retry_after: str = "") -> Fault:
    """Answer HTTP 429."""
    headers = {"retry-after": retry_after} if retry_after else {}
    return lambda _calls, _forward: Reply(429, headers, b"")


def fails(status: int = 503) -> Fault:
    """Answer a status, and no JSON."""
    return lambda _calls, _forward: Reply(status, {}, b"<html>sorry</html>")


def truncates(calls: list[Call], forward: Forward) -> Reply:
    """Send half of the answer as if it were all."""
    return Reply(answers=forward(calls), cut=True)


def drips(pause_s: float, of: Literal["body", "headers"] = "body") -> Fault:
    """Send the answer byte by byte: each in time, and all of it never."""
    return lambda calls, forward: Reply(answers=forward(calls), drip=pause_s, of=of)


def floods(size: int, *methods: str) -> Fault:
    """Answer calls of these methods with so many bytes of blanks before the answer, which is still JSON."""

    def fault(calls: list[Call], forward: Forward) -> Answers | Reply:
        answers = forward(calls)
        if not any(call["method"] in methods for call in calls):
            return answers
        text = json.dumps(answers if len(calls) > 1 else answers[0]).encode()
        return Reply(body=b" " * size + text)

    return fault


# -- JSON-RPC errors ----------------------------------------------------------------------------------------------


def refuse(call: Call, code: int, message: str) -> dict[str, Any]:
    """Return a JSON-RPC error."""
    return {"jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message}}


def refuses(code: int, message: str, *methods: str) -> Fault:
    """Answer calls of these methods, or all, with an error and the others honestly."""

    def fault(calls: list[Call], forward: Forward) -> Answers:
        answers = forward(calls)
        return [
            refuse(call, code, message) if not methods or call["method"] in methods else answer
            for call, answer in zip(calls, answers, strict=True)
        ]

    return fault


def errs_in_batch(code: int = -32005, message: str = "rate limit exceeded", *, after: int = 1) -> Fault:
    """Answer only the first so many calls of each batch."""

    def fault(calls: list[Call], forward: Forward) -> Answers:
        answers = forward(calls)
        return answers[:after] + [refuse(call, code, message) for call in calls[after:]]

    return fault


def limits_batch(most: int) -> Fault:
    """Refuse batches of more calls with one error for all."""

    def fault(calls: list[Call], forward: Forward) -> Answers:
        return forward(calls) if len(calls) <= most else [refuse(calls[0], -32600, "batch too large")]

    return fault


def limits_results(most: int) -> Fault:
    """Refuse to send more logs at once, as most providers do."""

    def fault(calls: list[Call], forward: Forward) -> Answers:
        answers = forward(calls)
        for at, (call, answer) in enumerate(zip(calls, answers, strict=True)):
            if call["method"] == "eth_getLogs" and len(answer.get("result", [])) > most:
                answers[at] = refuse(call, -32005, f"query returned more than {most} results")
        return answers

    return fault


def limits_range(most: int) -> Fault:
    """Refuse to look for logs in more blocks at once."""

    def fault(calls: list[Call], forward: Forward) -> Answers:
        answers = forward(calls)
        for at, call in enumerate(calls):
            if call["method"] == "eth_getLogs":
                wanted = call["params"][0]
                if int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) >= most:
                    answers[at] = refuse(call, -32602, f"eth_getLogs is limited to a {most} blocks range")
        return answers

    return fault


# -- what is not so -----------------------------------------------------------------------------------------------


def is_chain(chain_id: int) -> Fault:
    """Be a node of another chain."""

    def fault(calls: list[Call], forward: Forward) -> Answers:
        answers = forward(calls)
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_chainId":
                answer["result"] = hex(chain_id)
        return answers

    return fault


def lags(blocks: int) -> Fault:
    """Know nothing of the newest so many blocks."""

    def fault(calls: list[Call], forward: Forward) -> Answers:
        head, final = (max(height - blocks, 0) for height in _ends(forward))
        return _until(head, final, calls, forward)

    return fault


def freezes() -> Fault:
    """Learn of no block any more, from the first request on."""
    ends: list[int] = []

    def fault(calls: list[Call], forward: Forward) -> Answers:
        if not ends:
            ends.extend(_ends(forward))
        return _until(*ends, calls, forward)

    return fault


def loses_finality() -> Fault:
    """Learn of new blocks, and of none that becomes final any more, from the first request on."""
    ends: list[int] = []

    def fault(calls: list[Call], forward: Forward) -> Answers:
        head, final = _ends(forward)
        ends.append(final)
        return _until(head, ends[0], calls, forward)

    return fault


def _ends(forward: Forward) -> Iterator[int]:
    """Yield the heights of the head and of the finalized block."""
    for each in forward([_header("latest"), _header("finalized")]):
        yield int(each["result"]["number"], 16)


def _until(head: int, final: int, calls: list[Call], forward: Forward) -> Answers:
    """Answer as if there were no blocks after `head`."""
    tags = {"latest": head, "pending": head, "safe": final, "finalized": final}
    asked = [call | {"params": [_tagged(p, tags) for p in call["params"]]} for call in calls]
    answers = forward(asked)
    for at, call in enumerate(asked):
        if call["method"] == "eth_blockNumber":
            answers[at]["result"] = hex(head)
        elif any(height > head for height in _heights(call, forward)):
            is_header = call["method"] == "eth_getBlockByNumber"
            answers[at] = _null(call) if is_header else refuse(call, -32000, "unknown block")
    return answers


def drops_log(which: int, about: str = "") -> Fault:
    """Leave out one of the logs (of those that concern an address) of each answer."""

    def fault(calls: list[Call], forward: Forward) -> Answers:
        answers = forward(calls)
        for logs in _logs(calls, answers):
            concerned = [log for log in logs if about[2:] in "".join(log["topics"])]
            if -len(concerned) <= which < len(concerned):
                logs.remove(concerned[which])
        return answers

    return fault


def hides_logs(calls: list[Call], forward: Forward) -> Answers:
    """Answer that there are no logs."""
    answers = forward(calls)
    for logs in _logs(calls, answers):
        logs.clear()
    return answers


def another_hash(calls: list[Call], forward: Forward) -> Answers:
    """Give every block that is asked for by its number a hash that it has not."""
    answers = forward(calls)
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getBlockByNumber" and answer.get("result"):
            answer["result"]["hash"] = "0x" + "9" * 64
    return answers


# -- when it goes wrong -------------------------------------------------------------------------------------------


def first(requests: int, fault: Fault) -> Fault:
    """Go wrong for so many requests, and be honest after that."""
    left = [requests]

    def for_now(calls: list[Call], forward: Forward) -> Answers | Reply:
        left[0] -= 1
        return fault(calls, forward) if left[0] >= 0 else forward(calls)

    return for_now


def later(requests: int, fault: Fault) -> Fault:
    """Be honest for so many requests, and go wrong after that."""
    left = [requests]

    def from_then(calls: list[Call], forward: Forward) -> Answers | Reply:
        left[0] -= 1
        return forward(calls) if left[0] >= 0 else fault(calls, forward)

    return from_then


# -- the node -----------------------------------------------------------------------------------------------------


class Faulty:
    """The server; `seen` holds the methods that were asked for, `requests` how many in each request."""

    def __init__(self, upstream: str, fault: Fault = honest) -> None:
        self.upstream = upstream
        self.fault = fault
        self.seen: list[str] = []
        self.requests: list[int] = []
        self._client = httpx.Client(timeout=10)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._client.close()

    def forward(self, calls: list[Call]) -> Answers:
        """Ask the real node; the answers in the order of the calls."""
        numbered = [call | {"id": n} for n, call in enumerate(calls)]
        answers = sorted(self._client.post(self.upstream, json=numbered).json(), key=lambda each: each["id"])
        return [answer | {"id": call.get("id")} for call, answer in zip(calls, answers, strict=True)]

    def respond(self, body: bytes) -> tuple[Reply, bytes]:
        """Return what is replied to a request, and the body."""
        given = json.loads(body)
        calls = given if isinstance(given, list) else [given]
        self.seen += [call["method"] for call in calls]
        self.requests.append(len(calls))
        done = self.fault(calls, self.forward)
        reply = done if isinstance(done, Reply) else Reply(answers=done)
        many = isinstance(given, list)
        text = (
            json.dumps(reply.answers if many else reply.answers[0]).encode()
            if reply.body is None
            else reply.body
        )
        return reply, text[: len(text) // 2] if reply.cut else text

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                try:
                    reply, body = node.respond(self.rfile.read(int(self.headers["content-length"])))
                except ConnectionAbortedError:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in (reply.headers | {"content-length": str(len(body))}).items():
                    self.send_header(name, value)
                if not reply.drip:
                    self.end_headers()
                    self.wfile.write(body)
                    return
                if reply.of == "body":
                    self.end_headers()
                else:
                    body = b"".join([*self._headers_buffer, b"\r\n", body])
                self.close_connection = True
                with suppress(OSError):
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        time.sleep(reply.drip)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _logs(calls: Iterable[Call], answers: Answers) -> Iterator[list[dict[str, Any]]]:
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getLogs" and "result" in answer:
            yield answer["result"]


def _header(at: str) -> Call:
    return {"jsonrpc": "2.0", "id": 0, "method": "eth_getBlockByNumber", "params": [at, False]}


def _null(call: Call) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call["id"], "result": None}


def _tagged(param: Any, tags: dict[str, int]) -> Any:
    return hex(tags[param]) if isinstance(param, str) and param in tags else param


def _heights(call: Call, forward: Forward) -> Iterator[int]:
    """Yield the heights that a call is about."""
    for param in call["params"]:
        if isinstance(param, dict) and "blockHash" in param:
            found = forward(
                [_header("latest") | {"method": "eth_getBlockByHash", "params": [param["blockHash"], False]}]
            )
            yield int(found[0]["result"]["number"], 16) if found[0].get("result") else 1 << 62
        elif isinstance(param, dict):
            yield from (int(param[key], 16) for key in ("fromBlock", "toBlock") if key in param)
        elif isinstance(param, str) and call["method"] in {"eth_getBlockByNumber", "eth_call", "eth_getCode"}:
            # An address is no height.
            yield from ([int(param, 16)] if param.startswith("0x") and len(param) < 42 else [])
