"""A bloom may name what is not there, and never denies what is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chain.bloom import BYTES, may_hold, may_name
from chain.hashing import keccak256
from chain.types import Address

ITEMS = st.lists(st.binary(min_size=20, max_size=32), min_size=1, max_size=30)
ADDRESS = Address("0x" + "a1" * 20)
TOPIC = "0x" + "b2" * 32


def _bloom(items: list[bytes]) -> bytes:
    """Return the bloom of these items by the words of the Yellow Paper, bit by bit."""
    bits = [0] * 2048
    for item in items:
        digest = "".join(f"{byte:08b}" for byte in keccak256(item))
        for pair in (0, 16, 32):
            bits[2047 - int(digest[pair + 5 : pair + 16], 2)] = 1
    return int("".join(map(str, bits)), 2).to_bytes(BYTES, "big")


@given(ITEMS)
def test_nothing_that_was_put_in_is_denied(items: list[bytes]) -> None:
    assert all(may_name(_bloom(items), item) for item in items)


@given(ITEMS, st.binary(min_size=20, max_size=32))
def test_what_needs_a_bit_that_is_not_set_is_not_there(items: list[bytes], other: bytes) -> None:
    bloom, alone = _bloom(items), _bloom([other])
    covered = int.from_bytes(bloom) & int.from_bytes(alone) == int.from_bytes(alone)
    assert may_name(bloom, other) == covered


def test_a_block_may_hold_a_log_only_where_address_and_topic_are_both_named() -> None:
    address, topic = bytes.fromhex(ADDRESS[2:]), bytes.fromhex(TOPIC[2:])
    assert may_hold(_bloom([address, topic]), [ADDRESS], [TOPIC])
    assert not may_hold(_bloom([address]), [ADDRESS], [TOPIC])
    assert not may_hold(_bloom([topic]), [ADDRESS], [TOPIC])
    assert not may_hold(bytes(BYTES), [ADDRESS], [TOPIC])
