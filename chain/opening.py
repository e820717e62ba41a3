"""What an operator commits to on the chain before an epoch's first task (SPEC 1); pure."""

from __future__ import annotations

from dataclasses import dataclass

from chain.hashing import keccak256
from chain.types import Hash32, Ratio


@dataclass(frozen=True, slots=True)
class Opening:
    """The hashes of an epoch's secrets, its rules and its price of stake; the contract's struct of that name."""

    seed_hash: Hash32
    """keccak256 of the secret seed."""
    gold_root: Hash32
    """Merkle root of the salted gold answers."""
    rules_hash: Hash32
    lam: Ratio
    """Wei of stake per unit of proven surplus."""

    def arguments(self) -> tuple[Hash32, Hash32, Hash32, int, int]:
        """Return the fields in the order of the contract's struct."""
        return self.seed_hash, self.gold_root, self.rules_hash, self.lam.num, self.lam.den

    def hash(self) -> Hash32:
        """Return what the EpochLedger keeps: keccak256 of the ABI encoding, which is five words."""
        hashes = b"".join(bytes.fromhex(h[2:]) for h in (self.seed_hash, self.gold_root, self.rules_hash))
        ratio = self.lam.num.to_bytes(32, "big") + self.lam.den.to_bytes(32, "big")
        return Hash32("0x" + keccak256(hashes + ratio).hex())
