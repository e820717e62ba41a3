"""The logs bloom of a block header: what it does not name has no log in that block (Yellow Paper 4.3.1); pure."""

from __future__ import annotations

from collections.abc import Iterable

from chain.hashing import keccak256
from chain.types import Address

BYTES = 256


def may_name(bloom: bytes, item: bytes) -> bool:
    """Tell whether an address or topic may be named by a log of the block; False is certain.

    Three bits of 2,048 stand for an item: the lowest 11 of each of the first three pairs of bytes of its keccak256.
    """
    digest, bits = keccak256(item), int.from_bytes(bloom)
    return all(bits >> (int.from_bytes(digest[at : at + 2]) & 2047) & 1 for at in (0, 2, 4))


def may_hold(bloom: bytes, addresses: Iterable[Address], topics: Iterable[str]) -> bool:
    """Tell whether the block may hold a log of one of these addresses with one of these first topics."""
    return any(may_name(bloom, bytes.fromhex(a[2:])) for a in addresses) and any(
        may_name(bloom, bytes.fromhex(t[2:])) for t in topics
    )
