"""Sign-In with Ethereum (EIP-4361): a message of login parsed and written strictly by the standard's grammar.

What follows from the fields (whose domain, how long, which nonce) is for the service to judge; here it is only
whether the text is one of the grammar's, so that a wallet and we read the same in it.
"""

from __future__ import annotations

import re
from calendar import monthrange, timegm
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from chain.errors import SignatureError
from chain.hashing import keccak256
from chain.messages import checksum, parse_address
from chain.types import Address, Hash32

MAX_MESSAGE: Final = 4096
"""Longest message, in characters."""
_ASKS: Final = " wants you to sign in with your Ethereum account:"
# RFC 3986, appendix A.
_UNRESERVED: Final = r"A-Za-z0-9\-._~"
_DELIMITERS: Final = r"!$&'()*+,;="
_PCHAR: Final = rf"(?:[{_UNRESERVED}{_DELIMITERS}:@]|%[0-9A-Fa-f]{{2}})"
_NAME: Final = rf"(?:[{_UNRESERVED}{_DELIMITERS}]|%[0-9A-Fa-f]{{2}})"
_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+\-.]*"
_LITERAL: Final = rf"\[(?:(?P<six>[0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[{_UNRESERVED}{_DELIMITERS}:]+)\]"
_AUTHORITY: Final = rf"(?:(?:{_NAME}|:)*@)?(?:{_LITERAL}|{_NAME}*)(?::[0-9]*)?"
_PATH: Final = rf"/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?|{_PCHAR}+(?:/{_PCHAR}*)*|"
_URI: Final = re.compile(
    rf"{_SCHEME}:(?://{_AUTHORITY}(?:/{_PCHAR}*)*|{_PATH})(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
)
_DOMAIN: Final = re.compile(rf"(?:(?P<scheme>{_SCHEME})://)?(?P<domain>{_AUTHORITY})")
_STATEMENT: Final = re.compile(rf"[{_UNRESERVED}{_DELIMITERS}:/?#\[\]@ ]+")
_NONCE: Final = re.compile(r"[A-Za-z0-9]{8,}")
_REQUEST: Final = re.compile(rf"{_PCHAR}*")
_NUMBER: Final = re.compile(r"[0-9]{1,78}")
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


@dataclass(frozen=True, slots=True)
class SignIn:
    """A message of login. Times are texts as they were signed; `seconds` reads them."""

    domain: str
    address: Address
    uri: str
    chain_id: int
    nonce: str
    issued_at: str
    expiration_time: str | None = None
    not_before: str | None = None
    statement: str | None = None
    request_id: str | None = None
    resources: tuple[str, ...] | None = None
    scheme: str | None = None

    def text(self) -> str:
        """Return the message as a wallet shows and signs it."""
        scheme = "" if self.scheme is None else f"{self.scheme}://"
        statement = [] if self.statement is None else [self.statement]
        lines = [f"{scheme}{self.domain}{_ASKS}", checksum(self.address), "", *statement, ""]
        lines += [f"URI: {self.uri}", "Version: 1", f"Chain ID: {self.chain_id}", f"Nonce: {self.nonce}"]
        lines.append(f"Issued At: {self.issued_at}")
        for name, value in (
            ("Expiration Time", self.expiration_time),
            ("Not Before", self.not_before),
            ("Request ID", self.request_id),
        ):
            lines += [] if value is None else [f"{name}: {value}"]
        if self.resources is not None:
            lines += ["Resources:", *(f"- {uri}" for uri in self.resources)]
        return "\n".join(lines)

    @classmethod
    def parse(cls, text: str) -> SignIn:
        """Return the message that `text` is, to the last character; SignatureError says what is wrong."""
        if len(text) > MAX_MESSAGE:
            raise SignatureError(f"the message has {len(text)} characters, at most {MAX_MESSAGE} are read")
        left = text.split("\n")
        head = _take(left, "the domain").removesuffix(_ASKS)
        found = _DOMAIN.fullmatch(head)
        if not text.startswith(head + _ASKS + "\n") or found is None or not _is_authority(found):
            raise SignatureError(f"line 1: expected a domain (RFC 3986) and {_ASKS!r}, found {head[:80]!r}")
        address = _address(_take(left, "the address"))
        _empty(left)
        statement = _take(left, "URI") if left[:1] != [""] else None
        if statement is not None and not _STATEMENT.fullmatch(statement):
            raise SignatureError(f"statement: {statement[:80]!r} holds a character that EIP-4361 has not")
        _empty(left)
        uri = _uri(_field(left, "URI"), "URI")
        _matching(_field(left, "Version"), re.compile("1"), "Version", "1")
        chain_id = int(_matching(_field(left, "Chain ID"), _NUMBER, "Chain ID", "digits"))
        nonce = _matching(_field(left, "Nonce"), _NONCE, "Nonce", "8 or more letters and digits")
        issued = _field(left, "Issued At")
        expires, starts = _optional(left, "Expiration Time"), _optional(left, "Not Before")
        for time in (issued, expires, starts):
            seconds(issued if time is None else time)
        request = _optional(left, "Request ID")
        if request is not None:
            _matching(request, _REQUEST, "Request ID", "pchars (RFC 3986)")
        resources = tuple(_resources(left)) if left[:1] == ["Resources:"] else None
        if left:
            raise SignatureError(
                f"{left[0][:80]!r} stands where EIP-4361 has no such line, or has it earlier"
            )
        return cls(
            found["domain"], address, uri, chain_id, nonce, issued, expires, starts, statement, request,
            resources, found["scheme"],
        )  # fmt: skip


def personal_hash(text: str) -> Hash32:
    """Return what a wallet signs of a text: keccak256 of it behind EIP-191's version 0x45."""
    raw = text.encode()
    return Hash32("0x" + keccak256(b"\x19Ethereum Signed Message:\n%d" % len(raw) + raw).hex())


def seconds(time: str) -> int:
    """Return a date-time (RFC 3339) as Unix seconds, its fraction cut off; SignatureError when it is none."""
    found = _TIME.fullmatch(time)
    if found:
        year, month, day, hour, minute, second = map(int, found.groups()[:6])
        sign, hours, minutes = found[7], int(found[8] or 0), int(found[9] or 0)
        dated = year >= 1 and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]
        if dated and hour < 24 and minute < 60 and second < 60 and hours < 24 and minutes < 60:
            ahead = (hours * 3600 + minutes * 60) * (-1 if sign == "-" else 1)
            return timegm((year, month, day, hour, minute, second)) - ahead
    raise SignatureError(f"{time[:80]!r} is not a time such as 2027-01-31T12:00:00Z (RFC 3339)")


def authority_of(uri: str) -> str:
    """Return what stands between `//` and the path of a URI; empty where it has none."""
    found = re.match(rf"{_SCHEME}://({_AUTHORITY})(?=[/?#]|$)", uri)
    return found[1] if found else ""


def _take(left: list[str], expected: str) -> str:
    if not left:
        raise SignatureError(f"the message ends where {expected} should stand")
    return left.pop(0)


def _empty(left: list[str]) -> None:
    if (line := _take(left, "an empty line")) != "":
        raise SignatureError(f"expected an empty line, found {line[:80]!r}")


def _field(left: list[str], name: str) -> str:
    line = _take(left, name)
    if not line.startswith(f"{name}: "):
        raise SignatureError(f"expected `{name}: …`, found {line[:80]!r}")
    return line.removeprefix(f"{name}: ")


def _optional(left: list[str], name: str) -> str | None:
    return _field(left, name) if left and left[0].startswith(f"{name}: ") else None


def _matching(value: str, pattern: re.Pattern[str], name: str, expected: str) -> str:
    if not pattern.fullmatch(value):
        raise SignatureError(f"{name}: {value[:80]!r}, expected {expected}")
    return value


def _address(line: str) -> Address:
    address = parse_address(line, "address")
    if line != checksum(address):
        raise SignatureError(f"address: {line} is not in the mixed case of EIP-55, {checksum(address)}")
    return address


def _is_authority(found: re.Match[str]) -> bool:
    """Tell whether a match of _AUTHORITY names a host, and an IPv6 one has as many groups as it must."""
    six = found["six"]
    try:
        return bool(found["domain"]) and (six is None or bool(IPv6Address(six).packed))
    except AddressValueError:
        return False


def _uri(value: str, name: str) -> str:
    found = _URI.fullmatch(value)
    try:
        if found and (found["six"] is None or IPv6Address(found["six"]).packed):
            return value
    except AddressValueError:
        pass
    raise SignatureError(f"{name}: {value[:80]!r} is not a URI (RFC 3986)")


def _resources(left: list[str]) -> Iterator[str]:
    left.pop(0)
    while left and left[0].startswith("- "):
        yield _uri(left.pop(0).removeprefix("- "), "resource")
