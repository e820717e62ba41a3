"""The messages that are signed (EIP-712): parsed strictly, hashed by hand, recovered with libsecp256k1.

Validation comes before encoding: common encoders ignore extra fields, pad short bytes and accept malleable
signatures, so nothing here leaves a value to their leniency.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from sys import intern
from typing import Any, ClassVar, Final, NamedTuple, Self

from coincurve import PrivateKey, PublicKey
from eth_account.signers.local import LocalAccount

from chain.errors import SignatureError
from chain.hashing import keccak256
from chain.types import Address, Hash32

_HALF_N = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HEX20 = re.compile(r"0x[0-9a-fA-F]{40}")
_HEX32 = re.compile(r"0x[0-9a-f]{64}")
MAX_TEXT = 4096
"""Longest string in a signed message, in code points: a summary or a flag is short."""
MAX_SIGNATURE_BYTES = 1 << 14
"""Longest signature that a contract wallet is asked about."""
MAX_INT = 2**53 - 1
"""Largest integer in a signed message: RFC 8785, and so the bundle, has no greater ones."""


def parse_address(value: object, name: str = "address") -> Address:
    """Return `value` as a lowercase address; mixed case must carry the right EIP-55 checksum."""
    if not isinstance(value, str) or not _HEX20.fullmatch(value):
        raise SignatureError(f"{name}: {value!r} is not an address (0x and 40 hex digits)")
    if value != value.lower() and value != checksum(Address(value.lower())):
        raise SignatureError(f"{name}: {value} has a wrong EIP-55 checksum; copy it again, or use lowercase")
    return Address(intern(str(value.lower())))


def checksum(address: Address) -> str:
    """Return the address in EIP-55 mixed case, for people."""
    digest = keccak256(address[2:].encode()).hex()
    pairs = zip(address[2:], digest, strict=False)
    return "0x" + "".join(c.upper() if int(h, 16) > 7 else c for c, h in pairs)


def parse_hash(value: object, name: str = "hash") -> Hash32:
    """Return `value` as a 32-byte hash in lowercase hex."""
    if not isinstance(value, str) or not _HEX32.fullmatch(value):
        raise SignatureError(f"{name}: {value!r} is not 32 bytes in lowercase hex (0x and 64 digits)")
    return Hash32(intern(str(value)))


def _parse_uint(value: object, bits: int, name: str) -> int:
    if type(value) is not int or not 0 <= value <= min((1 << bits) - 1, MAX_INT):
        raise SignatureError(f"{name}: {value!r} is not an integer in 0..2^{min(bits, 53)}-1")
    return value


def _parse_string(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise SignatureError(f"{name}: {str(value)[:40]!r} is not a text of at most {MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SignatureError(f"{name}: the text holds a lone surrogate, which has no UTF-8 form") from None
    return value


def _parse(kind: str, value: object, name: str) -> Any:
    """Return one field's value in its Python form, or say what is wrong with it."""
    if kind.endswith("[]"):
        if not isinstance(value, list | tuple) or len(value) > 255:
            raise SignatureError(f"{name}: {str(value)[:40]!r} is not a list of at most 255 values")
        try:
            return tuple([_parse(kind[:-2], v, name) for v in value])
        except SignatureError:  # said again by the one that is wrong; names cost more than parsing
            return tuple(_parse(kind[:-2], v, f"{name}[{i}]") for i, v in enumerate(value))
    if kind == "address":
        return parse_address(value, name)
    if kind == "bytes32":
        return parse_hash(value, name)
    if kind == "string":
        return _parse_string(value, name)
    return _parse_uint(value, int(kind.removeprefix("uint")), name)


def _encode(kind: str, value: Any) -> bytes:
    """Return the 32 bytes that stand for one field in `encodeData` (EIP-712)."""
    if kind == "uint8[]":
        return _numbers_word(value)
    if kind.endswith("[]"):
        return keccak256(b"".join([_encode(kind[:-2], v) for v in value]))
    if kind == "string":
        return _text_word(value)
    if kind in {"address", "bytes32"}:
        return bytes.fromhex(value[2:]).rjust(32, b"\0")
    return int(value).to_bytes(32, "big")


@lru_cache(1024)
def _text_word(text: str) -> bytes:
    """Return keccak256 of a text; methods, summaries and flags repeat from ranking to ranking."""
    return keccak256(text.encode())


@lru_cache(4096)
def _numbers_word(numbers: tuple[int, ...]) -> bytes:
    """Return keccak256 of small numbers, 32 bytes each; ranks repeat too."""
    return keccak256(b"".join([n.to_bytes(32, "big") for n in numbers]))


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(t.title() for t in tail)


@dataclass(frozen=True, slots=True)
class Domain:
    """The EIP-712 domain of SPEC 2: name Haptic, version 1, on one chain, for one StakeVault."""

    chain_id: int
    vault: Address

    def separator(self) -> bytes:
        """Return `hashStruct` of the domain, 32 bytes."""
        return _separator(self.chain_id, self.vault)

    def typed_data(self, message: Message) -> dict[str, Any]:
        """Return the whole message as `eth_signTypedData_v4` wants it, for a wallet to show and sign."""
        kinds = {
            name: [{"name": n, "type": t} for n, t in rows] for name, rows in message.eip712_types().items()
        }
        domain = {"name": "Haptic", "version": "1", "chainId": self.chain_id, "verifyingContract": self.vault}
        kinds["EIP712Domain"] = [
            {"name": "name", "type": "string"},
            {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"},
            {"name": "verifyingContract", "type": "address"},
        ]
        primary = type(message).__name__
        return {"types": kinds, "primaryType": primary, "domain": domain, "message": message.to_json()}


@lru_cache(64)
def _separator(chain_id: int, vault: Address) -> bytes:
    kind = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    head = keccak256(kind) + keccak256(b"Haptic") + keccak256(b"1")
    return keccak256(head + _encode("uint256", chain_id) + _encode("address", vault))


class _Field(NamedTuple):
    """A field of a struct: its name in Python, its name in EIP-712, its Solidity type."""

    attribute: str
    name: str
    kind: str


class _Struct(NamedTuple):
    """What of a struct is the same for all its messages."""

    fields: tuple[_Field, ...]
    names: frozenset[str]
    type_hash: bytes


_STRUCTS: Final[dict[type[Message], _Struct]] = {}


class Message:
    """One signed struct; a subclass is a frozen dataclass whose `KINDS` are its Solidity types in order."""

    __slots__ = ()
    KINDS: ClassVar[tuple[str, ...]]

    @classmethod
    def eip712_types(cls) -> dict[str, list[tuple[str, str]]]:
        """Return {struct: [(field, solidity type)]}."""
        names = [_camel(f.name) for f in fields(cls)]  # type: ignore[arg-type]  # subclasses are dataclasses
        return {cls.__name__: list(zip(names, cls.KINDS, strict=True))}

    @classmethod
    def _struct(cls) -> _Struct:
        if cls not in _STRUCTS:
            ((struct, rows),) = cls.eip712_types().items()
            attributes = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # as above
            found = tuple(_Field(a, n, t) for a, (n, t) in zip(attributes, rows, strict=True))
            kind = f"{struct}({','.join(f'{f.kind} {f.name}' for f in found)})".encode()
            _STRUCTS[cls] = _Struct(found, frozenset(f.name for f in found), keccak256(kind))
        return _STRUCTS[cls]

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the message in a JSON object that has exactly this struct's fields, each in range."""
        struct = cls._struct()
        if not isinstance(value, Mapping):
            raise SignatureError(
                f"{cls.__name__}: expected an object with {', '.join(f.name for f in struct.fields)}"
            )
        if value.keys() != struct.names:
            wrong = sorted(struct.names ^ {str(k) for k in value})
            raise SignatureError(f"{cls.__name__}: missing or unknown field {', '.join(wrong)}")
        return cls(*[_parse(f.kind, value[f.name], f"{cls.__name__}.{f.name}") for f in struct.fields])

    def to_json(self) -> dict[str, Any]:
        """Return the fields by their EIP-712 names."""
        values = ((f.name, getattr(self, f.attribute)) for f in self._struct().fields)
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values}

    def digest(self, domain: Domain) -> Hash32:
        """Return keccak256(0x1901 ‖ domainSeparator ‖ hashStruct(message)), what is signed (EIP-712)."""
        struct = self._struct()
        words = [_encode(f.kind, getattr(self, f.attribute)) for f in struct.fields]
        content = keccak256(b"".join([struct.type_hash, *words]))
        return Hash32("0x" + keccak256(b"\x19\x01" + domain.separator() + content).hex())


@dataclass(frozen=True, slots=True)
class Session(Message):
    """A wallet lets a session key sign its rankings of one epoch."""

    KINDS: ClassVar = ("address", "address", "uint64", "uint32", "uint64", "bytes32")
    wallet: Address
    key: Address
    epoch: int
    max_judgements: int
    not_after: int
    """Unix seconds; a ranking signed later by the key is refused."""
    terms_hash: Hash32


@dataclass(frozen=True, slots=True)
class Ranking(Message):
    """A wallet's order of the responses that it was shown for one task."""

    KINDS: ClassVar = (
        "address", "uint64", "bytes32", "string", "string", "bytes32[]",
        "uint8[]", "uint8[]", "string", "bytes32", "uint16", "uint64",
    )  # fmt: skip
    wallet: Address
    epoch: int
    task: Hash32
    method: str
    summary: str
    shown: tuple[Hash32, ...]
    ranks: tuple[int, ...]
    likert: tuple[int, ...]
    flag: str
    comment_hash: Hash32
    revision: int
    signed_at: int


@dataclass(frozen=True, slots=True)
class Receipt(Message):
    """The service's promise that a ranking stands in its log, so that a dropped one is provable."""

    KINDS: ClassVar = ("bytes32", "uint64", "uint64", "uint64")
    digest_of: Hash32
    epoch: int
    position: int
    received_at: int

    @classmethod
    def eip712_types(cls) -> dict[str, list[tuple[str, str]]]:
        """Return the struct; its first field is `digest`, which here would hide the method."""
        names = ("digest", "epoch", "position", "receivedAt")
        return {"Receipt": list(zip(names, cls.KINDS, strict=True))}


@dataclass(frozen=True, slots=True)
class Handout(Message):
    """The service's promise that a hand-out stands in its log, and of what: one left out or shown otherwise is provable.

    The task's hash alone would not do: it takes a salt that is published at the close.
    """

    KINDS: ClassVar = ("address", "uint64", "bytes32", "bytes32", "bytes32[]", "uint64", "uint64")
    wallet: Address
    epoch: int
    task: Hash32
    prompt: Hash32
    """Keccak of the prompt's UTF-8."""
    shown: tuple[Hash32, ...]
    """The same of each response, in the order of the screen, as in a Ranking."""
    number: int
    at: int


def parse_signature(value: object) -> str:
    """Return a signature of any kind, as hex: that of a contract wallet may have any length up to 16 KiB."""
    if (
        not isinstance(value, str)
        or len(value) > 2 + 2 * MAX_SIGNATURE_BYTES
        or not re.fullmatch(r"0x(?:[0-9a-f]{2})*", value)
    ):
        raise SignatureError(
            f"signature: expected bytes in lowercase hex (0x and two digits each), {MAX_SIGNATURE_BYTES} at most"
        )
    return value


def recover(digest: Hash32, signature: str) -> Address:
    """Return the address that signed `digest`: 65 bytes r ‖ s ‖ v, low s (EIP-2), v 27 or 28."""
    if not isinstance(signature, str) or not re.fullmatch(r"0x[0-9a-f]{130}", signature):
        compact = isinstance(signature, str) and len(signature) == 130
        raise SignatureError(
            "signature: expected 65 bytes in lowercase hex (0x and 130 digits)"
            + ("; the 64 bytes of EIP-2098 have to be written out" if compact else "")
        )
    raw = bytes.fromhex(signature[2:])
    r, s, v = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64]
    if v not in {27, 28}:
        raise SignatureError(f"signature: v is {v}, expected 27 or 28")
    if not 0 < r < _N or not 0 < s <= _HALF_N:
        raise SignatureError("signature: r or s is out of range; s must be in the lower half (EIP-2)")
    try:
        key = PublicKey.from_signature_and_message(
            raw[:64] + bytes([v - 27]), bytes.fromhex(digest[2:]), hasher=None
        )
    except ValueError as error:
        raise SignatureError("signature: no key gives this signature; sign again") from error
    return Address("0x" + keccak256(key.format(compressed=False)[1:])[12:].hex())


def sign(message: Message, domain: Domain, account: LocalAccount) -> str:
    """Return the account's signature of a message: 65 bytes r ‖ s ‖ v in hex, as `recover` takes it."""
    return sign_with(message, domain, PrivateKey(bytes(account.key)))


def sign_with(message: Message, domain: Domain, key: PrivateKey) -> str:
    """Return a key's signature of a message; deterministic (RFC 6979), low s."""
    raw = key.sign_recoverable(bytes.fromhex(message.digest(domain)[2:]), hasher=None)
    return "0x" + raw[:64].hex() + f"{raw[64] + 27:02x}"
