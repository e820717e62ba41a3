"""What a node sends: the few JSON-RPC records that are read here, decoded straight from its bytes."""

from __future__ import annotations

from typing import Any

import msgspec

from chain.types import Address, Hash32, Wei


class Log(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A log as the node sends it; quantities stay hex until somebody needs them."""

    address: Address
    topics: tuple[str, ...]
    data: str
    block_number: str
    block_hash: Hash32
    transaction_hash: Hash32
    log_index: str
    block_timestamp: str | None = None
    """Sent by some nodes (Anvil, reth, recent geth); saves a header per block."""
    removed: bool = False

    @property
    def block(self) -> int:
        """Height of its block."""
        return int(self.block_number, 16)

    @property
    def index(self) -> int:
        """Position among the logs of its block."""
        return int(self.log_index, 16)


class Receipt(msgspec.Struct, frozen=True, rename="camel"):
    """What became of a transaction that is in a block."""

    transaction_hash: Hash32
    block_number: str
    block_hash: Hash32
    status: str
    gas_used: str
    effective_gas_price: str
    contract_address: Address | None = None
    logs: tuple[Log, ...] = ()

    @property
    def ok(self) -> bool:
        """True unless the transaction was reverted."""
        return int(self.status, 16) == 1

    @property
    def block(self) -> int:
        """Height of its block."""
        return int(self.block_number, 16)

    @property
    def cost(self) -> Wei:
        """Gas paid for."""
        return Wei(int(self.gas_used, 16) * int(self.effective_gas_price, 16))


class Header(msgspec.Struct, frozen=True, rename="camel"):
    """The part of a block header that is read here."""

    number: str
    hash: Hash32
    parent_hash: Hash32
    timestamp: str
    base_fee_per_gas: str = "0x0"
    logs_bloom: str = ""
    """Empty where a node leaves it out."""


class Failure(msgspec.Struct):
    """A JSON-RPC error object."""

    code: int = 0
    message: str = ""
    data: Any = None


class Answer(msgspec.Struct):
    """A JSON-RPC response; an empty `result` means that there was none, which differs from null."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: Failure | None = None


def answers_of(body: bytes) -> list[Answer]:
    """Return the responses in one HTTP body; msgspec.DecodeError where it is something else."""
    if body.lstrip()[:1] == b"[":
        return msgspec.json.decode(body, type=list[Answer])
    return [msgspec.json.decode(body, type=Answer)]
