"""A node's URL may hold a provider's key, so only its host is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import RpcError
from chain.exchange import public_url
from chain.providers import split_urls
from chain.rpc import Rpc

SECRETS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789_-", min_size=6, max_size=40)


@given(SECRETS, st.sampled_from(["path", "query", "user", "password"]))
def test_a_key_anywhere_in_the_url_is_not_shown(secret: str, where: str) -> None:
    key = "K" + secret
    url = {
        "path": f"https://mainnet.example:8443/v3/{key}",
        "query": f"https://mainnet.example:8443/?apikey={key}",
        "user": f"https://{key}@mainnet.example:8443",
        "password": f"https://me:{key}@mainnet.example:8443/rpc",
    }[where]
    assert key not in public_url(url)
    assert public_url(url).startswith("https://mainnet.example:8443")


def test_a_client_shows_its_host_only() -> None:
    with Rpc("https://me:secret-word@node.example/v3/secret-key") as rpc:
        assert repr(rpc) == "Rpc(https://node.example/…)"


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8545", "ftp://node", "http://", "http://h:99999999", "http://[::1", "/var/run/geth.ipc"],
)
def test_what_is_no_http_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(RpcError, match="must look like"):
        Rpc(url)


def test_several_urls_are_separated_by_commas_or_spaces_and_count_once() -> None:
    assert split_urls(" http://a,http://b\thttp://c ,, http://a\n") == ["http://a", "http://b", "http://c"]


def test_a_client_of_several_nodes_names_them_in_their_order_and_tells_equal_hosts_apart() -> None:
    with Rpc("https://a.example/v3/one-key https://b.example, https://a.example/v3/another-key") as rpc:
        assert rpc.name == "https://a.example/… (URL 1), https://b.example, https://a.example/… (URL 3)"
        assert list(rpc.standing().values()) == ["", "", ""]
        assert rpc.source == "https://a.example/… (URL 1)"


def test_one_wrong_url_among_several_is_refused_and_not_shown() -> None:
    with pytest.raises(RpcError, match="must look like") as caught:
        Rpc("http://127.0.0.1:8545, ftp://secret-key")
    assert "secret" not in str(caught.value)
