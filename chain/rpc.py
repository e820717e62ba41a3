"""The chain, asked in raw JSON-RPC at one node or several; what they fail to give is an RpcError."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar

import msgspec

from chain.bloom import BYTES
from chain.errors import RpcError
from chain.providers import Providers
from chain.transport import Call, UnknownBlockError
from chain.types import Address, BlockRef, Hash32, Wei
from chain.wire import Header, Log, Receipt

T = TypeVar("T")
BlockTag = Literal["earliest", "finalized", "safe", "latest", "pending"]
Block = BlockRef | int | BlockTag
"""Where to read: at a hash (EIP-1898), at a height, or at a tag."""


class Rpc:
    """One node, or several that stand in for each other: `url` may hold many, separated by commas or spaces.

    Passing faults are tried again up to `retries` times, then the next node is asked; what none gives is an
    RpcError that names them without their keys. All results of one call of a method come from one node. A
    `BlockRef` is read by hash (EIP-1898): a reorg in between is an error. With a `chain_id` no node of
    another chain is believed; without one, the first of several nodes decides.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 10.0,
        *,
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        chain_id: int | None = None,
    ) -> None:
        self._nodes = Providers.open(
            url, timeout_s, retries=retries, sleep=sleep, clock=clock, chain_id=chain_id
        )
        self.name = self._nodes.name

    def __repr__(self) -> str:
        return f"Rpc({self.name})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._nodes.close()

    # -- several nodes ---------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """Name of the node that gave the last answer (that this thread got): whom to `distrust` for it."""
        return self._nodes.source

    def distrust(self, reason: str, source: str | None = None) -> bool:
        """Use another node than the one that lied: `source`, or that of the last answer; False if none is left."""
        return self._nodes.distrust(reason, source)

    def standing(self) -> dict[str, str]:
        """Return, by name, what is held against each node in words; nothing where it is in order."""
        return self._nodes.standing()

    def each(self) -> list[Rpc]:
        """Return every node by itself, the best first, on the same connections; not those that are distrusted."""
        found = []
        for alone in self._nodes.each():
            made = Rpc.__new__(Rpc)
            made._nodes, made.name = alone, alone.name  # noqa: SLF001  # still of this class
            found.append(made)
        return found

    # -- any method ------------------------------------------------------------------------------------------

    def request(self, method: str, *params: Any) -> Any:
        """Return the result of one call as plain JSON values; null where the node says null."""
        return self._ask(Any, method, *params)

    def batch(self, calls: Iterable[Call]) -> list[Any]:
        """Return the results of `calls` in their order; the first error among them is raised."""
        wanted = list(calls)

        def read(node: str, raws: list[msgspec.Raw]) -> list[Any]:
            return [_parse(node, Any, raw, method) for raw, (method, _) in zip(raws, wanted, strict=True)]

        return self._nodes.ask(wanted, read)

    # -- reading the chain -----------------------------------------------------------------------------------

    def chain_id(self) -> int:
        """Return the id of the chain (EIP-155)."""
        return self._quantity("eth_chainId")

    def block(self, at: int | BlockTag) -> BlockRef:
        """Return the block at a height or tag; an RpcError where the node has none."""
        return self.blocks([at])[0]

    def blocks(self, at: Sequence[int | BlockTag]) -> list[BlockRef]:
        """Return the blocks at these heights or tags, in this order; a tag is asked of a node that is not behind."""
        if any(isinstance(n, str) for n in at):
            self._nodes.compare()

        def read(node: str, raws: list[msgspec.Raw]) -> list[BlockRef]:
            return [_ref(node, raw, n) for raw, n in zip(raws, at, strict=True)]

        return self._nodes.ask([_header(n) for n in at], read)

    def headers(self, numbers: Sequence[int]) -> list[tuple[BlockRef, bytes | None]]:
        """Return the blocks at these heights, each with its logs bloom (256 bytes; None where the node gives none)."""

        def read(node: str, raws: list[msgspec.Raw]) -> list[tuple[BlockRef, bytes | None]]:
            return [(_ref(node, raw, n), _bloom(node, raw)) for raw, n in zip(raws, numbers, strict=True)]

        return self._nodes.ask([_header(n) for n in numbers], read)

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
        wanted = _logs(addresses, from_block, to_block, topics)

        def read(node: str, raws: list[msgspec.Raw]) -> tuple[list[Log], BlockRef, BlockRef]:
            found, first, last = raws
            return (
                _parse(node, list[Log], found, wanted[0]),
                _ref(node, first, from_block),
                _ref(node, last, to_block),
            )

        return self._nodes.ask([wanted, _header(from_block), _header(to_block)], read)

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
        return self._nodes.ask(asked, lambda node, raws: [_bytes(node, raw, "eth_call") for raw in raws])

    def code(self, address: Address, block: Block = "latest") -> bytes:
        """Return the code at an address; empty where no contract is."""
        return self._one("eth_getCode", [address, _at(block)], _bytes)

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

    def estimate(self, transaction: dict[str, str], overrides: dict[str, Any] | None = None) -> int:
        """Return the gas a transaction would use now; a revert is an RpcAnswerError with its bytes.

        `overrides` are what accounts have instead of what they have.
        """
        return self._quantity("eth_estimateGas", transaction, *(("latest", overrides) if overrides else ()))

    def send_raw(self, raw: bytes) -> Hash32:
        """Hand a signed transaction to the node and return its hash."""
        return Hash32(self._ask(str, "eth_sendRawTransaction", "0x" + raw.hex()))

    def receipt(self, transaction: Hash32) -> Receipt | None:
        """Return the receipt, or None while the transaction is in no block."""
        return self._ask(Receipt | None, "eth_getTransactionReceipt", transaction)  # type: ignore[arg-type]

    # -- the wire --------------------------------------------------------------------------------------------

    def _one(self, method: str, params: Sequence[Any], parse: Callable[[str, msgspec.Raw, str], T]) -> T:
        return self._nodes.ask([(method, params)], lambda node, raws: parse(node, raws[0], method))

    def _ask(self, kind: type[T], method: str, *params: Any) -> T:
        return self._one(method, params, lambda node, raw, name: _parse(node, kind, raw, name))

    def _quantity(self, method: str, *params: Any) -> int:
        return self._one(method, params, _number)


def _parse(node: str, kind: type[T], raw: msgspec.Raw, method: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError):
        raise _odd(node, method) from None


def _number(node: str, raw: msgspec.Raw, method: str) -> int:
    text = _parse(node, str, raw, method)
    try:
        return int(text, 16)
    except ValueError:
        raise _odd(node, method) from None


def _bytes(node: str, raw: msgspec.Raw, method: str) -> bytes:
    text = _parse(node, str, raw, method)
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise _odd(node, method) from None


def _ref(node: str, raw: msgspec.Raw, at: int | BlockTag) -> BlockRef:
    if bytes(raw) == b"null":
        raise UnknownBlockError(
            f"{node} has no block {at}: it lags or has pruned it; wait or use another node"
        )
    found = _parse(node, Header, raw, "eth_getBlockByNumber")
    try:
        ref = BlockRef(int(found.number, 16), found.hash, found.parent_hash, int(found.timestamp, 16))
    except ValueError:
        raise _odd(node, "eth_getBlockByNumber") from None
    if isinstance(at, int) and ref.number != at:
        raise RpcError(f"{node} answered block {ref.number} when asked for {at}: use another node")
    return ref


def _bloom(node: str, raw: msgspec.Raw) -> bytes | None:
    try:
        text = _parse(node, Header, raw, "eth_getBlockByNumber").logs_bloom
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise _odd(node, "eth_getBlockByNumber") from None
    return found if len(found) == BYTES else None


def _odd(node: str, method: str) -> RpcError:
    return RpcError(f"{node} answered {method} with something else than expected: use another node")


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
