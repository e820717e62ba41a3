"""Where a request is said to come from: nobody's word counts but that of a trusted proxy, and only its own last hop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ConfigError
from service.origin import NOWHERE, Origins, group, read_networks
from service.settings import load

PROXY, CLIENT, LIAR = "10.0.0.1", "203.0.113.7", "198.51.100.9"


def _of(trusted: str, peer: str | None, scheme: str = "http", **headers: str) -> tuple[str, bool]:
    scope = {"client": None if peer is None else (peer, 1234), "scheme": scheme}
    found = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Origins(read_networks(trusted)).of(scope, found)


@pytest.mark.parametrize(
    ("trusted", "peer", "said", "expected"),
    [
        ("", PROXY, CLIENT, PROXY),
        ("10.0.0.1", PROXY, CLIENT, CLIENT),
        ("10.0.0.0/8", PROXY, CLIENT, CLIENT),
        ("10.0.0.1", LIAR, CLIENT, LIAR),
        ("10.0.0.0/8", PROXY, f"{LIAR}, {CLIENT}", CLIENT),
        ("10.0.0.0/8", PROXY, f"{LIAR}, {CLIENT}, 10.9.9.9", CLIENT),
        ("10.0.0.0/8", PROXY, f"{CLIENT}:4711", CLIENT),
        ("10.0.0.0/8", PROXY, "[2001:db8::7]:4711", "2001:db8::/64"),
        ("10.0.0.0/8", PROXY, "nonsense", PROXY),
        ("10.0.0.0/8", PROXY, f"{LIAR}, nonsense", PROXY),
        ("10.0.0.0/8", PROXY, "", PROXY),
        ("::ffff:10.0.0.1, 10.0.0.1", "::ffff:10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", None, CLIENT, NOWHERE),
    ],
)
def test_only_a_trusted_proxy_says_who_is_behind_it_and_only_of_who_spoke_to_it(
    trusted: str, peer: str | None, said: str, expected: str
) -> None:
    assert _of(trusted, peer, x_forwarded_for=said)[0] == expected


def test_tls_is_what_carried_it_or_what_a_trusted_proxy_says() -> None:
    assert _of("", CLIENT, "https")[1]
    assert not _of("", CLIENT, x_forwarded_proto="https")[1]
    assert _of(PROXY, PROXY, x_forwarded_for=CLIENT, x_forwarded_proto="https")[1]
    assert not _of(PROXY, PROXY, x_forwarded_for=CLIENT, x_forwarded_proto="https, http")[1]


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_a_network_of_64_bits_counts_as_one(address: object, host: int) -> None:
    from ipaddress import IPv6Address

    first = IPv6Address(str(address))
    if first.ipv4_mapped is None:
        other = IPv6Address(int(first) >> 64 << 64 | host)
        if other.ipv4_mapped is None:
            assert group(str(first)) == group(str(other))
        assert group(str(first)) != group(str(IPv6Address(int(first) ^ 1 << 64)))


@given(st.ip_addresses(v=4))
def test_an_address_counts_as_itself_however_it_is_written(address: object) -> None:
    assert group(str(address)) == group(f"::ffff:{address}") == str(address)


@pytest.mark.parametrize("text", ["10.0.0", "10.0.0.1/8", "proxy", "::g"])
def test_proxies_that_are_no_addresses_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="HAPTIC_TRUSTED_PROXIES: "):
        load(trusted_proxies=text)


@pytest.mark.parametrize(
    "text", ["app.example", "https://app.example/", "https://app.example/x", "ftp://x", "null"]
)
def test_readers_that_are_no_origins_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="HAPTIC_CORS_ORIGINS: "):
        load(cors_origins=text)
