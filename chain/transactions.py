"""Our transactions: priced, signed, handed over, waited for; a refusal is known before anything is paid."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from chain.contracts import Contract, is_revert, revert_reason
from chain.errors import RevertError, RpcError
from chain.fees import UNLIMITED, first_offer, shortage
from chain.keys import refuse_published_key
from chain.rpc import Rpc
from chain.signer import Content, Payer, Signed, decode, signer_of
from chain.transport import RpcAnswerError
from chain.types import Address, Hash32, Wei
from chain.wire import Receipt

POLL_S = 0.05
LONGEST_POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Priced:
    """A transaction that would succeed now, and the most it can cost."""

    chain_id: int
    sender: Address
    to: Address | None
    """None creates a contract."""
    data: bytes
    value: Wei
    gas: int
    max_fee: Wei
    """Most per gas: twice the base fee, and the tip."""
    tip: Wei

    @property
    def cost(self) -> Wei:
        """The most that is paid, value included."""
        return self.numbered(0).cost

    def numbered(self, nonce: int) -> Content:
        """Return what is signed once its nonce is known."""
        return Content(self.chain_id, nonce, self.to, self.value, self.data, self.gas, self.max_fee, self.tip)


def price(
    rpc: Rpc, sender: Address, to: Address | None, data: bytes, value: int = 0, *, max_fee: Wei = UNLIMITED
) -> Priced:
    """Return what a transaction needs (EIP-1559); a RevertError in words if a contract would refuse it.

    A ChainError where the sender cannot pay for it, with how much is missing, or where gas costs more than
    `max_fee` now.
    """
    wanted = {"from": sender, "data": "0x" + data.hex(), "value": hex(value)} | ({"to": to} if to else {})
    try:
        gas = rpc.estimate(wanted)
    except RpcAnswerError as error:
        if is_revert(error):
            raise RevertError(f"the contract would refuse: {revert_reason(error.data)}") from None
        raise
    base, tip = rpc.fees()
    offer = first_offer(base, tip, max_fee)
    priced = Priced(rpc.chain_id(), sender, to, data, Wei(value), gas + gas // 5, offer.max_fee, offer.tip)
    balance = rpc.balance(sender)
    if balance < priced.cost:
        raise shortage(sender, balance, priced.cost)
    return priced


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


def wait(rpc: Rpc, transaction: Hash32, timeout_s: float = 120.0) -> Receipt:
    """Return the receipt once the transaction is in a block; a RevertError if it was reverted there."""
    deadline, pause = time.monotonic() + timeout_s, POLL_S
    while (receipt := rpc.receipt(transaction)) is None:
        if time.monotonic() > deadline:
            raise RpcError(f"{transaction} is in no block after {timeout_s:g} s: wait and run this again")
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_POLL_S)
    return must_succeed(rpc, receipt)


def must_succeed(rpc: Rpc, receipt: Receipt) -> Receipt:
    """Return the receipt, or raise a RevertError that says why the transaction was reverted in its block."""
    if not receipt.ok:
        raise RevertError(
            f"{receipt.transaction_hash} was reverted in block {receipt.block}: {_reason(rpc, receipt)}"
        )
    return receipt


def transact(
    rpc: Rpc,
    account: Payer,
    contract: Contract,
    function: str,
    *args: Any,
    value: int = 0,
    timeout_s: float = 120.0,
) -> Receipt:
    """Call a contract by a transaction and return its receipt; nothing is stored, so a crash forgets it.

    `value` is what is sent along, in wei of the chain's own coin.
    """
    return submit(
        rpc, account, contract.address, contract.encode(function, *args), value, timeout_s=timeout_s
    )


def submit(
    rpc: Rpc,
    account: Payer,
    to: Address | None,
    data: bytes,
    value: int = 0,
    *,
    timeout_s: float = 120.0,
) -> Receipt:
    """Send a transaction without storing it and return its receipt; `to` None creates a contract."""
    signer = signer_of(account)
    priced = price(rpc, signer.address, to, data, value, max_fee=signer.max_fee)
    signed = sign(signer, priced.numbered(rpc.nonce(priced.sender, "pending")))
    taken = hand_over(rpc, signed.raw)
    # Bytes that a lost answer left behind are in the pool, or mined in the meantime.
    if taken is not Taken.POOLED and rpc.receipt(signed.hash) is None:
        raise RpcError(
            f"{rpc.name} does not take {signed.hash} with nonce {signed.content.nonce} ({taken}): something else is sent "
            "with this key, or fees just rose; run this again"
        )
    return wait(rpc, signed.hash, timeout_s)


def _reason(rpc: Rpc, receipt: Receipt) -> str:
    """Return why a transaction was reverted, by running it again on the block before its own."""
    sent = rpc.request("eth_getTransactionByHash", receipt.transaction_hash) or {}
    try:
        data = bytes.fromhex(sent.get("input", "0x")[2:])
        rpc.call(sent["to"], data, receipt.block - 1, sent["from"])
    except RpcAnswerError as error:
        return revert_reason(error.data)
    except (KeyError, ValueError):
        pass
    return "the state it met was another than when it was sent; run this again"
