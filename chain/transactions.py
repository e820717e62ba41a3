"""Our transactions: priced, signed, sent once, waited for; a refusal is known before anything is paid."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from sqlmodel import Session

from chain import ledger
from chain.contracts import Contract, is_revert, revert_reason
from chain.errors import ChainError, RevertError, RpcError
from chain.keys import address_of, refuse_published_key
from chain.ledger import TransactionRow
from chain.rpc import Rpc
from chain.transport import RpcAnswerError
from chain.types import Address, Hash32, Wei
from chain.wire import Receipt

POLL_S = 0.05
LONGEST_POLL_S = 2.0


class TransactionKey(NamedTuple):
    """What a stored transaction is for: there is never a second one for the same."""

    kind: str
    """post, activate, veto; open, close, abandon or amend."""
    epoch: int
    about: Hash32
    """keccak256 of what it says; while one is on its way, no other for this kind and epoch is sent."""


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
        return Wei(self.gas * self.max_fee + self.value)


def price(rpc: Rpc, sender: Address, to: Address | None, data: bytes, value: int = 0) -> Priced:
    """Return what a transaction needs (EIP-1559); a RevertError in words if a contract would refuse it.

    A ChainError where the sender cannot pay for it, with how much is missing.
    """
    wanted = {"from": sender, "data": "0x" + data.hex(), "value": hex(value)} | ({"to": to} if to else {})
    try:
        gas = rpc.estimate(wanted)
    except RpcAnswerError as error:
        if is_revert(error):
            raise RevertError(f"the contract would refuse: {revert_reason(error.data)}") from None
        raise
    base, tip = rpc.fees()
    priced = Priced(rpc.chain_id(), sender, to, data, Wei(value), gas + gas // 5, Wei(2 * base + tip), tip)
    balance = rpc.balance(sender)
    if balance < priced.cost:
        raise ChainError(
            f"{sender} has {balance} wei and may need {priced.cost} for gas: "
            f"send it {priced.cost - balance} more"
        )
    return priced


def sign(account: LocalAccount, priced: Priced, nonce: int) -> tuple[bytes, Hash32]:
    """Return the signed bytes and the hash of a transaction of type 2."""
    refuse_published_key(priced.sender, priced.chain_id)
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": priced.chain_id,
        "nonce": nonce,
        "value": priced.value,
        "data": priced.data,
        "gas": priced.gas,
        "maxFeePerGas": priced.max_fee,
        "maxPriorityFeePerGas": priced.tip,
    }
    if priced.to is not None:
        fields["to"] = to_checksum_address(priced.to)
    signed = account.sign_transaction(fields)
    return bytes(signed.raw_transaction), Hash32("0x" + bytes(signed.hash).hex())


def send(
    rpc: Rpc,
    session: Session,
    account: LocalAccount,
    to: Address,
    data: bytes,
    value: int = 0,
    *,
    key: TransactionKey,
) -> Hash32:
    """Send a transaction at most once for `key` and return its hash; commits `session`.

    Nonce and signed bytes are committed before the node gets them: after a crash in between, the same bytes
    are sent again. Another transaction is made only where the earlier one is at its end: mined and about
    something else, reverted, or its nonce used elsewhere. A ChainError where one that is about something else
    may still be on its way.
    """
    known = ledger.transaction(session, key.kind, key.epoch)
    if known is not None:
        settle(rpc, session, known, key.about)
        if known.status == "sent" or (known.status == "mined" and known.about == key.about):
            return Hash32(known.hash)
    sender = address_of(account)
    for row in ledger.open_transactions(session, sender):
        settle(rpc, session, row)
    priced = price(rpc, sender, to, data, value)
    nonce = rpc.nonce(sender, "pending")
    # A reorg gave a nonce back that a mined transaction had: that one goes first, as it was.
    while (held := ledger.transaction_of(session, sender, nonce)) is not None:
        settle(rpc, session, held)
        if (following := rpc.nonce(sender, "pending")) == nonce:
            raise ChainError(
                f"{held.hash} has nonce {nonce} and is in no block any more: wait and run this again"
            )
        nonce = following
    raw, hash_ = sign(account, priced, nonce)
    fresh = TransactionRow(**key._asdict(), sender=sender, nonce=nonce, hash=hash_, raw=raw, status="stored")
    ledger.add_transaction(session, fresh)
    session.commit()
    settle(rpc, session, fresh)
    return hash_


def settle(rpc: Rpc, session: Session, row: TransactionRow, about: Hash32 | None = None) -> Receipt | None:
    """Find out what became of a stored transaction; one in no block is sent (again); commits `session`.

    A ChainError, and nothing sent, where it is open and is not `about` what is wanted now.
    """
    # The nonce before the receipt: a block that comes in between then shows in the receipt.
    used = rpc.nonce(Address(row.sender)) > row.nonce
    receipt = rpc.receipt(Hash32(row.hash))
    if receipt is not None:
        row.status = "mined" if receipt.ok else "failed"
    elif used:
        row.status = "lost"
    elif about is not None and row.about != about:
        raise ChainError(
            f"{row.hash}, to {row.kind} epoch {row.epoch}, was signed before with other contents and may be "
            "on its way: nothing was sent; find out which of the two is right"
        )
    else:
        _hand_over(rpc, row.raw, Hash32(row.hash))
        row.status = "sent"
    session.add(row)
    session.commit()
    return receipt


def wait(rpc: Rpc, transaction: Hash32, timeout_s: float = 120.0) -> Receipt:
    """Return the receipt once the transaction is in a block; a RevertError if it was reverted there."""
    deadline, pause = time.monotonic() + timeout_s, POLL_S
    while (receipt := rpc.receipt(transaction)) is None:
        if time.monotonic() > deadline:
            raise RpcError(f"{transaction} is in no block after {timeout_s:g} s: wait and run this again")
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_POLL_S)
    if not receipt.ok:
        raise RevertError(f"{transaction} was reverted in block {receipt.block}: {_reason(rpc, receipt)}")
    return receipt


def transact(
    rpc: Rpc,
    account: LocalAccount,
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
    account: LocalAccount,
    to: Address | None,
    data: bytes,
    value: int = 0,
    *,
    timeout_s: float = 120.0,
) -> Receipt:
    """Send a transaction without storing it and return its receipt; `to` None creates a contract."""
    priced = price(rpc, address_of(account), to, data, value)
    raw, hash_ = sign(account, priced, rpc.nonce(priced.sender, "pending"))
    _hand_over(rpc, raw, hash_)
    return wait(rpc, hash_, timeout_s)


def _hand_over(rpc: Rpc, raw: bytes, transaction: Hash32) -> None:
    try:
        rpc.send_raw(raw)
    except RpcAnswerError as error:
        # Bytes that were handed over before are in the pool, or mined in the meantime.
        pooled = any(known in error.text.lower() for known in ("already known", "already imported"))
        if not pooled and rpc.receipt(transaction) is None:
            raise


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
