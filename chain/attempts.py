"""The attempts at one transaction: handed to a node, looked for there, replaced by the same with higher fees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from chain.errors import ChainError, RpcError
from chain.fees import is_overtaken, next_offer, shortage, show_coin
from chain.keys import refuse_published_key
from chain.rpc import Rpc
from chain.signer import Content, Payer, Signed, Signer, decode, signer_of
from chain.transport import Call, RpcAnswerError
from chain.types import Address, Attempt, Wei
from chain.wire import Header, Receipt

PATIENCE: Final = 3
"""Blocks that an attempt is given before one with higher fees takes its place."""
POLL_S = 0.05
LONGEST_POLL_S = 2.0


def sign(payer: Payer, content: Content) -> Signed:
    """Return a signed transaction; a KeyFileError where everybody has the key and this is not the devnet."""
    signer = signer_of(payer)
    refuse_published_key(signer.address, content.chain_id)
    return decode(signer.sign_transaction(content), f"what {signer!r} signed")


class Taken(StrEnum):
    """What a node did with a transaction that it was handed."""

    POOLED = "pooled"
    """It waits for a block there, or did before."""
    CHEAP = "cheap"
    """Refused: its fees are below what the next block, or the node's pool, takes."""
    RIVAL = "rival"
    """Refused: another one with its nonce is there, and pays as much or more."""
    USED = "used"
    """Refused: its nonce is in a block."""
    POOR = "poor"
    """Refused: the account cannot pay for it and for what else it has there."""


REFUSALS: Final = (
    (Taken.POOLED, r"already ?(known|imported)|known transaction|same hash|already in (the )?(mem)?pool"),
    (Taken.RIVAL, r"replace"),
    (Taken.CHEAP, r"underpriced|less than (the )?block base fee|fee ?(cap )?too ?low|below (the )?min"),
    (Taken.USED, r"nonce ?(is ?)?too ?low|old ?nonce|nonce below"),
    (Taken.POOR, r"insufficient ?(funds|balance)"),
)
"""What nodes say (geth, reth, Nethermind, Erigon, Besu, Anvil), the first that fits; there is no code for it."""


def hand_over(rpc: Rpc, signed: bytes) -> Taken:
    """Give a node a signed transaction, once or again; an RpcAnswerError where it refuses it for another reason."""
    try:
        rpc.send_raw(signed)
    except RpcAnswerError as error:
        for taken, words in REFUSALS:
            if re.search(words, error.text, re.IGNORECASE):
                return taken
        raise
    return Taken.POOLED


@dataclass(frozen=True, slots=True)
class Sight:
    """What one node says of a transaction at one moment."""

    receipt: Receipt | None
    """Of whichever attempt is in a block."""
    used: bool
    """Its nonce is in a block: by one of its attempts, or by another transaction of the account."""
    final: bool
    """By a block that is finalized."""
    head: int
    balance: Wei
    """Of the account, while the transaction was in no block."""

    @property
    def status(self) -> str | None:
        """What is stored of it by this; None while the transaction is in no block."""
        if self.receipt is None:
            return "lost" if self.final else None
        if not self.final:
            return "mined"
        return "final" if self.receipt.ok else "failed"


def look(rpc: Rpc, sender: Address, nonce: int, attempts: Sequence[Attempt]) -> Sight:
    """Return what the node says of a transaction; nothing is sent."""
    # In one request, so that one node answers; nonce and balance before the receipts: a block that comes in
    # between then shows in a receipt.
    wanted: list[Call] = [(f"eth_get{what}", [sender, "latest"]) for what in ("TransactionCount", "Balance")]
    wanted += [("eth_getBlockByNumber", [tag, False]) for tag in ("latest", "finalized")]
    receipts: list[Call] = [("eth_getTransactionReceipt", [each.hash]) for each in attempts]
    count, balance, latest, finalized, *found = rpc.batch(wanted + receipts)
    receipt = next((_read(rpc, each, Receipt) for each in found if each is not None), None)
    used, final = _number(rpc, count) > nonce, False
    if receipt is not None:
        final = receipt.block <= _number(rpc, _read(rpc, finalized, Header).number)
    elif used:
        count, *found = rpc.batch([("eth_getTransactionCount", [sender, "finalized"]), *receipts])
        final = _number(rpc, count) > nonce and not any(found)
    head = _number(rpc, _read(rpc, latest, Header).number)
    return Sight(receipt, used, final, head, Wei(_number(rpc, balance)))


def push(rpc: Rpc, signer: Signer, attempts: Sequence[Attempt], seen: Sight) -> Signed | None:
    """Hand over the newest attempt; where it was overtaken, return the same with higher fees, to be handed over next.

    A ChainError where the account cannot pay, a limit on fees is reached, or another transaction has its nonce.
    """
    newest = decode(attempts[-1].raw)
    if seen.balance < newest.content.cost:
        raise shortage(newest.sender, seen.balance, newest.content.cost)
    taken = hand_over(rpc, newest.raw)
    if taken is Taken.POOR:
        raise ChainError(
            f"{newest.sender} has {show_coin(seen.balance)}, too little for {newest.hash} beside what else it has sent: "
            "send it more and run this again"
        )
    if taken is Taken.RIVAL and not _is_ours(rpc, attempts):
        raise ChainError(
            f"{rpc.name} holds another transaction of {newest.sender} with nonce {newest.content.nonce} that pays as "
            f"much as {newest.hash} or more: is a second service, or a person, sending with this key? Stop it, then wait"
        )
    if taken is Taken.USED or seen.head - attempts[-1].stored_at < PATIENCE:
        return None
    base, tip = rpc.fees()
    if taken is Taken.POOLED and not is_overtaken(newest.content.offer, base, tip):
        return None
    if newest.sender != signer.address:
        raise ChainError(
            f"{newest.hash} was signed by {newest.sender}, was overtaken by rising fees, and only that account can "
            f"replace it, not {signer.address}: run this once more with its key"
        )
    content = newest.content.at(next_offer(newest.content.offer, base, tip, signer.max_fee))
    if seen.balance < content.cost:
        raise shortage(newest.sender, seen.balance, content.cost)
    return sign(signer, content)


def _is_ours(rpc: Rpc, attempts: Sequence[Attempt]) -> bool:
    """Tell whether the node knows one of our own attempts."""
    return any(rpc.batch([("eth_getTransactionByHash", [each.hash]) for each in attempts]))


def _read(rpc: Rpc, value: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise RpcError(f"{rpc.name} answered with no {kind.__name__.lower()}: use another node") from None


def _number(rpc: Rpc, text: Any) -> int:
    try:
        return int(text, 16)
    except (TypeError, ValueError):
        raise RpcError(f"{rpc.name} answered {text!r} instead of a number: use another node") from None
