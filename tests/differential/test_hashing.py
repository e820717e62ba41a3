"""Our keccak-256 against pycryptodome's, which shares no code with it, and against Ethereum's own constants."""

from __future__ import annotations

from Crypto.Hash import keccak
from hypothesis import given
from hypothesis import strategies as st

from chain.hashing import Keccak256, keccak256


@given(st.binary(max_size=600))
def test_two_implementations_hash_alike(data: bytes) -> None:
    assert keccak256(data) == keccak.new(digest_bits=256, data=data).digest()


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_what_comes_in_parts_hashes_as_the_whole(parts: list[bytes]) -> None:
    running = Keccak256()
    for part in parts:
        running.update(part)
    assert running.digest() == keccak256(b"".join(parts))


def test_it_is_ethereums_and_not_nists() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
