"""The payout tree: a Merkle sum tree of cumulative payouts; a claim also proves its part of the total.

A node is 44 bytes, hash ‖ uint96 sum, big-endian; so a parent hashes two nodes as they stand, and the
commitment hashes the root node. Preimages of 32, 88 and 44 bytes keep leaves, nodes and commitments apart
(SPEC 5).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from chain.errors import PayoutError
from chain.hashing import keccak256
from chain.types import Address, Hash32, Leaf, Wei

PADDING: Final = bytes(44)
"""The node of a leaf of nobody: hash 0, sum 0."""
MAX_BLOCK_LEVEL: Final = 16
"""The contract takes blocks of at most 2**16 leaves."""
_UINT96: Final = 1 << 96


@dataclass(frozen=True, slots=True)
class Proof:
    """The way from a leaf to the root."""

    index: int
    """Place of the leaf; bit i is 1 when our node is the right child at level i."""
    nodes: tuple[tuple[Hash32, int], ...]
    """(hash, sum) of the sibling at each level, leaf first."""

    @property
    def path(self) -> bytes:
        """The siblings as the contract takes them: 44 bytes each, leaf first."""
        return b"".join(_bytes(digest, 32) + amount.to_bytes(12, "big") for digest, amount in self.nodes)


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbours that one proof is enough for: the leaves below one node, and the way from it to the root."""

    leaves: tuple[Leaf, ...]
    """2**level of them, without the padding at their right."""
    level: int
    """Levels between the leaves and the node."""
    index: int
    """Place of the node among those of its level."""
    path: bytes
    """The siblings from the node to the root, 44 bytes each."""


@dataclass(frozen=True, slots=True)
class SumTree:
    """The tree over leaves in ascending order, of the smallest depth that fits.

    One leaf has depth 0: it is the root. So has none: the root is a padding leaf, hash 0 and sum 0.
    """

    accounts: tuple[bytes, ...]
    levels: tuple[list[bytes], ...]
    """Nodes of 44 bytes, leaves first, each level without the padding at its right; the last is the root."""
    paddings: tuple[bytes, ...]
    """The node of nothing but padding at each level."""

    @classmethod
    def build(cls, leaves: Sequence[Leaf]) -> Self:
        """Build the tree; PayoutError names a leaf that is malformed, out of order or beyond uint96."""
        level = _leaf_nodes(leaves)
        levels, paddings = [level], [PADDING]
        for _ in range((len(leaves) - 1).bit_length() if leaves else 0):
            level = _parents(level, paddings[-1])
            levels.append(level)
            paddings.append(_parent(paddings[-1], paddings[-1]))
        return cls(tuple(bytes.fromhex(x.account[2:]) for x in leaves), tuple(levels), tuple(paddings))

    @property
    def depth(self) -> int:
        """Levels above the leaves."""
        return len(self.levels) - 1

    @property
    def _root(self) -> bytes:
        return self.levels[-1][0] if self.accounts else PADDING

    @property
    def sum(self) -> int:
        """Sum of all cumulative payouts."""
        return _sum(self._root)

    @property
    def root_hash(self) -> Hash32:
        """Hash of the root node, before its sum is bound to it."""
        return _hex(self._root[:32])

    @property
    def commitment(self) -> Hash32:
        """What the contract stores: keccak256(rootHash ‖ uint96 rootSum)."""
        return _hex(keccak256(self._root))

    def proof(self, account: Address) -> Proof:
        """Return the proof of an account's leaf; PayoutError when it has none."""
        key = bytes.fromhex(account[2:])
        index = bisect_left(self.accounts, key)
        if self.accounts[index : index + 1] != (key,):
            raise PayoutError(f"{account} has no leaf: it was never paid")
        return Proof(index, tuple((_hex(node[:32]), _sum(node)) for node in self._siblings(index, 0)))

    def block(self, level: int, index: int) -> Block:
        """Return the block number `index` of 2**level leaves; PayoutError where the tree has no such block."""
        top = min(self.depth, MAX_BLOCK_LEVEL)
        if not 0 <= level <= top or not 0 <= index << level < len(self.accounts):
            raise PayoutError(
                f"block {index} of 2**{level} leaves: this tree has {len(self.accounts)} leaves, and levels 0 to {top}"
            )
        within = slice(index << level, (index + 1) << level)
        leaves = (
            Leaf(Address("0x" + account.hex()), Wei(_sum(node)))
            for account, node in zip(self.accounts[within], self.levels[0][within], strict=True)
        )
        return Block(tuple(leaves), level, index, b"".join(self._siblings(index, level)))

    def _siblings(self, index: int, level: int) -> list[bytes]:
        """Return the siblings on the way up from node `index` of a level."""
        found = []
        for height in range(level, self.depth):
            place, nodes = (index >> (height - level)) ^ 1, self.levels[height]
            found.append(nodes[place] if place < len(nodes) else self.paddings[height])
        return found


def commitment_of(root: Hash32, total: int) -> Hash32:
    """Return what the contract stores of a root and its sum, and holds claims against: keccak256(root ‖ uint96 sum)."""
    return _hex(keccak256(_bytes(root, 32) + total.to_bytes(12, "big")))


def preimages(leaves: Iterable[Leaf], depth: int) -> list[bytes]:
    """Return what the hashes of a tree are taken of: 32 bytes a leaf, 88 a node; lowest first, the root's last.

    The tree need not be one that `build` would make, for it may be a dishonest operator's: leaves stand as they
    are given, one of the zero address with nothing is padding, and sums wrap at 96 bits.
    """
    words = [_bytes(leaf.account, 20) + leaf.cumulative.to_bytes(12, "big") for leaf in leaves]
    found = [word for word in words if any(word)]
    level = [keccak256(word) + word[20:] if any(word) else PADDING for word in words] or [PADDING]
    padding = PADDING
    for _ in range(depth):
        level += [padding] * (len(level) % 2)
        pairs = [left + right for left, right in zip(level[::2], level[1::2], strict=True)]
        found += pairs
        level, padding = [node_of(pair) for pair in pairs], node_of(padding + padding)
    return found


def node_of(pair: bytes) -> bytes:
    """Return the node above two, 44 bytes each; its sum wraps at 96 bits, as an honest one never does."""
    total = int.from_bytes(pair[32:44], "big") + int.from_bytes(pair[76:], "big")
    return keccak256(pair) + (total % _UINT96).to_bytes(12, "big")


def verify_proof(
    commitment: Hash32, account: Address, cumulative: int, index: int, nodes: Sequence[tuple[Hash32, int]]
) -> bool:
    """Return whether `nodes` prove the leaf at `index` under the commitment, as the contract would find.

    Never raises: what is malformed proves nothing. The depth is the number of nodes; the contract
    compares it.
    """
    if index < 0 or index >> len(nodes):
        return False
    try:
        node = _leaf_node(account, cumulative)
        for height, (digest, amount) in enumerate(nodes):
            sibling = _bytes(digest, 32) + amount.to_bytes(12, "big")
            node = _parent(sibling, node) if index >> height & 1 else _parent(node, sibling)
    except (ValueError, OverflowError):
        return False
    return _hex(keccak256(node)) == commitment


def _hex(data: bytes) -> Hash32:
    return Hash32("0x" + data.hex())


def _bytes(text: str, size: int) -> bytes:
    """Parse canonical lowercase 0x-hex of `size` bytes, or raise ValueError."""
    data = bytes.fromhex(text[2:])
    if "0x" + data.hex() != text or len(data) != size:
        raise ValueError(f"{text!r} is not lowercase 0x-hex of {size} bytes")
    return data


def _sum(node: bytes) -> int:
    return int.from_bytes(node[32:], "big")


def _leaf_node(account: Address, cumulative: int) -> bytes:
    """Return keccak256(address ‖ uint96) ‖ uint96; ValueError or OverflowError for what does not fit."""
    amount = cumulative.to_bytes(12, "big")
    return keccak256(_bytes(account, 20) + amount) + amount


def _parent(left: bytes, right: bytes) -> bytes:
    """Return the node above two; OverflowError when its sum is beyond uint96."""
    return keccak256(left + right) + (_sum(left) + _sum(right)).to_bytes(12, "big")


def _parents(level: list[bytes], padding: bytes) -> list[bytes]:
    """Return the level above; an odd node at the end gets padding for a sibling."""
    whole = level if len(level) % 2 == 0 else [*level, padding]
    return [_parent(left, right) for left, right in zip(whole[::2], whole[1::2], strict=True)]


def _leaf_nodes(leaves: Sequence[Leaf]) -> list[bytes]:
    """Return the nodes of the leaves, after checking their form, their order and their sum."""
    nodes, last, total = [], "", 0
    for place, leaf in enumerate(leaves):
        total += leaf.cumulative
        try:
            nodes.append(_leaf_node(leaf.account, leaf.cumulative))
            total.to_bytes(12, "big")
        except (ValueError, OverflowError) as error:
            raise PayoutError(f"leaf {place}, {leaf}, with {total} so far: {error}") from error
        if not int(leaf.account, 16):
            raise PayoutError(f"leaf {place}, {leaf}, is of the zero address, which nobody can claim for")
        if leaf.account <= last:
            raise PayoutError(
                f"leaf {place}, {leaf}, is not above {last}: sort leaves and give each account one"
            )
        last = leaf.account
    return nodes
