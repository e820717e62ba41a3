"""Who signs our transactions: a key in this process, or a signer elsewhere that is asked and not trusted."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, Protocol, TypeAlias

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes

from chain.errors import RpcError, SignerError
from chain.fees import UNLIMITED, Offer
from chain.hashing import keccak256
from chain.keys import address_of
from chain.rpc import Rpc
from chain.transport import RpcAnswerError
from chain.types import Address, Hash32, Wei

TYPE: Final = 2
"""EIP-1559."""
HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Of secp256k1; no node takes a signature with an s above it (EIP-2)."""


@dataclass(frozen=True, slots=True)
class Content:
    """A transaction of type 2 before it is signed."""

    chain_id: int
    nonce: int
    to: Address | None
    """None creates a contract."""
    value: Wei
    data: bytes
    gas: int
    max_fee: Wei
    """Most per gas, in wei."""
    tip: Wei

    @property
    def offer(self) -> Offer:
        """What it pays per gas."""
        return Offer(self.max_fee, self.tip)

    @property
    def cost(self) -> Wei:
        """The most that is paid, value included."""
        return Wei(self.gas * self.max_fee + self.value)

    def at(self, offer: Offer) -> Content:
        """Return the same with other fees."""
        return replace(self, max_fee=offer.max_fee, tip=offer.tip)


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction as it is sent."""

    raw: bytes
    hash: Hash32
    sender: Address
    content: Content


class Signer(Protocol):
    """Whoever can sign transactions of one account."""

    @property
    def address(self) -> Address:
        """The account that pays."""

    @property
    def max_fee(self) -> Wei:
        """The most per gas that may be offered in its name, in wei."""

    def sign_transaction(self, content: Content) -> bytes:
        """Return the signed bytes of exactly this; a SignerError where that cannot be had."""


@dataclass(frozen=True, slots=True)
class KeySigner:
    """A key in this process."""

    account: LocalAccount
    max_fee: Wei = UNLIMITED

    @property
    def address(self) -> Address:
        """The account that pays."""
        return address_of(self.account)

    def sign_transaction(self, content: Content) -> bytes:
        """Return the signed bytes."""
        asked: dict[str, Any] = {
            "type": TYPE,
            "chainId": content.chain_id,
            "nonce": content.nonce,
            "value": content.value,
            "data": content.data,
            "gas": content.gas,
            "maxFeePerGas": content.max_fee,
            "maxPriorityFeePerGas": content.tip,
        }
        if content.to is not None:
            asked["to"] = to_checksum_address(content.to)
        return bytes(self.account.sign_transaction(asked).raw_transaction)


class RemoteSigner:
    """A signer that speaks the eth1 JSON-RPC of web3signer: eth_accounts and eth_signTransaction.

    What it returns is decoded and held against what was asked, so that one that errs, or lies, has nothing sent.
    Errors name it without what may be a password in its URL.
    """

    def __init__(
        self, url: str, address: Address, *, max_fee: Wei = UNLIMITED, timeout_s: float = 10.0
    ) -> None:
        try:
            self._rpc = Rpc(url, timeout_s, retries=2)
        except RpcError:
            raise SignerError(
                "the signer's URL (HAPTIC_POSTER_SIGNER) must look like https://host:port"
            ) from None
        self._who = f"the signer at {self._rpc.name}"
        self.address = address
        self.max_fee = max_fee

    def __repr__(self) -> str:
        return f"RemoteSigner({self.address} at {self._rpc.name})"

    def close(self) -> None:
        """Let go of the connection."""
        self._rpc.close()

    def check(self) -> None:
        """Raise a SignerError unless it answers and has the account."""
        found = self._ask("eth_accounts")
        known = [str(each).lower() for each in found] if isinstance(found, list) else []
        if self.address not in known:
            others = ", ".join(known[:3]) + (" …" if len(known) > 3 else "") or "none"
            raise SignerError(
                f"{self._who} has no key of {self.address}, only of: {others}; give it that key, or set "
                "HAPTIC_POSTER_ADDRESS to the account that posts"
            )

    def sign_transaction(self, content: Content) -> bytes:
        """Return what it signed if that is exactly `content`, by the account; else a SignerError names the difference."""
        asked = {
            "from": self.address,
            "nonce": hex(content.nonce),
            "value": hex(content.value),
            "data": "0x" + content.data.hex(),
            "gas": hex(content.gas),
            "maxFeePerGas": hex(content.max_fee),
            "maxPriorityFeePerGas": hex(content.tip),
            # web3signer goes by the chain id that it was started with; others take it from here.
            "chainId": hex(content.chain_id),
            "type": hex(TYPE),
        }
        if content.to is not None:
            asked["to"] = content.to
        text = self._ask("eth_signTransaction", asked)
        try:
            raw = bytes.fromhex(text.removeprefix("0x"))
        except (AttributeError, TypeError, ValueError):
            raise SignerError(
                f"{self._who} answered eth_signTransaction with something else than the hex of a signed transaction: "
                "is it web3signer in its eth1 mode?"
            ) from None
        self._compare(content, decode(raw, f"what {self._who} returned"))
        return raw

    def _compare(self, asked: Content, signed: Signed) -> None:
        for field in fields(Content):
            wanted, got = getattr(asked, field.name), getattr(signed.content, field.name)
            if wanted != got:
                shown = [x.hex() if isinstance(x, bytes) else x for x in (got, wanted)]
                raise SignerError(
                    f"{self._who} signed {field.name} {shown[0]} where {shown[1]} was asked for: nothing was sent; check "
                    "which chain it was started for, and do not trust it before you know why"
                )
        if signed.sender != self.address:
            raise SignerError(
                f"{self._who} signed with the key of {signed.sender}, not of {self.address}: nothing was sent"
            )

    def _ask(self, method: str, *params: Any) -> Any:
        try:
            return self._rpc.request(method, *params)
        except RpcAnswerError as error:
            raise SignerError(
                f"{self._who} does not sign for {self.address}: {error.text} (code {error.code})"
            ) from None
        except RpcError as error:
            raise SignerError(f"{self._who} does not sign for {self.address}: {error}") from None


Payer: TypeAlias = LocalAccount | Signer
"""Whoever pays for a transaction: a key as it is, or a signer."""


def signer_of(payer: Payer) -> Signer:
    """Return the signer of whoever pays; a key without a limit on fees becomes one."""
    return KeySigner(payer) if isinstance(payer, LocalAccount) else payer


def decode(raw: bytes, what: str = "what was stored") -> Signed:
    """Return what signed bytes say, and who signed them; a SignerError where they are no transaction of type 2.

    `what` names the bytes in the error.
    """
    try:
        found = TypedTransaction.from_bytes(HexBytes(raw))
        said, sender = found.as_dict(), Account.recover_transaction(raw)
        canonical = found.transaction_type == TYPE and found.encode() == raw
    except Exception:  # noqa: BLE001  (the libraries raise whatever strange bytes lead them to)
        raise SignerError(f"{what} is no signed transaction of type {TYPE}: 0x{raw[:40].hex()}…") from None
    if not canonical or said["accessList"] or said["s"] > HALF_ORDER:
        raise SignerError(f"{what} is not a plain signed transaction of type {TYPE}: 0x{raw[:40].hex()}…")
    to = bytes(said["to"])
    content = Content(
        said["chainId"],
        said["nonce"],
        Address("0x" + to.hex()) if to else None,
        Wei(said["value"]),
        bytes(said["data"]),
        said["gas"],
        Wei(said["maxFeePerGas"]),
        Wei(said["maxPriorityFeePerGas"]),
    )
    return Signed(raw, Hash32("0x" + keccak256(raw).hex()), Address(sender.lower()), content)


_NUMBERS: Final = (
    "chainId", "nonce", "value", "gas", "maxFeePerGas", "maxPriorityFeePerGas", "r", "s",
)  # fmt: skip


def sealed(found: dict[str, Any]) -> Signed | None:
    """Return the signed transaction that a node describes in JSON; None where it is none, or not as ours are.

    By its own signature: the sender is whoever signed it.
    """
    try:
        if int(found["type"], 16) != TYPE:
            return None
        said = {name: int(found[name], 16) for name in _NUMBERS} | {
            "to": HexBytes(found["to"] or b""), "data": HexBytes(found["input"]), "accessList": (),
            "type": TYPE, "v": int(found["yParity"], 16),
        }  # fmt: skip
        raw = TypedTransaction.from_dict(said).encode()
        return decode(raw)
    except (AttributeError, KeyError, SignerError, TypeError, ValueError):
        return None
