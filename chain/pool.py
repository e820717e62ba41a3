"""What a node holds of an account: a transaction that waits in its pool, or the one that took a nonce in a block.

Each is read by its own signature, so that a node cannot invent one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chain.errors import ChainError
from chain.quote import NO_SUCH_METHOD
from chain.rpc import Rpc
from chain.signer import Signed, sealed
from chain.transport import RpcAnswerError
from chain.types import Address


def waiting(rpc: Rpc, sender: Address, nonce: int) -> Signed | None:
    """Return what the pool holds at a nonce; None where it holds nothing, or nothing of the kind that we sign.

    A ChainError where the node has no method that tells: whether it is the same as what is wanted now is unknown.
    """
    try:
        # reth and Anvil have this one; geth, Erigon and Nethermind the other.
        return _ours(rpc.request("eth_getTransactionBySenderAndNonce", sender, hex(nonce)), sender, nonce)
    except RpcAnswerError as error:
        if error.code != NO_SUCH_METHOD:
            raise
    try:
        held = _dict(rpc.request("txpool_contentFrom", sender))
    except RpcAnswerError as error:
        if error.code != NO_SUCH_METHOD:
            raise
        raise ChainError(
            f"a transaction of {sender} with nonce {nonce} waits for a block, and {rpc.name} does not tell which one: "
            "nothing was sent, for it may be the same; wait for it, or use a node that has txpool_contentFrom"
        ) from None
    return _ours(_dict(held.get("pending")).get(str(nonce)), sender, nonce)


def mined(rpc: Rpc, sender: Address, nonce: int, blocks: Iterable[int]) -> Signed | None:
    """Return the transaction with which an account used a nonce in one of these blocks."""
    for number in blocks:
        block = _dict(rpc.request("eth_getBlockByNumber", hex(number), True))  # noqa: FBT003  # with transactions
        for each in block.get("transactions", ()):
            if str(_dict(each).get("from")).lower() == sender and (found := _ours(each, sender, nonce)):
                return found
    return None


def _ours(found: Any, sender: Address, nonce: int) -> Signed | None:
    signed = sealed(_dict(found))
    return signed if signed is not None and (signed.sender, signed.content.nonce) == (sender, nonce) else None


def _dict(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
