"""Where a request comes from: its address, and whether TLS carried it; a proxy's word counts where it is trusted."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NOWHERE: Final = "nowhere"
"""The address of a client that has none, such as one on a Unix socket."""


def read_networks(text: str) -> tuple[Network, ...]:
    """Return addresses and networks that stand in a setting, separated by commas or spaces."""
    return tuple(ipaddress.ip_network(part) for part in text.replace(",", " ").split())


class Origins:
    """Says of each request where it comes from."""

    def __init__(self, trusted: Iterable[Network]) -> None:
        self._trusted = tuple(trusted)
        self._trusts = lru_cache(4096)(self._is_trusted)

    def of(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> tuple[str, bool]:
        """Return the address that a request is counted under, and whether it came by TLS."""
        client = scope.get("client")
        peer: str = client[0] if client else NOWHERE
        if not self._trusted or not self._trusts(peer):
            return group(peer), scope.get("scheme") == "https"
        secure = headers.get(b"x-forwarded-proto", b"").split(b",")[-1].strip() == b"https"
        for hop in reversed(headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
            address = _bare(hop.strip())
            if _parsed(address) is None:
                break
            peer = address
            if not self._trusts(peer):
                break
        return group(peer), secure

    def _is_trusted(self, text: str) -> bool:
        address = _parsed(text)
        return address is not None and any(
            address in n for n in self._trusted if n.version == address.version
        )


@lru_cache(4096)
def group(text: str) -> str:
    """Return what an address is counted under: an IPv4 address itself, the /64 of an IPv6 address.

    Whoever has one IPv6 address has 2^64 of them.
    """
    address = _parsed(text)
    if address is None:
        return text[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64)) + "/64"


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _bare(hop: str) -> str:
    """Return an address without its port, as some proxies write it."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
