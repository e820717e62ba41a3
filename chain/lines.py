"""An epoch's bundle as lines of canonical JSON (RFC 8785), written and read one at a time.

The first kinds are evidence (what people signed and what the operator committed to); the rest follows from
them and from the chain, and is written down so that a difference can be named row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any, Final, TypeAlias

from chain.canonical import canonical, parse_canonical
from chain.errors import BundleError

KINDS = (
    "epoch", "task", "gold", "session", "handout", "skip", "ranking", "run", "pair", "wallet", "pool", "share", "leaf",
)  # fmt: skip
"""Line kinds in the order in which they stand in the file."""
MAX_BUNDLE_BYTES: Final = 1 << 30
"""Largest bundle that is read."""
MAX_LINE_BYTES: Final = 1 << 26
"""Longest line that is read; of a bundle no more than one is in memory at a time."""

Line: TypeAlias = dict[str, Any]


def line_bytes(line: Line) -> bytes:
    """Return a line as it stands in the file: one canonical JSON object, ended by a newline."""
    return canonical(line) + b"\n"


def to_bytes(lines: Iterable[Line]) -> bytes:
    """Return the bytes of some lines."""
    return b"".join(map(line_bytes, lines))


def raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a bundle's lines from its beginning, with their newlines; BundleError where it or one is too large."""
    file.seek(0)
    number = size = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number, size = number + 1, size + len(raw)
        if len(raw) > MAX_LINE_BYTES:
            raise BundleError(f"line {number} is longer than {MAX_LINE_BYTES} bytes")
        if size > MAX_BUNDLE_BYTES:
            raise BundleError(
                f"line {number} ends beyond {MAX_BUNDLE_BYTES} bytes, the most that a bundle may have"
            )
        yield raw


def read_lines(raws: Iterable[bytes]) -> Iterator[Line]:
    """Yield the lines of a bundle; BundleError names the first that is no canonical object of a known kind.

    `raws` are its lines with their newlines: `raw_lines` gives them.
    """
    line: Line = {}
    for number, raw in enumerate(raws, start=1):
        line = read_line(number, raw)
        if number == 1 and line["kind"] != "epoch":
            line = {}
            break
        yield line
    if not line:
        raise BundleError("a bundle begins with its epoch line; this file does not")


def read_line(number: int, raw: bytes) -> Line:
    """Return one line, given with its newline; BundleError names its number where it is not a bundle's."""
    if not raw.endswith(b"\n"):
        raise BundleError(f"line {number} is cut off: it does not end with a newline")
    try:
        line, same = parse_canonical(raw[:-1])
    except (ValueError, RecursionError) as error:
        raise BundleError(f"line {number} is not JSON: {error}") from error
    if not isinstance(line, dict) or line.get("kind") not in KINDS:
        raise BundleError(f"line {number} is not an object of a known kind: {raw[:-1][:80]!r}")
    if not same:
        raise BundleError(f"line {number} ({line['kind']}) is not in canonical form (RFC 8785)")
    return line
