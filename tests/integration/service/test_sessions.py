"""Who may log in, for how long, and what a request without a session gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account

from chain.messages import Domain, Session, parse_address, sign
from chain.types import Hash32
from service.auth import terms_hash, token_hash


@pytest.fixture(scope="module")
def wallet() -> Any:
    return Account.create()


@pytest.fixture
def session(net: Any, wallet: Any) -> Session:
    """Return a session that would be accepted, by a wallet that is its own key."""
    me = parse_address(wallet.address)
    return Session(me, me, 0, 10, net.now() + 100, terms_hash())


def _body(net: Any, session: Session, by: Any, domain: Domain | None = None) -> dict[str, Any]:
    return {"session": session.to_json(), "signature": sign(session, domain or net.ctx.domain, by)}


def _refused(net: Any, status: int, *words: str, **body: Any) -> None:
    net.refused(status, *words, method="POST", path="/v1/sessions", body=_body(net, **body))


def test_a_session_for_another_epoch_is_refused(net: Any, session: Session, wallet: Any) -> None:
    _refused(net, 422, "epoch 1, not 0", session=replace(session, epoch=1), by=wallet)


def test_a_session_under_other_terms_is_refused_with_those_in_force(
    net: Any, session: Session, wallet: Any
) -> None:
    other = Hash32("0x" + "ab" * 32)
    _refused(net, 422, other, terms_hash(), session=replace(session, terms_hash=other), by=wallet)


def test_a_session_that_is_over_is_refused_with_both_times(net: Any, session: Session, wallet: Any) -> None:
    over = net.now()
    _refused(net, 410, f"notAfter {over}", session=replace(session, not_after=over), by=wallet)


def test_a_session_signed_by_somebody_else_is_refused(net: Any, session: Session) -> None:
    other = Account.create()
    said = (session.wallet, parse_address(other.address))
    _refused(net, 422, *said, session=session, by=other)


def test_a_session_for_another_chain_or_contract_is_refused(net: Any, session: Session, wallet: Any) -> None:
    d = net.ctx.deployment
    for elsewhere in (Domain(1, d.vault), Domain(d.chain_id, d.token)):
        _refused(net, 422, "31337", d.vault, session=session, by=wallet, domain=elsewhere)


def test_logging_in_twice_gives_the_same_token_and_one_row(net: Any, session: Session, wallet: Any) -> None:
    first = net.api.request("POST", "/v1/sessions", body=_body(net, session, wallet))
    with net.nothing_written():
        assert net.api.request("POST", "/v1/sessions", body=_body(net, session, wallet)) == first


def test_a_token_is_stored_only_as_a_hash(net: Any, session: Session, wallet: Any) -> None:
    token = net.api.request("POST", "/v1/sessions", body=_body(net, session, wallet))["token"]
    stored = str(net.rows()["session"])
    assert token not in stored
    assert token_hash(token) in stored


@pytest.mark.parametrize("path", ["/v1/tasks/next", "/v1/rankings"])
@pytest.mark.parametrize("header", [None, "Bearer", "Basic abc", "Bearer garbage", "Bearer \xe9"])
def test_without_a_session_there_is_nothing_but_how_to_get_one(
    net: Any, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    net.refused(401, "POST", "/v1/sessions", method="GET", path=path, headers=headers)


def test_a_session_of_an_earlier_time_has_ended(net: Any) -> None:
    who = net.person(stake=1, epoch=None)
    who.log_in(epoch=0, now=net.now() - 3590, hours=1)
    assert who.next_task() is not None
    net.go_to(net.now() + 20)
    net.refused(401, "epoch 0 and has ended", method="GET", path="/v1/tasks/next", token=who._token)


def test_a_session_key_signs_nothing_after_its_time_even_if_it_says_it_did(net: Any, right: Any) -> None:
    who = net.person(stake=1, epoch=None)
    signed_at = net.now()
    who.log_in(epoch=0, now=signed_at - 3590, hours=1)
    task = who.next_task()
    net.go_to(net.now() + 20)
    ranking = who.ranking(task, right(task), now=signed_at)
    net.refused_ranking(410, "ended at", "new session", ranking=ranking, by=who.signer)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "JSON"),
        (b"[]", "valid dictionary"),
        (b'{"session": 1, "signature": "0x"}', "session"),
        (b'{"session": {}, "signature": "0x"}', "Session: missing or unknown field"),
        (b'{"session": {}, "signature": 5}', "signature"),
        (b'{"session": {}, "signature": "0x", "more": 1}', "more"),
        (b'{"session": {"\\ud800": 1}, "signature": "0x"}', "\\ud800"),
        (b"\xff\xfe", ""),
        (b'{"session": ' + b"[" * 100_000, ""),
        (b'{"session": {"epoch": ' + b"9" * 5000 + b"}}", ""),
    ],
)
def test_a_body_that_is_not_what_the_document_says_is_refused(net: Any, content: bytes, words: str) -> None:
    with net.nothing_written():
        answer = net.ask("POST", "/v1/sessions", content=content)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["detail"]


def test_a_body_that_is_too_large_is_refused_with_both_sizes(net: Any) -> None:
    body = {"session": {}, "signature": "0x" + "0" * 300_000}
    net.refused(413, str(256 * 1024), "300", method="POST", path="/v1/sessions", body=body)


def test_a_body_of_unknown_size_is_refused_before_it_is_read(net: Any) -> None:
    def endless() -> Any:
        yield from (b"{" * 65536 for _ in range(100))

    answer = net.ask("POST", "/v1/sessions", content=endless())
    assert answer.status_code == 411, answer.text
    assert "Content-Length" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["session", "ranking"])
def test_what_a_wallet_is_shown_to_sign_is_what_is_checked(net: Any, right: Any, kind: str) -> None:
    who = net.person(stake=1)
    task = who.next_task()
    message: Any = who.ranking(task, right(task), now=net.now())
    if kind == "session":
        message = Session(who.address, who.address, 0, 1, net.now() + 9, terms_hash())
    shown = net.api.request("POST", f"/v1/typed-data/{kind}", body=message.to_json())
    signed = Account.sign_typed_data(who.wallet.key, full_message=shown)
    assert "0x" + bytes(signed.signature).hex() == sign(message, net.ctx.domain, who.wallet)


def test_typed_data_of_something_else_is_refused(net: Any) -> None:
    net.refused(400, "'receipt'", method="POST", path="/v1/typed-data/receipt", body={})
