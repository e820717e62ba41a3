"""A message of login is read by the grammar of EIP-4361 alone, and written back to the same bytes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from eth_account import Account
from eth_account.messages import defunct_hash_message, encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import SignatureError
from chain.messages import checksum, recover
from chain.siwe import MAX_MESSAGE, SignIn, authority_of, personal_hash, seconds

WALLET = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
ASKS = "wants you to sign in with your Ethereum account:"
STANDARD = f"""example.com {ASKS}
{WALLET}

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json"""
"""The first example of the EIP."""
FULL = SignIn(
    "example.com", WALLET.lower(), "https://example.com/login", 1, "32891756", "2021-09-30T16:25:24Z",
    "2021-10-01T16:25:24.000Z", "2021-09-30T16:25:24+02:00", "A statement.", "some_id", ("https://a.b/c",),
)  # fmt: skip
LINES = FULL.text().split("\n")
SOON = datetime.fromtimestamp(1_800_000_000, UTC).replace(tzinfo=None)


def _refused(text: str, match: str = ".") -> None:
    with pytest.raises(SignatureError, match=match):
        SignIn.parse(text)


def _changed(start: str, line: str) -> str:
    """Return the full message with the line that starts so replaced."""
    assert sum(x.startswith(start) for x in LINES) == 1
    return "\n".join(line if x.startswith(start) else x for x in LINES)


def test_the_example_of_the_standard_is_read() -> None:
    found = SignIn.parse(STANDARD)
    assert found.domain == "example.com"
    assert found.address == WALLET.lower()
    assert found.statement == "I accept the ExampleOrg Terms of Service: https://example.com/tos"
    assert found.resources is not None
    assert len(found.resources) == 2
    assert (found.chain_id, found.nonce, found.scheme) == (1, "32891756", None)
    assert (found.expiration_time, found.not_before, found.request_id) == (None, None, None)
    assert found.text() == STANDARD


@pytest.mark.parametrize("start", ["example.com:3388", "https://example.com"])
def test_the_examples_with_a_port_and_with_a_scheme_are_read(start: str) -> None:
    text = STANDARD.replace("example.com", start, 1)
    found = SignIn.parse(text)
    assert found.text() == text
    assert (found.scheme, found.domain) == (
        ("https", "example.com") if "//" in start else (None, "example.com:3388")
    )


@pytest.mark.parametrize(
    "domain",
    ["127.0.0.1", "test@127.0.0.1", "127.0.0.1:8080", "test@127.0.0.1:8080", "[::1]:8000", "a:b@c.d", "x_y"],
)
def test_a_domain_is_any_authority(domain: str) -> None:
    text = replace(FULL, domain=domain).text()
    assert SignIn.parse(text).domain == domain


@pytest.mark.parametrize(
    "domain", ["", "a b", "example.com/", "exa#mple", "[::1", "[1::2::3]", "a:b:c", "a@b@c", "b?", "é.com"]
)
def test_a_domain_is_nothing_else(domain: str) -> None:
    _refused(replace(FULL, domain=domain).text(), "line 1")


def test_every_field_that_may_be_left_out_may_be() -> None:
    bare = SignIn(FULL.domain, FULL.address, FULL.uri, 1, FULL.nonce, FULL.issued_at)
    assert bare.text() == f"example.com {ASKS}\n{WALLET}\n\n\n" + "\n".join(LINES[5:10])
    for some in (bare, FULL, replace(FULL, resources=()), replace(bare, request_id="")):
        assert SignIn.parse(some.text()) == some


@given(st.data())
def test_what_is_written_is_read_and_what_is_read_is_written(data: st.DataObject) -> None:
    fields = {
        name: data.draw(st.sampled_from([None, getattr(FULL, name)]))
        for name in ("expiration_time", "not_before", "statement", "request_id", "resources")
    }
    message = replace(FULL, **fields, nonce=data.draw(st.from_regex(r"[A-Za-z0-9]{8,40}", fullmatch=True)))
    assert SignIn.parse(message.text()) == message
    lines = message.text().split("\n")
    place = data.draw(st.integers(0, len(lines) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                [*lines[:place], *lines[place + 1 :]],
                [*lines[:place], lines[place], *lines[place:]],
                [*lines[:place], *reversed(lines[place : place + 2]), *lines[place + 2 :]],
            ]
        )
    )
    try:
        read = SignIn.parse("\n".join(damaged))
    except SignatureError:
        return
    assert read.text() == "\n".join(damaged)


@pytest.mark.parametrize("name", ["URI", "Version", "Chain ID", "Nonce", "Issued At"])
def test_a_field_that_must_be_there_must_be_there(name: str) -> None:
    _refused("\n".join(x for x in LINES if not x.startswith(f"{name}: ")), f"expected `{name}: …`")


@pytest.mark.parametrize("place", range(5, 11))
def test_fields_stand_in_their_order(place: int) -> None:
    _refused("\n".join([*LINES[:place], LINES[place + 1], LINES[place], *LINES[place + 2 :]]))


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", FULL.text() + "\n", "\n" + FULL.text(), FULL.text().replace("\n", "\r\n"),
        FULL.text().replace(ASKS, ASKS.upper()), FULL.text().replace("Nonce: ", "nonce: "),
        FULL.text().replace("Nonce: ", "Nonce:"), FULL.text().replace("\n\n", "\n\n\n", 1),
        FULL.text().replace("A statement.", "A\nstatement."), FULL.text() + "\nResources:",
        FULL.text().replace("- https", "-https"), FULL.text() + " - https://a.b",
    ],
)  # fmt: skip
def test_nothing_stands_before_between_or_behind(text: str) -> None:
    _refused(text)


@pytest.mark.parametrize("statement", ["`", "a<b", "a>b", "{", "|", "}", "%41", '"', "\\", "^", "é", "\t"])
def test_a_statement_has_only_the_characters_that_the_grammar_has(statement: str) -> None:
    _refused(replace(FULL, statement=statement).text(), "statement")


def test_an_address_carries_its_checksum() -> None:
    for wrong in (WALLET.lower(), WALLET.swapcase().replace("X", "x", 1), WALLET[:-1], WALLET + "0"):
        _refused(_changed(WALLET, wrong), "address")


@pytest.mark.parametrize(
    "uri",
    [
        "_not_a_uri_", "://a.b", "uri://a.b/c d", "uri://a.b?x #y", "uri://[::0.0.0.256]/p", "uri://[::0.ff.0.255]",
        "uri://[ffff:abcd:0:10:200:3000:f8a]", "uri://[1:2:3:4:5:6:7:8::]", "uri://[::1:2:3:4:5:6:7:8]",
        "uri://[1:2:3:4:5:6::198.162.10.255]", "1uri://a", "uri://a/%4", "uri://a/^", "uri:a#b#c", "", "a/b", "u:a[b",
        "uri://[fe80::1%25en0]",
    ],
)  # fmt: skip
def test_what_is_no_uri_is_refused(uri: str) -> None:
    _refused(_changed("URI: ", f"URI: {uri}"), "URI: .*is not a URI")
    for line in (f"- {uri}\n- https://a.b", f"- https://a.b\n- {uri}"):
        _refused(_changed("- ", line), "resource: .*is not a URI")


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.com", "ipfs://Qm/", "did:key:z6M", "mailto:a@b.c", "uri://u:p@a.b:123/c/d.e?x=1&y=/?#z",
        "uri://[1:2:3:4:5:6:7::]", "uri://[::ffff:1.2.3.4]:80", "uri://[v7.a:b]", "uri:", "file:///a/b", "a:/b//c",
    ],
)  # fmt: skip
def test_what_is_a_uri_is_taken(uri: str) -> None:
    assert SignIn.parse(_changed("URI: ", f"URI: {uri}")).uri == uri


@pytest.mark.parametrize(
    ("uri", "authority"),
    [
        ("https://a.b", "a.b"), ("https://a.b:80/c@d", "a.b:80"), ("https://u@a.b?c", "u@a.b"), ("did:a", ""),
        ("x:/a//b", ""), ("https://a.b#https://c.d", "a.b"),
    ],
)  # fmt: skip
def test_the_authority_of_a_uri_is_what_a_browser_would_ask(uri: str, authority: str) -> None:
    assert authority_of(uri) == authority


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ("Version: ", "Version: 2"), ("Version: ", "Version: 1 "), ("Chain ID: ", "Chain ID: ?"),
        ("Chain ID: ", "Chain ID: "), ("Chain ID: ", "Chain ID: -1"), ("Chain ID: ", "Chain ID: \u0661"),
        ("Chain ID: ", "Chain ID: 0x1"), ("Nonce: ", "Nonce: 1234567"), ("Nonce: ", "Nonce: 1234-5678"),
        ("Nonce: ", "Nonce: é2345678"), ("Request ID: ", "Request ID: a/b"), ("Request ID: ", "Request ID: a b"),
    ],
)  # fmt: skip
def test_a_field_has_the_form_that_the_grammar_gives_it(start: str, line: str) -> None:
    _refused(_changed(start, line), start.rstrip(": "))


@pytest.mark.parametrize("name", ["Issued At", "Expiration Time", "Not Before"])
@pytest.mark.parametrize(
    "time",
    [
        "Wed Oct 05 2011 16:48:00 GMT+0200 (CEST)", "2021-09-30", "2021-09-30T16:25:24", "2021-02-29T00:00:00Z",
        "2021-13-01T00:00:00Z", "2021-00-01T00:00:00Z", "2021-01-00T00:00:00Z", "2021-01-01T24:00:00Z",
        "2021-01-01T00:60:00Z", "2021-01-01T00:00:60Z", "2021-01-01T00:00:00+24:00", "2021-01-01 00:00:00Z",
        "0000-01-01T00:00:00Z", "2021-01-01T00:00:00.Z", "21-01-01T00:00:00Z", "", "2021-01-01T00:00:00Z ",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(name: str, time: str) -> None:
    _refused(_changed(f"{name}: ", f"{name}: {time}"), "is not a time")


@given(
    st.datetimes(SOON.replace(year=2), SOON.replace(year=9998)),
    st.integers(-1439, 1439),
    st.integers(0, 999_999),
)
def test_a_time_is_the_second_that_it_is(moment: datetime, offset: int, fraction: int) -> None:
    aware = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset)))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    said = aware.isoformat()
    assert seconds(said) == (aware - epoch).total_seconds()
    assert seconds(said[:19] + f".{fraction:06d}" + said[19:]) == seconds(said)


def test_a_message_that_is_too_long_is_refused_at_once() -> None:
    longest = replace(FULL, statement="a" * (MAX_MESSAGE - len(FULL.text()) + len("A statement.")))
    assert SignIn.parse(longest.text()) == longest
    _refused(longest.text() + "a", f"{MAX_MESSAGE + 1} characters")
    _refused(_changed("Chain ID: ", f"Chain ID: {'9' * 79}"), "Chain ID")


def test_no_text_keeps_the_parser_busy() -> None:
    for hostile in (
        "a:" * 1500 + " ",
        "https://" + "@" * 3000,
        "%41" * 1300 + "%",
        "[" + ":" * 3900,
        "a//" * 1300,
    ):
        _refused(replace(FULL, domain=hostile).text())
        _refused(_changed("URI: ", f"URI: https://{hostile}^"))


@given(st.text(max_size=100))
def test_a_text_is_hashed_as_wallets_hash_it(text: str) -> None:
    assert personal_hash(text) == "0x" + bytes(defunct_hash_message(text=text)).hex()


def test_a_published_signature_is_that_of_its_wallet() -> None:
    """The first positive case of spruceid's verification vectors."""
    message = SignIn(
        domain="login.xyz", address="0x9d85ca56217d2bb651b00f15e694eb7e713637d4",
        statement="Sign-In With Ethereum Example Statement", uri="https://login.xyz", nonce="bTyXgcQxn2htgkjJn",
        issued_at="2022-01-27T17:09:38.578Z", chain_id=1, expiration_time="2100-01-07T14:31:43.952Z",
    )  # fmt: skip
    signature = (
        "0xdc35c7f8ba2720df052e0092556456127f00f7707eaa8e3bbff7e56774e7f2e0"
        "5a093cfc9e02964c33d86e8e066e221b7d153d27e5a2e97ccd5ca7d3f2ce06cb1b"
    )
    assert recover(personal_hash(message.text()), signature) == message.address
    mine = Account.from_key(b"\x07" * 32)
    said = Account.sign_message(encode_defunct(text=message.text()), mine.key)
    assert (
        checksum(recover(personal_hash(message.text()), "0x" + bytes(said.signature).hex())) == mine.address
    )
