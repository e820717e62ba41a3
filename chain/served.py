"""Where a stranger gets bundles: a service's URL, a folder, a file; read line by line and never whole in memory."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import IO, Final, TypeAlias

import httpx

from chain.canonical import RunningHash
from chain.errors import BundleError, HapticError
from chain.exchange import TooSlowError, Watchdog
from chain.lines import MAX_BUNDLE_BYTES, MAX_LINE_BYTES
from chain.messages import parse_address
from chain.types import Hash32, Leaf, Wei

Served: TypeAlias = AbstractContextManager[IO[bytes]]
"""A bundle as it is served: an open file, which is closed when it has been read; `io.BytesIO` is one too."""
Source = Callable[[int], Served]
"""Gives an epoch's bundle, or raises a BundleError; what it gave does not change while it is open."""
SPOOL_BYTES: Final = 1 << 24
"""What is fetched is kept in memory up to here, and beyond it in a file that is gone when it is closed."""
MOST_SAID, MOST_SAID_BYTES = 300, 1 << 16
"""Characters that are shown of what a server says of its refusal, and bytes that are read of it."""
SLOWEST = 10
"""A server that drips bytes must not hold whoever checks until a challenge window is over."""
_STEP: Final = 1 << 20


class NotPublishedError(BundleError):
    """A server has no such bundle, or not yet."""


def bundle_source(where: str, timeout_s: float = 60.0) -> Source:
    """Return a reader of bundles at a service's URL, a URL with {epoch}, a folder or one file of it."""
    if re.match(r"https?://", where):
        url = where if "{epoch}" in where else where.rstrip("/") + "/v1/epochs/{epoch}/bundle"
        return lambda epoch: _fetch(url.replace("{epoch}", str(epoch)), timeout_s)
    path = Path(where)

    def read(epoch: int) -> Served:
        named = re.sub(r"\d+(?=\D*$)", str(epoch), path.name)
        file = path / f"epoch-{epoch}.jsonl" if path.is_dir() else path.with_name(named)
        try:
            return file.open("rb")
        except OSError as error:
            raise BundleError(
                f"{file}: {error.strerror}. Every epoch builds on those before: put the bundles of epochs "
                "0 to N beside each other, or give the service's URL"
            ) from error

    return read


def bundles(where: str, first: int | None = None, last: int | None = None) -> Iterator[tuple[int, Served]]:
    """Yield the bundles at a place with their epochs, ascending: from `first` to `last`, or all that there are.

    What a folder has is seen; a server is asked for one after the other until it has no more. A place without any
    is a BundleError, and so is one without the epochs that are named by both ends.
    """
    read = bundle_source(where)
    if (known := _seen(where)) is not None:
        wanted = [e for e in known if (first or 0) <= e and (last is None or e <= last)]
        missing = range(first, last + 1) if first is not None and last is not None else wanted
        if not wanted or list(missing) != wanted:
            raise BundleError(
                f"{where} has the bundles of epochs {list(known) or 'none'}, not all that are asked for"
            )
        yield from ((epoch, read(epoch)) for epoch in wanted)
        return
    for epoch in count(first or 0) if last is None else range(first or 0, last + 1):
        try:
            found = read(epoch)
        except NotPublishedError:
            if last is None and epoch > (first or 0):
                return
            raise
        yield epoch, found


def _seen(where: str) -> list[int] | None:
    """Return the epochs that a folder has bundles of, or that a file is named after; None where one has to ask."""
    if re.match(r"https?://", where):
        return None
    path = Path(where)
    if not path.is_dir():
        number = re.search(r"\d+(?=\D*$)", path.name)
        return [int(number[0]) if number else 0]
    names = (re.fullmatch(r"epoch-(\d+)\.jsonl", p.name) for p in path.iterdir())
    return sorted(int(n[1]) for n in names if n)


def hash_served(file: IO[bytes]) -> Hash32:
    """Return the keccak256 of a whole file, which `dataHash` of a bundle is."""
    running = RunningHash()
    for part in parts_of(file):
        running.update(part)
    return running.value()


def published_leaves(file: IO[bytes]) -> list[Leaf]:
    """Return the `leaf` lines of a bundle in their order, whatever else is wrong with it; the root says if they count."""
    found, whole = [], True
    file.seek(0)
    while raw := file.readline(MAX_LINE_BYTES):
        begins, whole = whole, raw.endswith(b"\n") or len(raw) < MAX_LINE_BYTES
        # A name may be written with escapes, which must hide no leaf from a proof.
        if not (begins and whole) or (b'"leaf"' not in raw and b"\\u" not in raw):
            continue
        try:
            line = json.loads(raw)
            leaf = Leaf(parse_address(line["account"]), Wei(int(str(line["cumulative"]))))
            leaf.cumulative.to_bytes(12, "big")
        except (HapticError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
        if line.get("kind") == "leaf":
            found.append(leaf)
    return found


def parts_of(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file from its beginning, a part at a time."""
    file.seek(0)
    while part := file.read(_STEP):
        yield part


def spool() -> IO[bytes]:
    """Return an empty file of nobody else's; who asked for it closes it."""
    return tempfile.SpooledTemporaryFile(SPOOL_BYTES)


def _fetch(url: str, timeout_s: float) -> IO[bytes]:
    """Return what a URL gives, at most MAX_BUNDLE_BYTES, in at most SLOWEST times the timeout of one read."""
    file = spool()
    try:
        _download(url, timeout_s, file)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        file.close()
        raise BundleError(f"{url} cannot be read: {error}") from error
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _said(response: httpx.Response) -> str:
    """Return what a service says of a refusal (RFC 9457), or what to look at where it is none of Haptic's."""
    raw = b""
    for part in response.iter_bytes():
        raw += part
        if len(raw) > MOST_SAID_BYTES:
            break
    try:
        return f": {str(json.loads(raw)['detail'])[:MOST_SAID]}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "; is the epoch closed, and the URL right?"


def _download(url: str, timeout_s: float, to: IO[bytes]) -> None:
    watchdog, longest = Watchdog(), SLOWEST * timeout_s
    seen, size = {"trace": watchdog.remember}, 0
    try:
        with (
            watchdog.within(longest),
            # A client of its own: a stream without one takes no extensions.
            httpx.Client(timeout=timeout_s, follow_redirects=False) as http,
            http.stream("GET", url, extensions=seen) as response,
        ):
            if response.status_code != httpx.codes.OK:
                missing = response.status_code == httpx.codes.NOT_FOUND
                raise (NotPublishedError if missing else BundleError)(
                    f"{url} answered {response.status_code}{_said(response)}"
                )
            for part in response.iter_bytes():
                size += to.write(part)
                if size > MAX_BUNDLE_BYTES:
                    raise BundleError(f"{url} sends more than {MAX_BUNDLE_BYTES} bytes")
    except TooSlowError:
        raise BundleError(f"{url} sends too slowly: {size} bytes in {longest:g} s") from None
