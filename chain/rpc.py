"""A node, asked in raw JSON-RPC over kept-alive connections; what it fails to give is an RpcError."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar

import msgspec

from chain.bloom import BYTES
from chain.errors import RpcError
from chain.transport import Call, Transport
from chain.types import Address, BlockRef, Hash32, Wei
from chain.wire import Header, Log, Receipt

T = TypeVar("T")
BlockTag = Literal["earliest", "finalized", "safe", "latest", "pending"]
Block = BlockRef | int | BlockTag
"""Where to read: at a hash (EIP-1898), at a height, or at a tag."""


class Rpc:
    """One node at one URL.

    Passing faults are tried again up to `retries` times; whatever else the node fails to give is an RpcError
    that names it without its keys. A `BlockRef` is read by hash (EIP-1898): a reorg in between is an error.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 10.0,
        *,
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = Transport(url, timeout_s, retries=retries, sleep=sleep)
        self.name = self._transport.name

    def __repr__(self) -> str:
        return f"Rpc({self.name})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def distrust(self, reason: str) -> bool:
        """Ask another node from now on, because this one lies; False where there is no other."""
        del reason
        return False

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()

    # -- any method ------------------------------------------------------------------------------------------

    def request(self, method: str, *params: Any) -> Any:
        """Return the result of one call as plain JSON values; null where the node says null."""
        return self._ask(Any, method, *params)

    def batch(self, calls: Iterable[Call]) -> list[Any]:
        """Return the results of `calls` in their order; the first error among them is raised."""
        wanted = list(calls)
        return [
            self._parse(Any, raw, method)
            for raw, (method, _) in zip(self._transport.results(wanted), wanted, strict=True)
        ]

    # -- reading the chain -----------------------------------------------------------------------------------

    def chain_id(self) -> int:
        """Return the id of the chain (EIP-155)."""
        return self._quantity("eth_chainId")

    def block(self, at: int | BlockTag) -> BlockRef:
        """Return the block at a height or tag; an RpcError where the node has none."""
        return self.blocks([at])[0]

    def blocks(self, at: Sequence[int | BlockTag]) -> list[BlockRef]:
        """Return the blocks at these heights or tags, in this order."""
        return [
            self._ref(raw, n)
            for raw, n in zip(self._transport.results([_header(n) for n in at]), at, strict=True)
        ]

    def headers(self, numbers: Sequence[int]) -> list[tuple[BlockRef, bytes | None]]:
        """Return the blocks at these heights, each with its logs bloom (256 bytes; None where the node gives none)."""
        raw = self._transport.results([_header(n) for n in numbers])
        return [(self._ref(each, n), self._bloom(each)) for each, n in zip(raw, numbers, strict=True)]

    def logs_of_block(
        self, block: BlockRef, addresses: Sequence[Address], topics: Sequence[str]
    ) -> list[Log]:
        """Return the logs of one block by its hash (EIP-234): an error where it is not on the chain any more."""
        wanted = {"address": list(addresses), "blockHash": block.hash, "topics": [list(topics)]}
        return self._ask(list[Log], "eth_getLogs", wanted)

    def logs(
        self, addresses: Sequence[Address], from_block: int, to_block: int, topics: Sequence[str] = ()
    ) -> list[Log]:
        """Return the logs of `addresses` in both blocks and between; `topics` are alternatives of topic 0."""
        return self._ask(list[Log], *_flat(_logs(addresses, from_block, to_block, topics)))

    def logs_between(
        self, addresses: Sequence[Address], from_block: int, to_block: int, topics: Sequence[str] = ()
    ) -> tuple[list[Log], BlockRef, BlockRef]:
        """Return the logs and the headers of the range's first and last block, asked for in one request."""
        method, params = _logs(addresses, from_block, to_block, topics)
        found, first, last = self._transport.results(
            [(method, params), _header(from_block), _header(to_block)]
        )
        return (
            self._parse(list[Log], found, method),
            self._ref(first, from_block),
            self._ref(last, to_block),
        )

    def call(self, to: Address, data: bytes, block: Block = "latest", sender: Address | None = None) -> bytes:
        """Return what `to` answers to `data` at `block`; a revert is an RpcAnswerError with its bytes."""
        return self.calls([(to, data)], block, sender)[0]

    def calls(
        self, wanted: Sequence[tuple[Address, bytes]], block: Block = "latest", sender: Address | None = None
    ) -> list[bytes]:
        """Return what each address answers to its data, all at the same `block`."""
        origin = {} if sender is None else {"from": sender}
        asked: list[Call] = [
            ("eth_call", [{"to": to, "data": "0x" + data.hex(), **origin}, _at(block)]) for to, data in wanted
        ]
        return [self._bytes(raw, "eth_call") for raw in self._transport.results(asked)]

    def code(self, address: Address, block: Block = "latest") -> bytes:
        """Return the code at an address; empty where no contract is."""
        return self._bytes(
            self._transport.results([("eth_getCode", [address, _at(block)])])[0], "eth_getCode"
        )

    def balance(self, address: Address, block: Block = "latest") -> Wei:
        """Return the native balance of an address."""
        return Wei(self._quantity("eth_getBalance", address, _at(block)))

    # -- transactions ----------------------------------------------------------------------------------------

    def nonce(self, address: Address, tag: BlockTag = "latest") -> int:
        """Return the nonce of the next transaction: after those in blocks, or ("pending") in the pool too."""
        return self._quantity("eth_getTransactionCount", address, tag)

    def fees(self) -> tuple[Wei, Wei]:
        """Return (base fee of the latest block, tip suggested by the node) per gas."""
        header = self._ask(Header, *_flat(_header("latest")))
        return Wei(int(header.base_fee_per_gas, 16)), Wei(self._quantity("eth_maxPriorityFeePerGas"))

    def estimate(self, transaction: dict[str, str]) -> int:
        """Return the gas a transaction would use now; a revert is an RpcAnswerError with its bytes."""
        return self._quantity("eth_estimateGas", transaction)

    def send_raw(self, raw: bytes) -> Hash32:
        """Hand a signed transaction to the node and return its hash."""
        return Hash32(self._ask(str, "eth_sendRawTransaction", "0x" + raw.hex()))

    def receipt(self, transaction: Hash32) -> Receipt | None:
        """Return the receipt, or None while the transaction is in no block."""
        return self._ask(Receipt | None, "eth_getTransactionReceipt", transaction)  # type: ignore[arg-type]

    # -- the wire --------------------------------------------------------------------------------------------

    def _ask(self, kind: type[T], method: str, *params: Any) -> T:
        return self._parse(kind, self._transport.results([(method, params)])[0], method)

    def _quantity(self, method: str, *params: Any) -> int:
        text = self._ask(str, method, *params)
        try:
            return int(text, 16)
        except ValueError:
            raise self._odd(method) from None

    def _bytes(self, raw: msgspec.Raw, method: str) -> bytes:
        try:
            return bytes.fromhex(self._parse(str, raw, method).removeprefix("0x"))
        except ValueError:
            raise self._odd(method) from None

    def _ref(self, raw: msgspec.Raw, at: int | BlockTag) -> BlockRef:
        if bytes(raw) == b"null":
            raise RpcError(
                f"{self.name} has no block {at}: it lags or has pruned it; wait or use another node"
            )
        found = self._parse(Header, raw, "eth_getBlockByNumber")
        try:
            ref = BlockRef(int(found.number, 16), found.hash, found.parent_hash, int(found.timestamp, 16))
        except ValueError:
            raise self._odd("eth_getBlockByNumber") from None
        if isinstance(at, int) and ref.number != at:
            raise RpcError(f"{self.name} answered block {ref.number} when asked for {at}: use another node")
        return ref

    def _bloom(self, raw: msgspec.Raw) -> bytes | None:
        try:
            found = bytes.fromhex(
                self._parse(Header, raw, "eth_getBlockByNumber").logs_bloom.removeprefix("0x")
            )
        except ValueError:
            raise self._odd("eth_getBlockByNumber") from None
        return found if len(found) == BYTES else None

    def _parse(self, kind: type[T], raw: msgspec.Raw, method: str) -> T:
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError:
            raise self._odd(method) from None

    def _odd(self, method: str) -> RpcError:
        return RpcError(f"{self.name} answered {method} with something else than expected: use another node")


def _header(at: int | BlockTag) -> Call:
    return "eth_getBlockByNumber", [hex(at) if isinstance(at, int) else at, False]


def _flat(call: Call) -> tuple[Any, ...]:
    return call[0], *call[1]


def _logs(addresses: Sequence[Address], from_block: int, to_block: int, topics: Sequence[str]) -> Call:
    wanted: dict[str, Any] = {
        "address": list(addresses),
        "fromBlock": hex(from_block),
        "toBlock": hex(to_block),
    }
    if topics:
        wanted["topics"] = [list(topics)]
    return "eth_getLogs", [wanted]


def _at(block: Block) -> str | dict[str, Any]:
    if isinstance(block, BlockRef):
        return {"blockHash": block.hash, "requireCanonical": True}
    return hex(block) if isinstance(block, int) else block
