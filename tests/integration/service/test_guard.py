"""What every answer of a real service wears, who may read it, and who has asked too much."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from chain.devnet import mine
from chain.feedback import dense_ranks
from chain.messages import sign
from service.headers import HEADERS, HSTS
from service.ledger import queries
from service.ledger.tables import EpochRow
from tests.integration.service.conftest import RANKING_ONLY, quality

APP, OTHER = "https://app.example", "https://evil.example"
LIMIT = 60


@pytest.fixture(scope="module")
def guarded(network: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a service behind a trusted proxy on loopback, with narrow limits and one reader."""
    options = {
        "trusted_proxies": "127.0.0.1, 10.0.0.0/8", "cors_origins": APP, "rate_address": LIMIT, "rate_wallet": 12,
        "rate_login": 5, "rate_exports": 3, "rate_contracts": 2,
    }  # fmt: skip
    with network(tmp_path_factory.mktemp("guard"), RANKING_ONLY, **options) as net:
        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 60))
        with net.ctx.db.write() as db:
            for n in range(100, 140):
                row = EpochRow(
                    epoch=n, seed_hash="0x" + "11" * 32, gold_root="0x" + "22" * 32, rules_hash="0x" + "33" * 32,
                    rules={}, lambda_num="1", lambda_den="1", opened_at=0, committed_at=0,
                )  # fmt: skip
                queries.add(db, row)
            db.commit()
        yield net


_ADDRESSES = iter(range(1, 10_000))


def _address() -> str:
    n = next(_ADDRESSES)
    return f"203.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"


def _ask(net: Any, method: str, path: str, address: str | None = None, **options: Any) -> httpx.Response:
    headers = {"x-forwarded-for": address or _address()} | options.pop("headers", {})
    answer: httpx.Response = net.ask(method, path, headers=headers, **options)
    return answer


def _get_paths(net: Any) -> list[str]:
    paths = net.ask("GET", "/openapi.json").json()["paths"]
    values = {
        "epoch": 0,
        "wallet": "0x" + "11" * 20,
        "digest": "0x" + "11" * 32,
        "data_hash": "0x" + "11" * 32,
    }
    values |= {"kind": "rankings", "form": "jsonl", "task": "0x" + "11" * 32}
    found = [path.format(**values) for path, methods in paths.items() if "get" in methods]
    return [*found, "/", "/docs", "/openapi.json"]


def test_head_asks_as_get_does_and_gets_no_body(guarded: Any) -> None:
    for path in _get_paths(guarded):
        asked = _ask(guarded, "HEAD", path)
        assert asked.content == b"", path
        if path != "/v1/events":
            answer = _ask(guarded, "GET", path)
            assert asked.status_code == answer.status_code, path
            assert asked.headers["content-type"] == answer.headers["content-type"], path
    assert _ask(guarded, "HEAD", "/v1/sessions").status_code == 405
    assert _ask(guarded, "POST", "/v1/info").headers["allow"] == "GET, HEAD"


def test_every_answer_wears_the_headers_and_only_the_pages_may_be_more_than_data(guarded: Any) -> None:
    for path in (*_get_paths(guarded), "/nowhere"):
        answer = _ask(guarded, "HEAD", path)
        for name, value in HEADERS.items():
            if name != "Content-Security-Policy":
                assert answer.headers[name] == value, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert "http" not in policy
        assert ("style-src" in policy) == (path in {"/", "/docs"})
        assert "'unsafe-eval'" not in policy
        assert "strict-transport-security" not in answer.headers
        assert "server" not in answer.headers


def test_the_page_of_the_api_names_every_route_and_asks_nothing_of_another_host(guarded: Any) -> None:
    page = _ask(guarded, "GET", "/docs").text
    document = guarded.ask("GET", "/openapi.json").json()["paths"]
    named = re.findall(r"<dt><code>([A-Z]+) (?:<a href=[^>]*>)?([^<]+)<", page)
    assert sorted(named) == sorted((m.upper(), path) for path, methods in document.items() for m in methods)
    assert "Read back what this wallet signed, newest first" in page
    linked = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert {"/openapi.json", "/v1/info", "/v1/models"} <= set(linked)
    for path in linked:
        assert path.startswith("/")
        assert _ask(guarded, "HEAD", path).status_code not in {401, 404}, path
    assert "GET /v1/tasks/next</code>, private" in page
    assert "<script" not in page
    assert _ask(guarded, "GET", "/redoc").status_code == 404


def test_strict_transport_is_asked_for_behind_tls_alone(guarded: Any) -> None:
    secure = _ask(guarded, "GET", "/v1/info", headers={"x-forwarded-proto": "https"})
    assert secure.headers["strict-transport-security"] == HSTS[1].decode()


def test_what_is_private_is_kept_by_nobody(guarded: Any) -> None:
    token = guarded.person(stake=1)._token
    assert _ask(guarded, "GET", "/v1/rankings", token=token).headers["cache-control"] == "no-store"
    assert _ask(guarded, "GET", "/v1/rankings").headers["cache-control"] == "no-store"
    assert _ask(guarded, "POST", "/v1/sessions", {}).headers["cache-control"] == "no-store"
    assert _ask(guarded, "GET", "/v1/info").headers["cache-control"] == "no-cache"


def test_large_public_answers_are_compressed_and_private_ones_are_not(guarded: Any) -> None:
    token = guarded.person(stake=1)._token
    plain = _ask(guarded, "GET", "/v1/epochs", headers={"accept-encoding": "identity"})
    with guarded.api._http.stream("GET", "/v1/epochs", headers={"x-forwarded-for": _address()}) as answer:
        raw = b"".join(answer.iter_raw())
        assert (answer.headers["content-encoding"], answer.headers["vary"]) == (
            "gzip",
            "Accept-Encoding, Origin",
        )
    assert len(raw) < len(plain.content) / 4
    assert gzip.decompress(raw) == plain.content
    assert "content-encoding" not in _ask(guarded, "GET", "/v1/epochs", token=token).headers
    assert "content-encoding" not in _ask(guarded, "GET", "/v1/terms").headers


def test_a_page_that_is_named_may_read_and_no_other(guarded: Any) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = _ask(guarded, "OPTIONS", "/v1/rankings", headers=asked | {"origin": APP})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (204, APP)
    assert "Authorization" in allowed.headers["access-control-allow-headers"]
    refused = _ask(guarded, "OPTIONS", "/v1/rankings", headers=asked | {"origin": OTHER})
    assert refused.status_code == 405
    for origin in (APP, OTHER, "null", APP + ".evil.example", APP.upper()):
        answer = _ask(guarded, "GET", "/v1/info", headers={"origin": origin})
        assert answer.headers.get("access-control-allow-origin") == (APP if origin == APP else None)
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers
    assert (
        "Link"
        in _ask(guarded, "GET", "/v1/info", headers={"origin": APP}).headers["access-control-expose-headers"]
    )


def test_nobodys_page_may_read_unless_it_was_named(net: Any) -> None:
    answer = net.ask("GET", "/v1/info", headers={"origin": APP})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def _check_refusal(answer: httpx.Response, name: str) -> None:
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["ratelimit"].startswith(f'"{name}";r=0;t=')
    assert answer.headers["ratelimit-policy"].startswith(f'"{name}";q=')
    assert "nothing was done; try again in" in answer.json()["detail"]


def test_an_address_that_asks_too_much_is_put_off_and_others_are_not(guarded: Any) -> None:
    busy = _address()
    answers = [_ask(guarded, "GET", "/v1/terms", busy) for _ in range(LIMIT + 5)]
    assert {a.status_code for a in answers[:LIMIT]} == {200}
    assert answers[0].headers["ratelimit-policy"] == f'"address";q={LIMIT};w=60'
    assert answers[0].headers["ratelimit"] == f'"address";r={LIMIT - 1}'
    _check_refusal(answers[-1], "address")
    assert answers[-1].headers["x-content-type-options"] == "nosniff"
    assert _ask(guarded, "GET", "/v1/terms").status_code == 200


def test_loopback_itself_is_counted_and_a_stranger_cannot_speak_for_others(
    network: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with network(tmp_path_factory.mktemp("loopback"), RANKING_ONLY, rate_address=10) as net:
        said = [{"x-forwarded-for": _address()} for _ in range(12)]
        statuses = [net.ask("GET", "/v1/terms", headers=headers).status_code for headers in said]
    assert statuses[:10] == [200] * 10
    assert 429 in statuses[10:]


def test_logins_and_exports_have_tighter_limits(guarded: Any) -> None:
    busy = _address()
    for _ in range(5):
        assert _ask(guarded, "POST", "/v1/login", busy, body={}).status_code == 400
    _check_refusal(_ask(guarded, "POST", "/v1/sessions", busy, body={}), "login")
    for _ in range(3):
        assert _ask(guarded, "GET", "/v1/epochs/0/bundle", busy).status_code == 404
    _check_refusal(_ask(guarded, "GET", "/v1/epochs/0/exports/rankings.jsonl", busy), "exports")
    assert _ask(guarded, "GET", "/v1/terms", busy).status_code == 200


def test_head_is_counted_as_get_is(guarded: Any) -> None:
    busy = _address()
    for _ in range(3):
        assert _ask(guarded, "HEAD", "/v1/epochs/0/bundle", busy).status_code == 404
    assert _ask(guarded, "HEAD", "/v1/epochs/0/bundle", busy).status_code == 429


def test_a_wallet_is_counted_by_its_token_from_wherever_it_asks(guarded: Any) -> None:
    token = guarded.person(stake=1)._token
    answers = [_ask(guarded, "GET", "/v1/rankings", token=token) for _ in range(14)]
    assert [a.status_code for a in answers[:11]] == [200] * 11
    _check_refusal(answers[-1], "wallet")
    assert _ask(guarded, "GET", "/v1/rankings", token="nonsense").status_code == 401


def _signed(net: Any, who: Any, by: Any = None, **change: Any) -> dict[str, Any]:
    task = who.next_task()
    ranking = who.ranking(task, dense_ranks([quality(t) for t in task.shown]), now=net.now(), **change)
    return {"ranking": ranking.to_json(), "signature": sign(ranking, net.ctx.domain, by or who.wallet)}


def test_a_stranger_who_names_a_wallet_uses_up_nothing_of_it(guarded: Any) -> None:
    victim, stranger = guarded.person(stake=1), guarded.person(stake=1)
    body = _signed(guarded, victim)
    forged = body | {"signature": _signed(guarded, stranger)["signature"]}
    for _ in range(30):
        assert _ask(guarded, "POST", "/v1/rankings", body=forged).status_code in {422, 429}
    assert _ask(guarded, "POST", "/v1/rankings", body=body).status_code == 201
    again = [_ask(guarded, "POST", "/v1/rankings", body=body) for _ in range(12)]
    assert again[0].status_code == 200
    _check_refusal(again[-1], "wallet")


def test_signatures_that_only_the_chain_can_judge_are_few(guarded: Any) -> None:
    mine(guarded.rpc, 3)
    who, busy = guarded.person(stake=1), _address()
    body = _signed(guarded, who) | {"signature": "0x" + "ab" * 70}
    answers = [_ask(guarded, "POST", "/v1/rankings", busy, body=body) for _ in range(3)]
    assert [a.status_code for a in answers[:2]] == [422, 422]
    _check_refusal(answers[2], "contract wallets")
    assert json.loads(answers[0].content)["detail"]
