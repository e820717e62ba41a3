"""The ledger root: OpenZeppelin's StandardMerkleTree over `(bytes32 digest, address wallet)`, node for node.

Anyone can check a proof with OpenZeppelin's library or contract. Leaves are keccak256 twice of the ABI
encoding, so that no inner node can pass for one; they stand sorted by hash, and a parent hashes its
children sorted. Source: github.com/OpenZeppelin/merkle-tree, `src/core.ts` and `src/standard.ts`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from chain.errors import BundleError
from chain.hashing import keccak256
from chain.types import ZERO_HASH, Address, Hash32

EMPTY_ROOT: Final = ZERO_HASH
"""Root of a ledger without entries, which OpenZeppelin leaves undefined; nothing can be proven under it."""


class LedgerTree:
    """The tree over entries in any order, repeats counted once; kept, so that many proofs cost one tree."""

    def __init__(self, entries: Iterable[tuple[Hash32, Address]]) -> None:
        self._wallets = _by_digest(entries)
        self._hashes = sorted(_leaf(digest, wallet) for digest, wallet in self._wallets.items())
        self._tree = _tree(self._hashes)

    @property
    def root(self) -> Hash32:
        """The root; EMPTY_ROOT where there are no entries."""
        return _hex(self._tree[0]) if self._tree else EMPTY_ROOT

    def proof(self, digest: Hash32) -> tuple[Hash32, ...]:
        """Return the siblings from the digest's leaf up to the root; BundleError when the digest has no entry."""
        if digest not in self._wallets:
            raise BundleError(f"{digest} is not in the ledger of {len(self._wallets)} rankings")
        place = len(self._tree) - 1 - bisect_left(self._hashes, _leaf(digest, self._wallets[digest]))
        proof = []
        while place > 0:
            proof.append(_hex(self._tree[place - 1 if place % 2 == 0 else place + 1]))
            place = (place - 1) // 2
        return tuple(proof)


def ledger_root(entries: Iterable[tuple[Hash32, Address]]) -> Hash32:
    """Return the root over entries in any order, repeats counted once; EMPTY_ROOT when there are none."""
    return LedgerTree(entries).root


def verify_ledger_proof(root: Hash32, digest: Hash32, wallet: Address, proof: Sequence[Hash32]) -> bool:
    """Return whether the proof leads from the entry to the root, as OpenZeppelin's MerkleProof.sol finds.

    Never raises: what is malformed proves nothing.
    """
    try:
        node, siblings = _leaf(digest, wallet), [bytes.fromhex(s[2:]) for s in proof]
    except ValueError:
        return False
    for sibling in siblings:
        node = _parent(node, sibling)
    return _hex(node) == root


def _by_digest(entries: Iterable[tuple[Hash32, Address]]) -> dict[Hash32, Address]:
    """Return the wallet of each digest, in order of digests; BundleError when two wallets share one."""
    wallets: dict[Hash32, Address] = {}
    for digest, wallet in sorted(entries):
        if wallets.setdefault(digest, wallet) != wallet:
            raise BundleError(
                f"digest {digest} is of {wallets[digest]} and of {wallet}: a digest names one wallet"
            )
    return wallets


def _leaf(digest: Hash32, wallet: Address) -> bytes:
    """Return keccak256 twice of the ABI encoding: both values as 32 bytes, the address padded on the left."""
    return keccak256(keccak256(bytes.fromhex(digest[2:]) + bytes(12) + bytes.fromhex(wallet[2:])))


def _parent(a: bytes, b: bytes) -> bytes:
    return keccak256(min(a, b) + max(a, b))


def _tree(hashes: Sequence[bytes]) -> list[bytes]:
    """Return the binary tree as an array: root at 0, children of i at 2i + 1 and 2i + 2, first leaf last."""
    tree = [bytes(32)] * (len(hashes) - 1) + list(reversed(hashes))
    for i in range(len(hashes) - 2, -1, -1):
        tree[i] = _parent(tree[2 * i + 1], tree[2 * i + 2])
    return tree


def _hex(data: bytes) -> Hash32:
    return Hash32("0x" + data.hex())
