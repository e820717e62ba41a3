"""The one hash of the chain, keccak-256, from the fastest plain implementation at hand: pycryptodome's C."""

from __future__ import annotations

from Crypto.Hash import keccak


def keccak256(data: bytes) -> bytes:
    """Hash `data` to 32 bytes as Ethereum does: Keccak before NIST changed its padding into SHA-3."""
    return keccak.new(digest_bits=256, data=data).digest()


class Keccak256:
    """The same hash of what comes in parts, such as a file."""

    def __init__(self) -> None:
        self._state = keccak.new(digest_bits=256)

    def update(self, part: bytes) -> None:
        """Add what comes next."""
        self._state.update(part)

    def digest(self) -> bytes:
        """Return the hash of all parts; nothing can be added after it."""
        digest: bytes = self._state.digest()
        return digest
