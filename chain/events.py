"""What the contracts announced, as typed records decoded by slicing; pure.

The vault's and distributor's events carry resulting balances, so each must follow from the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from chain.errors import ChainError
from chain.hashing import keccak256
from chain.types import Address, Epoch, Hash32, Wei
from chain.wire import Log


@dataclass(frozen=True, slots=True)
class Mark:
    """Where and when an event happened."""

    block: int
    log_index: int
    tx: Hash32
    timestamp: int


@dataclass(frozen=True, slots=True)
class Staked(Mark):
    """An account put `amount` in and now has `staked`."""

    account: Address
    amount: Wei
    staked: Wei


@dataclass(frozen=True, slots=True)
class UnstakeRequested(Mark):
    """An account asked for `amount` back; `staked` is left, `pending` waits until `available_at`."""

    account: Address
    amount: Wei
    staked: Wei
    pending: Wei
    available_at: int


@dataclass(frozen=True, slots=True)
class UnstakeCancelled(Mark):
    """An account took `amount` of its request back; `staked` counts again, `pending` still waits."""

    account: Address
    amount: Wei
    staked: Wei
    pending: Wei


@dataclass(frozen=True, slots=True)
class Withdrawn(Mark):
    """`amount` of an account's stake went back `to` it; `pending` still waits."""

    account: Address
    to: Address
    amount: Wei
    pending: Wei


@dataclass(frozen=True, slots=True)
class Funded(Mark):
    """`payer` gave `amount` as revenue of `run` (0: of none); `total_funded` has come in for all runs."""

    run: int
    payer: Address
    amount: Wei
    total_funded: Wei


@dataclass(frozen=True, slots=True)
class Posted(Mark):
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


@dataclass(frozen=True, slots=True)
class Activated(Mark):
    """Claims are now paid by `root`, which totals `sum`."""

    epoch: Epoch
    root: Hash32
    sum: Wei


@dataclass(frozen=True, slots=True)
class Vetoed(Mark):
    """The guardian threw out the pending `root`."""

    epoch: Epoch
    root: Hash32


@dataclass(frozen=True, slots=True)
class Challenged(Mark):
    """`challenger` proved the pending `root` wrong and was paid the bond."""

    epoch: Epoch
    root: Hash32
    challenger: Address
    fault: int
    """Place in `Fault` of the distributor: decrease, missing, order, malformed."""
    account: Address
    """Whom the fault is about; the zero address where it is about nobody."""


@dataclass(frozen=True, slots=True)
class Claimed(Mark):
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


@dataclass(frozen=True, slots=True)
class _Shape:
    record: Callable[..., Event]
    indexed: tuple[str, ...]
    words: tuple[str, ...]


_SHAPES: Final[Mapping[str, _Shape]] = {
    "0x" + keccak256(f"{record.__name__}({','.join(indexed + words)})".encode()).hex(): _Shape(
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


def topics() -> tuple[str, ...]:
    """Return topic 0 of every event that `decode` knows."""
    return tuple(_SHAPES)


def decode(log: Log, timestamp: int) -> Event:
    """Return the event in `log`, which happened at `timestamp` (Unix seconds).

    A ChainError where the topic is unknown or a length or value cannot come from the contracts' ABI.
    """
    shape = _SHAPES.get(log.topics[0].lower()) if log.topics else None
    if shape is None:
        raise _malformed(log, "has an unknown topic")
    if len(log.topics) != 1 + len(shape.indexed) or len(log.data) != 2 + 64 * len(shape.words):
        raise _malformed(log, "has a wrong length")
    try:
        mark = (log.block, log.index, Hash32(log.transaction_hash.lower()), timestamp)
        indexed = [_value(kind, topic[2:]) for kind, topic in zip(shape.indexed, log.topics[1:], strict=True)]
        words = [_value(kind, log.data[2 + 64 * i : 66 + 64 * i]) for i, kind in enumerate(shape.words)]
    except ValueError:
        raise _malformed(log, "holds a value out of range") from None
    return shape.record(*mark, *indexed, *words)


def _value(kind: str, word: str) -> int | str:
    """Return a 32-byte hex `word` as what the ABI `kind` says; ValueError where it does not fit."""
    raw = bytes.fromhex(word)
    if len(raw) != 32:
        raise ValueError
    number = int.from_bytes(raw)
    if kind == "bytes32":
        return "0x" + word.lower()
    if number >> (160 if kind == "address" else int(kind[4:])):
        raise ValueError
    return "0x" + word[24:].lower() if kind == "address" else number


def _malformed(log: Log, why: str) -> ChainError:
    return ChainError(
        f"log {log.log_index} of block {log.block_number} ({log.transaction_hash}) {why}: "
        "the node lies, or the addresses are of another version of the contracts"
    )
