"""Signing in with Ethereum: what the message must say, for how long, once, and what it opens."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from chain.keys import address_of
from chain.siwe import SignIn
from service.answers import ApiError
from service.api import Api
from service.auth import token_hash
from service.client import Contributor
from service.ledger import queries
from service.login import LONGEST_S, NONCE_S


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def wallet(net: Any) -> Any:
    account = Account.create()
    net.sponsor(address_of(account))
    return account


@pytest.fixture
def message(net: Any, wallet: Any) -> SignIn:
    """Return a message that would log the wallet in."""
    asked = net.api.get("/login/nonce")
    return SignIn(
        asked["domain"], address_of(wallet), f"http://{asked['domain']}/", asked["chain_id"], asked["nonce"],
        _time(asked["now"]), _time(asked["now"] + asked["longest"]), statement=asked["statement"],
    )  # fmt: skip


def _body(message: SignIn, by: Any) -> dict[str, str]:
    text = message.text()
    signed = Account.sign_message(encode_defunct(text=text), by.key)
    return {"message": text, "signature": "0x" + bytes(signed.signature).hex()}


def _refused(net: Any, status: int, *words: str, body: dict[str, str]) -> None:
    net.refused(status, *words, method="POST", path="/v1/login", body=body)


def test_who_signed_in_is_handed_tasks_and_reads_back(net: Any, message: SignIn, wallet: Any) -> None:
    answer = net.api.request("POST", "/v1/login", body=_body(message, wallet))
    assert answer["wallet"] == wallet.address
    assert answer["expires_at"] - LONGEST_S in range(net.now() - 60, net.now() + 1)
    assert net.api.request("GET", "/v1/tasks/next", token=answer["token"])["epoch"] == 0
    assert net.api.request("GET", "/v1/rankings", token=answer["token"]) == []


def test_a_client_signs_in_and_then_signs_each_ranking_itself(net: Any, right: Any, wallet: Any) -> None:
    me = Contributor(net.api, wallet, net.ctx.domain)
    me.sign_in()
    task = me.next_task()
    answer = me.send(me.ranking(task, right(task), now=net.now()))
    with net.ctx.db.read() as db:
        row = queries.ranking_by_digest(db, 0, answer["digest"])
    assert row.signer == address_of(wallet)
    assert address_of(wallet) not in str(net.rows()["session"])


def test_a_client_signs_nothing_where_it_is_asked_to_log_in_elsewhere(net: Any, wallet: Any) -> None:
    """What it signed would let whoever asks in at the other place."""
    with (
        net.nothing_written(),
        Api(net.api.url.replace("127.0.0.1", "localhost")) as elsewhere,
        pytest.raises(
            ApiError, match=r"localhost:\d+ asks for a login at '127.0.0.1:\d+', so nothing was signed"
        ),
    ):
        Contributor(elsewhere, wallet, net.ctx.domain).sign_in()


def test_a_login_grants_no_key(net: Any, message: SignIn, wallet: Any) -> None:
    net.api.request("POST", "/v1/login", body=_body(message, wallet))
    assert address_of(wallet) not in str(net.rows()["session"])


def test_a_token_is_stored_only_as_a_hash(net: Any, message: SignIn, wallet: Any) -> None:
    token = net.api.request("POST", "/v1/login", body=_body(message, wallet))["token"]
    stored = str(net.rows()["login"])
    assert token not in stored
    assert token_hash(token) in stored


def test_a_nonce_serves_once(net: Any, message: SignIn, wallet: Any) -> None:
    net.api.request("POST", "/v1/login", body=_body(message, wallet))
    _refused(net, 409, message.nonce, "used already", body=_body(message, wallet))


def test_a_signature_that_is_wrong_does_not_use_the_nonce_up(net: Any, message: SignIn, wallet: Any) -> None:
    stranger = Account.create()
    _refused(net, 422, address_of(stranger), "has no contract", body=_body(message, stranger))
    assert net.api.request("POST", "/v1/login", body=_body(message, wallet))["token"]


def test_a_million_nonces_cost_nothing_stored(net: Any) -> None:
    with net.nothing_written():
        assert len({net.api.get("/login/nonce")["nonce"] for _ in range(50)}) == 50


def test_a_nonce_that_was_not_given_out_is_refused(net: Any, message: SignIn, wallet: Any) -> None:
    real = message.nonce
    other = ("0" if real[0] != "0" else "1") + real[1:]
    for nonce in ("12345678", "0" * 64, real[:-2], real + "00", other, real.upper(), "zz" + real[2:]):
        if nonce != real:
            _refused(net, 422, "nonce", "/v1/login/nonce", body=_body(replace(message, nonce=nonce), wallet))


def test_a_nonce_is_good_for_the_hour_and_the_next(net: Any, message: SignIn, wallet: Any) -> None:
    net.go_to(net.now() + NONCE_S)
    net.api.request("POST", "/v1/login", body=_body(message, wallet))
    late = replace(message, nonce=net.api.get("/login/nonce")["nonce"])
    net.go_to(net.now() + 2 * NONCE_S)
    _refused(net, 422, "none that was given out within the hour", body=_body(late, wallet))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"domain": "evil.example"}, "domain is 'evil.example'"),
        ({"uri": "http://evil.example/"}, "URI is 'evil.example'"),
        ({"uri": "did:key:abc"}, "URI is ''"),
        ({"scheme": "ftp"}, "the domain's scheme is ftp"),
        ({"chain_id": 1}, "Chain ID is 1, expected 31337"),
        ({"statement": None}, "statement is None"),
        ({"statement": "I agree to nothing."}, "statement is 'I agree to nothing.'"),
        ({"expiration_time": None}, "Expiration Time is missing"),
    ],
)  # fmt: skip
def test_a_message_for_elsewhere_or_of_something_else_is_refused(
    net: Any, message: SignIn, wallet: Any, changes: dict[str, Any], words: str
) -> None:
    _refused(net, 422, words, body=_body(replace(message, **changes), wallet))


def test_a_message_is_of_its_time(net: Any, message: SignIn, wallet: Any) -> None:
    now = net.now()
    for status, words, changes in (
        (422, "is in the future", {"issued_at": _time(now + 400), "expiration_time": _time(now + 500)}),
        (422, "still to come", {"not_before": _time(now + 100)}),
        (422, "more than 86400 s", {"issued_at": _time(now - 9), "expiration_time": _time(now + LONGEST_S)}),
        (410, "is over", {"expiration_time": _time(now)}),
    ):
        _refused(net, status, words, body=_body(replace(message, **changes), wallet))
    good = replace(
        message,
        not_before=_time(now - 1),
        issued_at=_time(now - 60),
        scheme="http",
        expiration_time=_time(now + 9),
    )
    assert net.api.request("POST", "/v1/login", body=_body(good, wallet))["token"]


def test_a_message_that_is_none_is_refused(net: Any, message: SignIn, wallet: Any) -> None:
    good = _body(message, wallet)
    for text in ("", "hello", good["message"] + "\n", good["message"].replace("Version: 1", "Version: 2")):
        _refused(net, 422, body=good | {"message": text})
    for signature in ("0x", "0xzz", good["signature"].upper(), good["signature"] + "00"):
        _refused(net, 422, "signature", body=good | {"signature": signature})


def test_a_login_ends_when_it_said(net: Any, message: SignIn, wallet: Any) -> None:
    short = replace(message, expiration_time=_time(net.now() + 50))
    token = net.api.request("POST", "/v1/login", body=_body(short, wallet))["token"]
    assert net.api.request("GET", "/v1/rankings", token=token) == []
    net.go_to(net.now() + 60)
    net.refused(401, "this login ended", method="GET", path="/v1/rankings", token=token)
    # Its row is swept once no nonce of its time is good any more.
    assert short.nonce in str(net.rows()["login"])
    net.go_to(net.now() + 3 * NONCE_S)
    asked = net.api.get("/login/nonce")
    again = replace(
        message, nonce=asked["nonce"], issued_at=_time(net.now()), expiration_time=_time(net.now() + 9)
    )
    net.api.request("POST", "/v1/login", body=_body(again, wallet))
    assert short.nonce not in str(net.rows()["login"])
