"""Wallets that are contracts: whether their code accepts a signature (ERC-1271, ERC-6492), asked by `eth_call`."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from chain.contracts import creation
from chain.errors import RpcError, SignatureError
from chain.messages import parse_signature
from chain.rpc import Rpc
from chain.transport import RpcAnswerError
from chain.types import NOBODY, Address, BlockRef, Hash32

MAGIC: Final = bytes.fromhex("6492" * 16)
"""What an ERC-6492 signature ends with."""
GAS: Final = 15_000_000
"""Of the whole question: more than the probe's own limits add up to, and less than nodes allow a call."""
NO_CODE, ACCEPTED, REFUSED = b"\x00", b"\x01", b"\x02"
"""What the probe answers."""


class Question(NamedTuple):
    """What a wallet is asked: the inner signature, and who deploys or prepares the wallet first where it must be."""

    signature: bytes
    factory: Address = NOBODY
    preparation: bytes = b""


def question_of(signature: str) -> Question:
    """Return a signature unwrapped, if it is wrapped by ERC-6492; SignatureError where the wrapping is broken."""
    raw = bytes.fromhex(parse_signature(signature)[2:])
    if not raw.endswith(MAGIC):
        return Question(raw)
    try:
        factory, preparation, inner = decode(["address", "bytes", "bytes"], raw[: -len(MAGIC)])
    except (DecodingError, OverflowError, ValueError):
        raise SignatureError(
            "signature: it ends as ERC-6492 has it, and does not hold (address, bytes, bytes) before that"
        ) from None
    return Question(inner, Address(factory.lower()), preparation)


class Asked:
    """The wallets of a chain, asked at a node; what the node fails to say is an RpcError, never a no."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._time = lru_cache(4096)(lambda block: rpc.block(block).timestamp)

    def finalized(self) -> BlockRef:
        """Return the block at which wallets are asked now: the latest that cannot be taken back."""
        return self._rpc.block("finalized")

    def time(self, block: int) -> int:
        """Return a block's time, Unix seconds."""
        return self._time(block)

    def accepts(self, wallet: Address, digest: Hash32, signature: str, block: int) -> bool:
        """Return whether the wallet's code accepts the signature at a block."""
        return self.verdict(wallet, digest, signature, block) == ACCEPTED

    def verdict(self, wallet: Address, digest: Hash32, signature: str, block: int) -> bytes:
        """Return NO_CODE, ACCEPTED or REFUSED, as the chain was at a block; nothing stays of what was tried out."""
        asked = question_of(signature)
        code = creation("SignatureProbe", wallet, digest, *asked)
        try:
            said = self._rpc.request("eth_call", {"data": "0x" + code.hex(), "gas": hex(GAS)}, hex(block))
        except RpcAnswerError as error:
            hint = "; it keeps no state that old: use an archive node" if error.local else ""
            raise RpcError(
                f"whether {wallet} accepts a signature at block {block} is not known: {error}{hint}"
            ) from error
        if said not in {"0x00", "0x01", "0x02"}:
            raise RpcError(
                f"{self._rpc.source} answered {str(said)[:40]!r} when it ran creation code in eth_call: use another node"
            )
        return bytes.fromhex(said[2:])


class Remembered:
    """The wallets as they were asked when their signatures came in; only the times of the blocks are looked up.

    For the operator's own close: a node that is no archive keeps the state of some hours.
    """

    def __init__(self, rpc: Rpc) -> None:
        self.time = Asked(rpc).time

    def accepts(self, _wallet: Address, _digest: Hash32, _signature: str, _block: int) -> bool:
        """Say yes: it was accepted, or would not be in the database."""
        return True
