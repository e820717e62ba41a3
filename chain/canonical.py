"""Canonical JSON (RFC 8785): the same value gives the same bytes everywhere, so that it can be hashed."""

from __future__ import annotations

from typing import Any

import rfc8785

from chain.hashing import keccak256
from chain.types import Hash32


def canonical(value: Any) -> bytes:
    """Return RFC 8785 bytes; integers beyond 2^53 - 1 have to be passed as decimal strings."""
    return rfc8785.dumps(value)


def hash_of(data: bytes) -> Hash32:
    """Return keccak256 of `data` as hex."""
    return Hash32("0x" + keccak256(data).hex())


def text_hash(text: str) -> Hash32:
    """Return keccak256 of a text's UTF-8 bytes: the name of a response in every signed message."""
    return hash_of(text.encode())
