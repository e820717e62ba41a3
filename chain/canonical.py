"""Canonical JSON (RFC 8785): the same value gives the same bytes everywhere, so that it can be hashed.

What bundles are made of (texts, small integers, lists, objects with ASCII names) takes a fast path through
msgspec's C; everything else, and every refusal, is left to the rfc8785 package. A law holds both equal.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import rfc8785

from chain.hashing import Keccak256, keccak256
from chain.types import Hash32

_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder()
_MAX_INT: Final = 2**53 - 1
_PLAIN: Final = frozenset({str, bool, type(None)})
_LISTS: Final = frozenset({list, tuple})


def _are_plain(values: Any) -> bool:
    """Tell whether RFC 8785 writes these values as any JSON writer does: no floats, no large integers, no odd names."""
    for kind in set(map(type, values)) - _PLAIN:
        if kind is int:
            if not all(-_MAX_INT <= v <= _MAX_INT for v in values if type(v) is int):
                return False
        elif kind in _LISTS:
            if not all(_are_plain(v) for v in values if type(v) is kind):
                return False
        elif kind is not dict or not all(_is_plain_object(v) for v in values if type(v) is dict):
            return False
    return True


def _is_plain_object(value: dict[Any, Any]) -> bool:
    # Names sort by UTF-16 in RFC 8785 and by code point in msgspec: the same order for ASCII.
    return all(type(k) is str and k.isascii() for k in value) and _are_plain(value.values())


def canonical(value: Any) -> bytes:
    """Return RFC 8785 bytes; integers beyond 2^53 - 1 have to be passed as decimal strings."""
    if type(value) is dict and _is_plain_object(value):
        try:
            return _ENCODER.encode(value)
        except UnicodeEncodeError:
            pass  # a lone surrogate, refused below in the package's own words
    return rfc8785.dumps(value)


def parse_canonical(raw: bytes) -> tuple[Any, bool]:
    """Return the value of some JSON, and whether its bytes are the canonical ones.

    ValueError or RecursionError where it is no JSON, or holds what RFC 8785 cannot write.
    """
    try:
        value = _DECODER.decode(raw)
        if canonical(value) == raw:
            return value, True
    except (ValueError, RecursionError):
        pass  # refused below in the words of the standard library
    value = json.loads(raw)
    return value, canonical(value) == raw


def hash_of(data: bytes) -> Hash32:
    """Return keccak256 of `data` as hex."""
    return Hash32("0x" + keccak256(data).hex())


def text_hash(text: str) -> Hash32:
    """Return keccak256 of a text's UTF-8 bytes: the name of a response in every signed message."""
    return hash_of(text.encode())


class RunningHash:
    """`hash_of` for what is written line by line and never whole in memory."""

    def __init__(self) -> None:
        self._hash = Keccak256()
        self._held = bytearray()

    def update(self, data: bytes) -> None:
        """Add what comes next; small parts are gathered, because each call of the hash has its price."""
        self._held += data
        if len(self._held) >= 1 << 16:
            self._flush()

    def value(self) -> Hash32:
        """Return the hash of all that came; nothing can be added after it."""
        self._flush()
        return Hash32("0x" + self._hash.digest().hex())

    def _flush(self) -> None:
        self._hash.update(bytes(self._held))
        self._held.clear()
