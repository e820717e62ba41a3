"""What the contracts announced, as typed records decoded by slicing; pure.

The vault's and distributor's events carry resulting balances, so each must follow from the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from chain.errors import ChainError
from chain.hashing import keccak256
from chain.types import Address, Epoch, Hash32, Wei
from chain.wire import Log


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Where and when an event happened."""

    block: int
    log_index: int
    tx: Hash32
    timestamp: int


class Staked(Mark, frozen=True, gc=False):
    """An account put `amount` in and now has `staked`."""

    account: Address
    amount: Wei
    staked: Wei


class UnstakeRequested(Mark, frozen=True, gc=False):
    """An account asked for `amount` back; `staked` is left, `pending` waits until `available_at`."""

    account: Address
    amount: Wei
    staked: Wei
    pending: Wei
    available_at: int


class UnstakeCancelled(Mark, frozen=True, gc=False):
    """An account took `amount` of its request back; `staked` counts again, `pending` still waits."""

    account: Address
    amount: Wei
    staked: Wei
    pending: Wei


class Withdrawn(Mark, frozen=True, gc=False):
    """`amount` of an account's stake went back `to` it; `pending` still waits."""

    account: Address
    to: Address
    amount: Wei
    pending: Wei


class Funded(Mark, frozen=True, gc=False):
    """`payer` gave `amount` as revenue of `run` (0: of none); `total_funded` has come in for all runs."""

    run: int
    payer: Address
    amount: Wei
    total_funded: Wei


class Posted(Mark, frozen=True, gc=False):
    """A report waits until `active_at` (SPEC 6)."""

    epoch: Epoch
    root: Hash32
    sum: Wei
    depth: int
    data_hash: Hash32
    ledger_root: Hash32
    rules_hash: Hash32
    snapshot_block: int
    snapshot_hash: Hash32
    active_at: int


class Activated(Mark, frozen=True, gc=False):
    """Claims are now paid by `root`, which totals `sum`."""

    epoch: Epoch
    root: Hash32
    sum: Wei


class Vetoed(Mark, frozen=True, gc=False):
    """The guardian threw out the pending `root`."""

    epoch: Epoch
    root: Hash32


class Challenged(Mark, frozen=True, gc=False):
    """`challenger` proved the pending `root` wrong and was paid the bond."""

    epoch: Epoch
    root: Hash32
    challenger: Address
    fault: int
    """Place in `Fault` of the distributor: decrease, missing, order, malformed."""
    account: Address
    """Whom the fault is about; the zero address where it is about nobody."""


class Claimed(Mark, frozen=True, gc=False):
    """`amount` went `to` the account, which has been paid `cumulative` in all."""

    account: Address
    to: Address
    amount: Wei
    cumulative: Wei


StakeEvent: TypeAlias = Staked | UnstakeRequested | UnstakeCancelled | Withdrawn
Rejected: TypeAlias = Vetoed | Challenged
"""A pending root was thrown out; its epoch can be posted again."""
ReportEvent: TypeAlias = Posted | Activated | Rejected
Event: TypeAlias = StakeEvent | Funded | ReportEvent | Claimed


class _Shape(NamedTuple):
    record: Callable[..., Event]
    topics: int
    """How many there are, the first included."""
    length: int
    """Of the data, in hex digits."""
    readers: tuple[tuple[int, Callable[[bytes], Any]], ...]
    """Where each indexed and each other word begins, and what reads it."""


def _address(word: bytes) -> str:
    if any(word[:12]):
        raise ValueError
    return "0x" + word[12:].hex()


def _uint(bits: int) -> Callable[[bytes], int]:
    def read(word: bytes) -> int:
        number = int.from_bytes(word)
        if number >> bits:
            raise ValueError
        return number

    return read


_READERS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "address": _address,
    "bytes32": lambda word: "0x" + word.hex(),
    **{f"uint{bits}": _uint(bits) for bits in (8, 64, 96)},
    "uint256": int.from_bytes,
}


def _shape(record: Callable[..., Event], indexed: tuple[str, ...], words: tuple[str, ...]) -> _Shape:
    readers = tuple((32 * i, _READERS[kind]) for i, kind in enumerate(indexed + words))
    return _Shape(record, 1 + len(indexed), 64 * len(words), readers)


_SHAPES: Final[Mapping[str, _Shape]] = {
    "0x" + keccak256(f"{record.__name__}({','.join(indexed + words)})".encode()).hex(): _shape(
        record, indexed, words
    )
    for record, indexed, words in (
        (Staked, ("address",), ("uint256",) * 2),
        (UnstakeRequested, ("address",), ("uint256",) * 4),
        (UnstakeCancelled, ("address",), ("uint256",) * 3),
        (Withdrawn, ("address", "address"), ("uint256",) * 2),
        (Funded, ("uint64", "address"), ("uint256",) * 2),
        (
            Posted,
            ("uint64", "bytes32"),
            ("uint96", "uint8", "bytes32", "bytes32", "bytes32", "uint64", "bytes32", "uint64"),
        ),
        (Activated, ("uint64", "bytes32"), ("uint96",)),
        (Vetoed, ("uint64", "bytes32"), ()),
        (Challenged, ("uint64", "bytes32", "address"), ("uint8", "address")),
        (Claimed, ("address", "address"), ("uint256",) * 2),
    )
}
"""By topic 0: the keccak of the signature, in the order in which each record names its fields."""


def topics(*records: type[Mark]) -> tuple[str, ...]:
    """Return topic 0 of these events, or of every one that `decode` knows."""
    return tuple(topic for topic, shape in _SHAPES.items() if not records or shape.record in records)


def decode(log: Log, timestamp: int) -> Event:
    """Return the event in `log`, which happened at `timestamp` (Unix seconds).

    A ChainError where the topic is unknown or a length or value cannot come from the contracts' ABI.
    """
    topics = log.topics
    shape = _SHAPES.get(topics[0].lower()) if topics else None
    if shape is None:
        raise _malformed(log, "has an unknown topic")
    record, count, length, readers = shape
    text = log.data[2:]
    if len(topics) != count or len(text) != length:
        raise _malformed(log, "has a wrong length")
    for topic in topics[:0:-1]:
        if len(topic) != 66:
            raise _malformed(log, "has a wrong length")
        text = topic[2:] + text
    # With the transaction's hash, which goes into the ledger as it is.
    if len(log.transaction_hash) != 66:
        raise _malformed(log, "has a wrong length")
    text += log.transaction_hash[2:]
    try:
        data = bytes.fromhex(text)
        values = [read(data[at : at + 32]) for at, read in readers]
        event = record(log.block, log.index, "0x" + data[-32:].hex(), timestamp, *values)
    except ValueError:
        raise _malformed(log, "holds a value out of range") from None
    if 2 * len(data) != len(text):  # fromhex skips blanks
        raise _malformed(log, "holds a value out of range")
    return event


def _malformed(log: Log, why: str) -> ChainError:
    return ChainError(
        f"log {log.log_index} of block {log.block_number} ({log.transaction_hash}) {why}: "
        "the node lies, or the addresses are of another version of the contracts"
    )
