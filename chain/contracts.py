"""The contracts as Python sees them: calls encoded, answers decoded, refusals put into words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError

from chain.errors import ChainError, DeploymentError, RevertError
from chain.hashing import keccak256
from chain.rpc import Block, Rpc
from chain.transport import RpcAnswerError
from chain.types import Address, Hash32

NAMES: Final = (
    "StakeVault",
    "RevenueDistributor",
    "EpochLedger",
    "HapticToken",
    "DevnetDollar",
    "DevnetWallet",
    "SignatureProbe",
)
PANICS: Final[Mapping[int, str]] = {
    0x01: "an assertion failed",
    0x11: "an amount overflowed",
    0x12: "a division by zero",
    0x32: "an index out of range",
    0x41: "too much memory was asked for",
}
"""Codes of Panic(uint256) by the Solidity documentation."""
INHERITED: Final[Mapping[str, str]] = {
    "OwnableUnauthorizedAccount(address)": "`account` is not the contracts' owner, who alone may do this",
}
"""OpenZeppelin's errors that people meet; they come without a notice."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract of this project by its name in `chain/abi` and its address."""

    name: str
    address: Address

    def encode(self, function: str, *args: Any) -> bytes:
        """Return the call data; hashes may be hex, structs are tuples in the order of their fields."""
        entry = _entry(self.name, "function", function)
        kinds = _kinds(entry["inputs"])
        return _selector(entry) + _encode(kinds, args, f"{self.name}.{function}")

    def decode(self, function: str, data: bytes) -> Any:
        """Return what the function answered: one value, or a tuple where it returns several."""
        entry = _entry(self.name, "function", function)
        kinds = _kinds(entry["outputs"])
        try:
            values = decode(kinds, data)
        except DecodingError:
            raise DeploymentError(
                f"{self.address} answered {function}() with {len(data)} bytes that no {self.name} sends: "
                "check the address and the RPC URL"
            ) from None
        plain = tuple(_plain(kind, value) for kind, value in zip(kinds, values, strict=True))
        return plain[0] if len(plain) == 1 else plain

    def revert_error(self, data: bytes | None) -> RevertError:
        """Return a RevertError naming the custom error and its arguments, whichever contract raised it."""
        return RevertError(f"{self.name} refused: {revert_reason(data)}")


def call(rpc: Rpc, contract: Contract, function: str, *args: Any, block: Block = "latest") -> Any:
    """Return what a view answers at `block`; a RevertError in words where it refuses."""
    return call_each(rpc, contract, function, [args], block=block)[0]


def call_each(
    rpc: Rpc, contract: Contract, function: str, args: Sequence[Sequence[Any]], *, block: Block = "latest"
) -> list[Any]:
    """Return what a view answers to each of `args`, all at `block`, in batches."""
    wanted = [(contract.address, contract.encode(function, *each)) for each in args]
    try:
        return [contract.decode(function, data) for data in rpc.calls(wanted, block)]
    except RpcAnswerError as error:
        if is_revert(error):
            raise contract.revert_error(error.data) from None
        raise


def is_revert(error: RpcAnswerError) -> bool:
    """Tell whether a node's error is a contract's refusal (geth and Anvil: code 3, or bytes of a revert)."""
    return error.code == 3 or bool(error.data) or "revert" in error.text.lower()


def revert_reason(data: bytes | None) -> str:
    """Return the words for the bytes of a revert: the error's name, each argument's name and value."""
    if not data:
        return "without a reason"
    selector, body = data[:4], data[4:]
    try:
        if selector == keccak256(b"Error(string)")[:4]:
            return str(decode(["string"], body)[0])
        if selector == keccak256(b"Panic(uint256)")[:4]:
            code = decode(["uint256"], body)[0]
            return PANICS.get(code, f"panic {code:#x}")
        for entry in _errors():
            if _selector(entry) == selector:
                return _said(entry, body)
    except DecodingError:
        pass
    return f"an unknown error 0x{data.hex()}"


def bytecode(name: str) -> bytes:
    """Return the creation code of a contract."""
    return bytes.fromhex(_artifact(name)["bytecode"].removeprefix("0x"))


def creation(name: str, *args: Any) -> bytes:
    """Return the data of a transaction that deploys `name` with these constructor arguments."""
    inputs: list[Any] = next((entry["inputs"] for entry in abi(name) if entry["type"] == "constructor"), [])
    return bytecode(name) + _encode(_kinds(inputs), args, f"the constructor of {name}")


def abi(name: str) -> list[dict[str, Any]]:
    """Return the ABI of a contract (Solidity's JSON)."""
    return list(_artifact(name)["abi"])


@lru_cache
def _artifact(name: str) -> dict[str, Any]:
    file = resources.files("chain") / "abi" / f"{name}.json"
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise DeploymentError(f"chain/abi/{name}.json is missing: run `make contracts`") from None
    return content


@lru_cache
def _entry(name: str, kind: str, entry: str) -> dict[str, Any]:
    for found in abi(name):
        if found["type"] == kind and found["name"] == entry:
            return found
    raise ChainError(f"{name} has no {kind} {entry}")


@lru_cache
def _errors() -> tuple[dict[str, Any], ...]:
    return tuple(entry for name in NAMES for entry in abi(name) if entry["type"] == "error")


def _selector(entry: Mapping[str, Any]) -> bytes:
    return keccak256(f"{entry['name']}({','.join(_kinds(entry['inputs']))})".encode())[:4]


def _kinds(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the canonical ABI types; a struct is written out as a tuple."""
    return [
        param["type"].replace("tuple", f"({','.join(_kinds(param['components']))})")
        if param["type"].startswith("tuple")
        else param["type"]
        for param in params
    ]


def _encode(kinds: Sequence[str], args: Sequence[Any], what: str) -> bytes:
    try:
        return encode(kinds, [_raw(kind, arg) for kind, arg in zip(kinds, args, strict=True)])
    except (EncodingError, ValueError, TypeError) as error:
        raise ChainError(f"{what} takes ({', '.join(kinds)}): {error}") from None


def _raw(kind: str, value: Any) -> Any:
    """Return `value` as eth_abi wants it: hex hashes as bytes, at any depth of a struct or array."""
    if isinstance(value, str):
        return bytes.fromhex(value.removeprefix("0x")) if kind.startswith("bytes") else value
    if kind.endswith("[]"):
        return [_raw(kind[:-2], each) for each in value]
    if kind.startswith("("):
        return tuple(_raw(k, v) for k, v in zip(_members(kind), value, strict=True))
    return value


def _members(kind: str) -> Iterator[str]:
    depth, start = 0, 1
    for at, char in enumerate(kind):
        depth += (char == "(") - (char == ")")
        if (char == "," and depth == 1) or at == len(kind) - 1:
            yield kind[start:at]
            start = at + 1


def _plain(kind: str, value: Any) -> Any:
    """Return what eth_abi decoded with hashes as hex, also in a struct."""
    if kind.startswith("(") and not kind.endswith("]"):
        return tuple(_plain(k, v) for k, v in zip(_members(kind), value, strict=True))
    return Hash32("0x" + value.hex()) if kind == "bytes32" else value


def _said(entry: Mapping[str, Any], body: bytes) -> str:
    kinds = _kinds(entry["inputs"])
    values = decode(kinds, body)
    said = {
        param["name"]: str(_plain(kind, value))
        for param, kind, value in zip(entry["inputs"], kinds, values, strict=True)
    }
    if words := _words(f"{entry['name']}({','.join(kinds)})"):
        return f"{re.sub('`([a-zA-Z]+)`', lambda m: said.get(m[1], m[0]), words).removesuffix('.')} ({entry['name']})"
    return str(entry["name"]) + (f" ({', '.join(f'{k} {v}' for k, v in said.items())})" if said else "")


@lru_cache
def _words(signature: str) -> str:
    """Return what a custom error means in the words of its NatSpec, where it has any."""
    found = (_artifact(name).get("errors", {}).get(signature, "") for name in NAMES)
    return next(filter(None, found), INHERITED.get(signature, ""))
