"""The one hash of the chain, keccak-256, in C (safe-pysha3: four times as fast as pycryptodome on short input)."""

from __future__ import annotations

from sha3 import keccak_256


def keccak256(data: bytes) -> bytes:
    """Hash `data` to 32 bytes as Ethereum does: Keccak before NIST changed its padding into SHA-3."""
    digest: bytes = keccak_256(data).digest()
    return digest


class Keccak256:
    """The same hash of what comes in parts, such as a file."""

    def __init__(self) -> None:
        self._state = keccak_256()

    def update(self, part: bytes) -> None:
        """Add what comes next."""
        self._state.update(part)

    def digest(self) -> bytes:
        """Return the hash of all parts."""
        digest: bytes = self._state.digest()
        return digest
