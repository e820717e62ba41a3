"""Every error of the API is application/problem+json (RFC 9457), whichever part of the program refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx
import pytest

from service.app import create_app
from service.guard import HEADERS

NOWHERE = (
    "/nope",
    "/v1",
    "/v1/nope",
    "/v1/epochs/0/nope",
    "/docs/nope",
    "/%F0%9F%90%8D",
    "/v1/info/../../etc/passwd",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
HASH = "0x" + "11" * 32
GOOD = {
    "epoch": 0, "wallet": "0x" + "11" * 20, "kind": "session", "task": HASH, "digest": HASH, "data_hash": HASH,
    "form": "jsonl",
}  # fmt: skip
BAD = {
    "epoch": "x", "wallet": "0x12", "kind": "nothing", "task": "0x1", "digest": "0x1", "data_hash": "0x1",
    "form": "exe",
}  # fmt: skip


def check(answer: httpx.Response) -> None:
    """Check one error: its form, that status, title and body agree, and that it wears the security headers."""
    where = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json", where
    for name in HEADERS:
        assert name in answer.headers, where
    if answer.request.method == "HEAD":
        return
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail"}, where
    assert body["type"] == "about:blank", where
    assert body["status"] == answer.status_code, where
    assert body["title"] == HTTPStatus(answer.status_code).phrase, where
    assert body["detail"], where


def _paths(net: Any) -> dict[str, set[str]]:
    """Return every path of the document with the methods that it takes, and those beside the document."""
    document = net.ask("GET", "/openapi.json").json()["paths"]
    found = {path: {m.upper() for m in methods} for path, methods in document.items()}
    return found | {"/": {"GET"}, "/docs": {"GET", "HEAD"}, "/openapi.json": {"GET", "HEAD"}}


def _wrong(net: Any) -> Iterator[httpx.Response]:
    """Yield what each route says to a request that is wrong in each way that it can be."""
    for path, methods in _paths(net).items():
        right = path.format(**GOOD)
        for method in METHODS:
            if method not in methods | ({"HEAD"} if "GET" in methods else set()):
                yield net.ask(method, right)
        if path != right:
            yield net.ask(min(methods), path.format(**BAD), {} if "POST" in methods else None)
        if "POST" in methods:
            for content in (b"", b"{", b"[]", b'"\\ud800"', b'{"more": 1}', b"[" * 5000):
                yield net.ask("POST", right, content=content)
            yield net.ask("POST", right, content=b" " * 300_000)
    for path in (
        "/v1/epochs/999999",
        "/v1/epochs/999999/bundle",
        "/v1/leaderboard?limit=0",
        "/v1/epochs?cursor=x",
        "/v1/rankings",
        "/v1/tasks/next",
    ):
        yield net.ask("GET", path)


def test_whatever_is_wrong_with_a_request_is_told_as_a_problem(net: Any) -> None:
    seen = set()
    for answer in _wrong(net):
        seen.add(answer.status_code)
        assert answer.status_code >= 400, (answer.request.method, answer.request.url)
        check(answer)
    assert seen >= {400, 401, 404, 405, 413}


@pytest.mark.parametrize("path", NOWHERE)
@pytest.mark.parametrize("method", METHODS)
def test_a_path_that_is_not_there_is_a_problem_that_names_it(net: Any, method: str, path: str) -> None:
    answer = net.ask(method, path)
    assert answer.status_code == 404
    check(answer)
    if method != "HEAD":
        assert "there is nothing at /" in answer.json()["detail"]
        assert "/docs" in answer.json()["detail"]


def test_a_method_that_a_path_does_not_take_is_told_with_those_that_it_does(net: Any) -> None:
    answer = net.ask("DELETE", "/v1/sessions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "/v1/sessions does not take DELETE" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_that_is_not_sent_as_json_is_told_how_to_send_it(net: Any, kind: str) -> None:
    answer = net.ask("POST", "/v1/sessions", {}, headers={"content-type": kind})
    assert answer.status_code == 400
    check(answer)
    assert "send the body with `Content-Type: application/json`" in answer.json()["detail"]


class Hollow(NamedTuple):
    """A deployment that lacks all but what is asked for at the start."""

    chain_id: int

    def stake_vault(self) -> None:
        pass


def test_a_fault_of_the_service_is_a_problem_too_and_shows_nothing_of_itself(net: Any) -> None:
    hollow = replace(net.ctx, deployment=Hollow(net.ctx.deployment.chain_id))
    transport = httpx.ASGITransport(create_app(hollow, clock=False), raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.get("/v1/info")

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    check(answer)
    assert "AttributeError" not in answer.text
    assert "deployment" not in answer.text


def test_the_document_says_what_form_an_error_has_and_promises_no_other(net: Any) -> None:
    document = net.ask("GET", "/openapi.json").json()
    for methods in document["paths"].values():
        for route in methods.values():
            refusals = {s: r for s, r in route["responses"].items() if s[0] in "45" and s != "503"}
            assert set(refusals) == {"4XX", "5XX"}
            for refusal in refusals.values():
                ((kind, body),) = refusal["content"].items()
                assert kind == "application/problem+json"
                assert set(body["schema"]["properties"]) == {"type", "title", "status", "detail"}
    assert "HTTPValidationError" not in str(document)
