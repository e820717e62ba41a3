"""The one hash of the chain, keccak-256, from the fastest plain implementation at hand: pycryptodome's C."""

from __future__ import annotations

from Crypto.Hash import keccak


def keccak256(data: bytes) -> bytes:
    """Hash `data` to 32 bytes as Ethereum does: Keccak before NIST changed its padding into SHA-3."""
    return keccak.new(digest_bits=256, data=data).digest()
