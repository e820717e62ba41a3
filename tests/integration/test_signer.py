"""A signer elsewhere signs exactly what it is asked, or nothing is sent; nothing that it says shows its password."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session

from chain import ledger, outbox
from chain.attempts import sign
from chain.contracts import Contract
from chain.devnet import Devnet
from chain.errors import KeyFileError, SignerError
from chain.fees import GWEI, UNLIMITED, Offer
from chain.hashing import keccak256
from chain.keys import address_of, devnet_accounts
from chain.outbox import TransactionKey
from chain.signer import Content, KeySigner, RemoteSigner, Signer, decode, signer_of
from chain.transactions import transact
from chain.types import Address, Hash32, Wei
from service import context
from service.errors import ConfigError
from service.settings import load

ACCOUNTS = devnet_accounts(31337)
ME, THEM = address_of(ACCOUNTS[0]), address_of(ACCOUNTS[1])
ASKED = Content(31337, 3, THEM, Wei(5), b"\x01\x02", 60_000, Wei(3 * GWEI), Wei(GWEI))
SECRET = "s3cr3t-of-the-signer"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def signer(liar: Any) -> Iterator[RemoteSigner]:
    """A second Anvil, which signs for its own accounts, behind a proxy that can change what it is asked."""
    made = RemoteSigner(liar.url, ME)
    yield made
    made.close()


def _changing(liar: Any, change: Change) -> None:
    """Change the fields on their way to the signer."""

    def ask(calls: list[dict[str, Any]]) -> None:
        for call in calls:
            if call["method"] == "eth_signTransaction":
                change(call["params"][0])

    liar.ask = ask


CONTENTS = st.builds(
    Content,
    st.sampled_from([1, 31337, 2**63]),
    st.integers(0, 2**40),
    st.sampled_from([THEM, None]),
    st.integers(0, 2**96).map(Wei),
    st.binary(max_size=80),
    st.integers(21_000, 2**30),
    st.integers(0, 2**60).map(Wei),
    st.integers(0, 2**60).map(Wei),
)


@given(CONTENTS, st.integers(0, 9))
def test_what_a_key_signs_is_read_back_as_it_was(content: Content, who: int) -> None:
    signed = decode(KeySigner(ACCOUNTS[who]).sign_transaction(content))
    assert (signed.content, signed.sender) == (content, address_of(ACCOUNTS[who]))
    assert signed.hash == "0x" + keccak256(signed.raw).hex()


@given(CONTENTS, st.data())
def test_a_bit_that_is_changed_makes_it_another_transaction_or_none(
    content: Content, data: st.DataObject
) -> None:
    raw = bytearray(KeySigner(ACCOUNTS[0]).sign_transaction(content))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode(bytes(raw))
    except SignerError:
        return
    assert (found.content, found.sender) != (content, ME)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_transaction_are_refused_in_words(raw: bytes) -> None:
    for strange in (raw, b"\x02" + raw, b"\x02\xf8" + raw):
        with pytest.raises(SignerError, match="is no signed transaction of type 2"):
            decode(strange)


def test_a_signature_that_no_node_takes_is_refused() -> None:
    from eth_account.typed_transactions.typed_transaction import TypedTransaction
    from hexbytes import HexBytes

    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    good = TypedTransaction.from_bytes(HexBytes(KeySigner(ACCOUNTS[0]).sign_transaction(ASKED)))
    fields = good.transaction.dictionary
    fields["s"], fields["v"] = order - fields["s"], 1 - fields["v"]
    with pytest.raises(SignerError, match="is not a plain signed transaction"):
        decode(good.encode())


# -- what it signs -----------------------------------------------------------------------------------------------


def test_a_remote_signer_signs_what_a_key_here_would(signer: RemoteSigner) -> None:
    signer.check()
    for content in (ASKED, replace(ASKED, to=None), replace(ASKED, value=Wei(0), data=b"")):
        assert sign(signer, content) == sign(ACCOUNTS[0], content)
        assert sign(signer, content.at(Offer(Wei(9), Wei(7)))).content.tip == 7


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda f: f.update(nonce="0x4"), "nonce 4 where 3"),
        (lambda f: f.update(to=ME), f"to {ME} where {THEM}"),
        (lambda f: f.pop("to"), "to None where"),
        (lambda f: f.update(value="0x6"), "value 6 where 5"),
        (lambda f: f.update(data="0x0103"), "data 0103 where 0102"),
        (lambda f: f.update(gas="0xea61"), "gas 60001 where 60000"),
        (lambda f: f.update(maxFeePerGas=hex(4 * GWEI)), "max_fee 4000000000 where 3000000000"),
        (lambda f: f.update(maxPriorityFeePerGas=hex(2 * GWEI)), "tip 2000000000 where 1000000000"),
        (lambda f: f.update({"from": THEM}), f"with the key of {THEM}, not of {ME}"),
        (
            lambda f: f.update(accessList=[{"address": ME, "storageKeys": []}]),
            "is not a plain signed transaction of type 2",
        ),
        (
            lambda f: (
                f.pop("maxFeePerGas"),
                f.pop("maxPriorityFeePerGas"),
                f.update(gasPrice=hex(3 * GWEI), type="0x0"),
            ),
            "is no signed transaction of type 2",
        ),
    ],
)
def test_a_signer_that_changes_anything_is_refused_in_words(
    signer: RemoteSigner, liar: Any, change: Change, field: str
) -> None:
    _changing(liar, change)
    with pytest.raises(SignerError, match=field):
        sign(signer, ASKED)


def test_a_signer_that_was_started_for_another_chain_is_refused_in_words(
    signer: RemoteSigner, liar: Any
) -> None:
    def lie(_: Any, answers: list[dict[str, Any]]) -> None:
        answers[0]["result"] = (
            "0x" + KeySigner(ACCOUNTS[0]).sign_transaction(replace(ASKED, chain_id=1)).hex()
        )

    liar.lie = lie
    with pytest.raises(SignerError, match=r"chain_id 1 where 31337 .*which chain it was started for"):
        sign(signer, ASKED)


def test_nothing_is_stored_or_sent_of_what_a_signer_changed(
    deployed: Any, liar: Any, sessions: Callable[[], Session]
) -> None:
    with Devnet(0) as elsewhere:
        signer = RemoteSigner(elsewhere.url, ME)
        token = Contract("HapticToken", deployed.deployment.token)
        transact(deployed.rpc, signer, token, "transfer", THEM, 5)
        crooked = RemoteSigner(liar.url, ME)
        _changing(liar, lambda f: f.update(to=THEM))
        key, nonce = TransactionKey("post", 0, Hash32("0x" + "01" * 32)), deployed.rpc.nonce(ME)
        data = token.encode("transfer", THEM, 5)
        with sessions() as session:
            with pytest.raises(SignerError, match="signed to"):
                outbox.send(deployed.rpc, session, crooked, token.address, data, key=key)
            assert ledger.transaction(session, "post", 0) is None
            assert deployed.rpc.nonce(ME, "pending") == nonce
            # The right one takes up where it was.
            row = outbox.send(deployed.rpc, session, signer, token.address, data, key=key)
            receipt = outbox.bring(deployed.rpc, session, signer, row)
        assert receipt is not None
        assert deployed.view(token, "balanceOf", THEM) == 10
        for each in (signer, crooked):
            each.close()


@pytest.mark.parametrize("chain_id", [1, 10, 31336])
def test_a_published_key_elsewhere_is_refused_on_any_other_chain_before_it_is_asked(
    signer: RemoteSigner, liar: Any, chain_id: int
) -> None:
    with pytest.raises(KeyFileError, match="everybody has its key"):
        sign(signer, replace(ASKED, chain_id=chain_id))
    assert liar.seen == []


# -- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_signer_without_the_key_is_named_before_anything_is_signed(liar: Any) -> None:
    other = RemoteSigner(liar.url, Address("0x" + "11" * 20))
    with pytest.raises(SignerError, match=r"has no key of 0x1111.*only of: 0xf39f.*HAPTIC_POSTER_ADDRESS"):
        other.check()
    with pytest.raises(SignerError, match=r"does not sign for 0x1111.*No Signer available"):
        other.sign_transaction(ASKED)
    other.close()


@pytest.mark.parametrize("odd", [None, 5, "", "0x", "no hex", {"raw": "0x02"}, [], "0x02c0"])
def test_an_answer_that_is_no_signed_transaction_is_called_that(
    signer: RemoteSigner, liar: Any, odd: Any
) -> None:
    def lie(_: Any, answers: list[dict[str, Any]]) -> None:
        answers[0]["result"] = odd

    liar.lie = lie
    with pytest.raises(SignerError, match="signed transaction"):
        signer.sign_transaction(ASKED)
    with pytest.raises(SignerError, match="only of: none"):
        signer.check()


def _hang(*_: Any) -> None:
    time.sleep(0.5)


def _hang_up(*_: Any) -> None:
    raise ConnectionAbortedError


def _refuse(_: Any, answers: list[dict[str, Any]]) -> None:
    answers[0].pop("result", None)
    answers[0]["error"] = {"code": -32000, "message": f"no such key in /v1/{SECRET}"}


@pytest.mark.parametrize("fault", [_hang, _hang_up, _refuse])
def test_no_error_repr_or_log_of_a_signer_shows_what_may_be_a_password(
    liar: Any, caplog: pytest.LogCaptureFixture, fault: Callable[..., None]
) -> None:
    url = liar.url.replace("http://", f"http://user:{SECRET}@") + f"/v1/{SECRET}?key={SECRET}"
    signer = RemoteSigner(url, ME, timeout_s=0.2)
    with caplog.at_level(logging.DEBUG):
        signer.check()
        if fault is _refuse:
            liar.lie = fault
        else:
            liar.ask = fault
        with pytest.raises(SignerError, match=f"does not sign for {ME}") as caught:
            signer.sign_transaction(ASKED)
    shown = "".join(traceback.format_exception(caught.value)) + repr(signer) + caplog.text
    assert SECRET not in shown
    assert "HTTP Request: POST http://127.0.0.1" in caplog.text
    signer.close()


@pytest.mark.parametrize(
    "url", ["signer:9000", "ftp://host/", f"http://user:{SECRET}@", f"https://[{SECRET}"]
)
def test_a_url_that_is_none_is_called_that_and_not_shown(url: str) -> None:
    with pytest.raises(
        SignerError, match=r"HAPTIC_POSTER_SIGNER\) must look like https://host:port"
    ) as caught:
        RemoteSigner(url, ME)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# -- as it is set up ---------------------------------------------------------------------------------------------


def test_the_service_posts_by_a_signer_where_one_is_set(liar: Any) -> None:
    found = context._poster(
        load(poster_signer=liar.url, poster_address=ACCOUNTS[0].address, max_fee_gwei=70), 31337
    )
    assert isinstance(found, RemoteSigner)
    assert (found.address, found.max_fee) == (ME, 70 * GWEI)
    found.close()
    with pytest.raises(SignerError, match="has no key of 0x1111"):
        context._poster(load(poster_signer=liar.url, poster_address="0x" + "11" * 20), 31337)
    with pytest.raises(KeyFileError, match="everybody has its key"):
        context._poster(load(poster_signer=liar.url, poster_address=ME), 1)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"poster_signer": "http://x"}, "needs HAPTIC_POSTER_ADDRESS"),
        ({"poster_address": ME}, "set HAPTIC_POSTER_SIGNER"),
        ({"poster_signer": "http://x", "poster_address": ME, "poster_keyfile": "k.json"}, "choose one"),
    ],
)
def test_settings_of_a_signer_that_are_not_clear_are_refused(given_: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        context._poster(load(**given_), 31337)


def test_a_key_becomes_a_signer_and_a_signer_stays_one(signer: Signer) -> None:
    made = signer_of(ACCOUNTS[0])
    assert (made.address, made.max_fee) == (ME, UNLIMITED)
    assert signer_of(signer) is signer
    assert ACCOUNTS[0].key.hex() not in repr(made)
