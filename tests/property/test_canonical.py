"""Laws of canonical JSON: the fast path gives what the rfc8785 package gives, byte for byte and error for error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from chain.canonical import RunningHash, canonical, hash_of, parse_canonical

EDGES = st.sampled_from([2**53 - 1, 2**53, 1 - 2**53, -(2**53), 2**63, 2**64, 10**30, True, 0, -1])
TEXTS = st.text(st.characters(exclude_categories=()), max_size=6) | st.sampled_from(
    ["é", "\u007f", "\u2028", "\\", '"']
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | EDGES | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def _outcome(make: Callable[[], object]) -> object:
    """Return what comes of it, an error by its kind and words."""
    try:
        return make()
    except (ValueError, RecursionError) as error:
        return type(error), str(error)


@given(VALUES)
@example({"\U00010000": 1, "\ue000": 2})
@example({"a": "\ud800"})
@example({"a": 2**63})
@example({"a": [1, 1.0, {"b": ()}]})
@example({1: 2})
def test_the_bytes_are_those_of_the_rfc8785_package(value: Any) -> None:
    assert _outcome(lambda: canonical(value)) == _outcome(lambda: rfc8785.dumps(value))
    assert _outcome(lambda: canonical({"v": value})) == _outcome(lambda: rfc8785.dumps({"v": value}))


def test_every_code_point_is_written_as_the_package_writes_it() -> None:
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    assert canonical({"all": points}) == rfc8785.dumps({"all": points})


def _slowly(raw: bytes) -> tuple[Any, bool]:
    value = json.loads(raw)
    return value, rfc8785.dumps(value) == raw


NEARLY = st.sampled_from([
    b"", b"{", b"NaN", b'{"a":NaN}', b'{"a":1.0}', b'{"a":1e400}', b'{"a":-0}', b'{"a":9007199254740992}',
    b'{"a":1,"a":1}', b'{"a": 1}', b'{"b":1,"a":2}', b'{"a":"\\ud800"}', b'{"a":"\\u0061"}', b'{"a":"\xff"}',
    b'{"a":1}\r', b'\xef\xbb\xbf{"a":1}',
    b'{"a":01}', b'{"a":1E2}', b'{"a":100000000000000000000}', b'{"a":"\x01"}', b'{"a":"\\u001F"}', b'{"a":"\\u001f"}',
    '{"a":1}'.encode("utf-16"), b"[" * 5000,
])  # fmt: skip


@given(NEARLY | st.binary(max_size=12) | VALUES.map(lambda v: json.dumps({"v": v}).encode()))
def test_what_counts_as_canonical_is_what_counts_for_the_standard_library_and_the_package(raw: bytes) -> None:
    assert repr(_outcome(lambda: parse_canonical(raw))) == repr(_outcome(lambda: _slowly(raw)))


@given(VALUES)
def test_what_the_package_wrote_is_read_back_alike(value: Any) -> None:
    try:
        raw = rfc8785.dumps({"v": value})
    except ValueError:
        return
    assert repr(_outcome(lambda: parse_canonical(raw))) == repr(_outcome(lambda: _slowly(raw)))


@given(st.lists(st.binary(max_size=50) | st.integers(0, 70_000).map(lambda n: b"x" * n), max_size=8))
def test_a_hash_of_parts_is_the_hash_of_the_whole(parts: list[bytes]) -> None:
    running = RunningHash()
    for part in parts:
        running.update(part)
    assert running.value() == hash_of(b"".join(parts))


@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_parts_that_fill_the_buffer_exactly_are_counted_once(size: int) -> None:
    running = RunningHash()
    running.update(b"a" * size)
    running.update(b"b")
    assert running.value() == hash_of(b"a" * size + b"b")
