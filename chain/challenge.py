"""How a wrong root is proven wrong without a judge: the first fault of a tree, and the call that shows it; pure.

A tree is given by what its hashes are taken of, so that an honest one, a careless one and one whose nodes lie
are all written in the same way. What is found is what the distributor accepts (SPEC 6), and nothing else.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final, Self, TypeAlias

from chain.hashing import keccak256
from chain.messages import checksum
from chain.tree import PADDING, node_of, preimages
from chain.types import Address, Hash32, Leaf, Wei

MAX_DEPTH: Final = 32
"""The distributor takes no deeper tree."""
Show = Callable[[int], str]
"""How an amount is written for people, such as "12 DUSD"."""
_NOBODY: Final = bytes(32)
"""What a leaf of padding says: no account, no amount."""


@dataclass(frozen=True, slots=True)
class PostedTree:
    """A root on the chain, and what is known of the tree below it, whoever made it."""

    root: Hash32
    sum: Wei
    depth: int
    known: Mapping[bytes, bytes]
    """What each hash is the keccak256 of. Below a hash that is not in it nothing can be shown."""

    @classmethod
    def of(cls, root: Hash32, total: Wei, depth: int, leaves: Iterable[Leaf]) -> Self:
        """Return the posted tree of these leaves, in the order in which they were published.

        They are tried with the posted depth and with their own, because the posted one may be the lie. Leaves
        of another tree than the posted one leave it unknown.
        """
        listed = list(leaves)
        own = (len(listed) - 1).bit_length() if listed else 0
        found = [p for levels in {own, depth} for p in preimages(listed, levels)]
        return cls(root, total, depth, {keccak256(p): p for p in found})

    @classmethod
    def committed(cls, commitment: Hash32, total: Wei, depth: int, leaves: Iterable[Leaf]) -> Self | None:
        """Return the tree of these leaves if it is the one that stands on the chain as this commitment."""
        listed = list(leaves)
        *_, top = [b"", *preimages(listed, depth)]
        root = keccak256(top) if top else bytes(32)
        found = cls.of(Hash32("0x" + root.hex()), total, depth, listed)
        return found if found.commitment == commitment else None

    @property
    def commitment(self) -> Hash32:
        """What claims are checked against: keccak256(root ‖ uint96 sum)."""
        return Hash32("0x" + keccak256(_node(self)).hex())

    @property
    def is_known(self) -> bool:
        """Whether what the root is taken of is known; if not, its data is withheld, or another's."""
        root = bytes.fromhex(self.root[2:])
        return root in self.known or root in _EMPTY


@dataclass(frozen=True, slots=True)
class LeafProof:
    """A leaf and its way to the root: the contract's struct `Proof`; zero address and 0 for padding."""

    account: Address
    cumulative: Wei
    index: int
    path: bytes


@dataclass(frozen=True, slots=True)
class Decrease:
    """An account has less than in the active root."""

    function: ClassVar[str] = "challengeDecrease"
    before: LeafProof
    lowered: LeafProof

    def arguments(self) -> tuple[Any, ...]:
        """Return what the function takes."""
        return astuple(self.before), astuple(self.lowered)

    def sentence(self, show: Show = str) -> str:
        """Return the fault in words."""
        had, has = show(self.before.cumulative), show(self.lowered.cumulative)
        return f"{_who(self.before)} had {had} in the active root, {has} in the pending one"


@dataclass(frozen=True, slots=True)
class Missing:
    """An account of the active root is absent: two neighbours, or an edge, leave no place for it."""

    function: ClassVar[str] = "challengeMissing"
    before: LeafProof
    left: LeafProof
    """Not looked at where the gap is before the first leaf."""
    right: LeafProof
    """Its index is the gap; otherwise not looked at where the gap is after the last leaf of a full tree."""

    def arguments(self) -> tuple[Any, ...]:
        """Return what the function takes."""
        return astuple(self.before), astuple(self.left), astuple(self.right)

    def sentence(self, show: Show = str) -> str:
        """Return the fault in words."""
        had = show(self.before.cumulative)
        return f"{_who(self.before)} had {had} in the active root and is missing from the pending one"


@dataclass(frozen=True, slots=True)
class Disorder:
    """A leaf does not come after its left neighbour, or stands behind padding."""

    function: ClassVar[str] = "challengeOrder"
    left: LeafProof
    right: LeafProof

    def arguments(self) -> tuple[Any, ...]:
        """Return what the function takes."""
        return astuple(self.left), astuple(self.right)

    def sentence(self, show: Show = str) -> str:
        """Return the fault in words."""
        left, right = self.left, self.right
        if left.account == right.account:
            return (
                f"{_who(right)} stands in the pending root twice: with {show(left.cumulative)} as leaf {left.index}, "
                f"with {show(right.cumulative)} as leaf {right.index}"
            )
        behind = _who(left) if int(left.account, 16) else "padding"
        return (
            f"{_who(right)} stands in the pending root behind {behind}, as leaf {right.index}, out of order"
        )


@dataclass(frozen=True, slots=True)
class Malformed:
    """A node that no payout tree has: it counts as something else than what is below it, or is misplaced."""

    function: ClassVar[str] = "challengeMalformed"
    preimage: bytes
    """What the node's hash is taken of; nothing for padding."""
    sum: Wei
    """The node's sum by the node above it; at the root, the posted one."""
    index: int
    path: bytes

    def arguments(self) -> tuple[Any, ...]:
        """Return what the function takes."""
        return astuple(self)

    def sentence(self, show: Show = str) -> str:
        """Return the fault in words."""
        level, size, counts = len(self.path) // 44, len(self.preimage), f"counts as {show(self.sum)}"
        where = f"node {self.index}, {level} levels below the pending root," if level else "the pending root"
        if size == 88:
            below = _amount(self.preimage[32:44]) + _amount(self.preimage[76:])
            if below != self.sum:
                return f"{where} {counts}, but what is below it adds up to {show(below)}"
            return f"{where} stands where leaves belong"
        if size == 32 and not any(self.preimage[:20]):
            return f"{where} is a leaf of the zero address, which nobody can claim for"
        if size in {0, 32}:
            holds = _amount(self.preimage[20:])
            what = f"the leaf of {checksum(_account(self.preimage))}" if size else "padding"
            if holds != self.sum:
                return f"{where} is {what}, with {show(holds)}, but {counts}"
            return f"{where} is {what}, which belongs at the bottom"
        return f"{where} is neither a node nor a leaf: its hash is that of {size} bytes"


Fault: TypeAlias = Decrease | Missing | Disorder | Malformed


def find_fault(active: PostedTree, pending: PostedTree) -> Fault | None:
    """Return the first fault that the distributor can be shown.

    None where there is none in what is known: a tree that is as it should be, or one that is withheld.
    """
    after = _Walk(pending)
    return after.malformed or _disorder(after) or _loss(_Walk(active), after)


class _Walk:
    """All nodes of a tree that can be shown: those under well-formed ones only, without the padding."""

    def __init__(self, tree: PostedTree) -> None:
        self.depth = tree.depth
        self.levels: list[dict[int, bytes]] = [{} for _ in range(tree.depth + 1)]
        """From the root down: nodes of 44 bytes by their place, ascending."""
        self.opened: list[dict[int, bytes]] = [{} for _ in range(tree.depth + 1)]
        """What their hashes are taken of, where it is known and well-formed."""
        self.malformed: Malformed | None = None
        self._put(0, 0, _node(tree))
        for level, nodes in enumerate(self.levels):
            for index, node in nodes.items():
                # Padding of another height is the same on both sides: followed down both, it would double at each level.
                if not (index & 1 and node[:32] in _EMPTY and nodes.get(index - 1) == node):
                    self._open(level, index, node, tree.known)

    def _put(self, level: int, index: int, node: bytes) -> None:
        if node != _PADDINGS[self.depth - level]:
            self.levels[level][index] = node

    def _open(self, level: int, index: int, node: bytes, known: Mapping[bytes, bytes]) -> None:
        preimage = known.get(node[:32], _EMPTY.get(node[:32]))
        if preimage is None:
            return
        at_bottom = level == self.depth
        if not _is_well_formed(preimage, _amount(node[32:]), at_bottom=at_bottom):
            if self.malformed is None:
                total, path = Wei(_amount(node[32:])), self.path(level, index)
                self.malformed = Malformed(preimage, total, index, path)
            return
        self.opened[level][index] = preimage
        if not at_bottom:
            self._put(level + 1, 2 * index, preimage[:44])
            self._put(level + 1, 2 * index + 1, preimage[44:])

    def path(self, level: int, index: int) -> bytes:
        """Return the siblings from a node to the root, all of which are known once its parent is."""
        found = []
        for height in range(self.depth - level, self.depth):
            found.append(self.levels[self.depth - height].get(index ^ 1, _PADDINGS[height]))
            index >>= 1
        return b"".join(found)

    def leaves(self) -> Iterator[tuple[int, bytes]]:
        """Yield place and content (account and amount, 32 bytes) of every leaf that can be shown."""
        yield from self.opened[self.depth].items()

    def content(self, index: int) -> bytes | None:
        """Return what the leaf at a place says, _NOBODY for padding; None where it cannot be shown."""
        for level in range(self.depth, -1, -1):
            place = index >> (self.depth - level)
            if place in self.levels[level]:
                opened = self.opened[level].get(place)
                return opened if opened is None or level == self.depth else _NOBODY
        return _NOBODY

    def proof(self, index: int) -> LeafProof:
        """Return the proof of a leaf, or padding, that can be shown; beyond the last place one of nothing."""
        if not 0 <= index < 1 << self.depth:
            return LeafProof(_account(_NOBODY), Wei(0), max(index, 0), b"")
        content = self.content(index) or _NOBODY
        return LeafProof(_account(content), Wei(_amount(content[20:])), index, self.path(self.depth, index))


def _disorder(after: _Walk) -> Disorder | None:
    """Return the first leaf whose left neighbour should not stand before it."""
    for index, content in after.leaves():
        left = after.content(index - 1) if index else None
        if left is not None and (left == _NOBODY or left[:20] >= content[:20]):
            return Disorder(after.proof(index - 1), after.proof(index))
    return None


def _loss(before: _Walk, after: _Walk) -> Decrease | Missing | None:
    """Return the first account of the active root that has less, or is missing, in a pending one that is in order."""
    there = sorted((content[:20], index) for index, content in after.leaves())
    for index, content in before.leaves():
        at = bisect_left(there, (content[:20], 0))
        if at < len(there) and there[at][0] == content[:20]:
            place = there[at][1]
            if _amount((after.content(place) or content)[20:]) < _amount(content[20:]):
                return Decrease(before.proof(index), after.proof(place))
            continue
        left = there[at - 1][1] if at else -1
        right = there[at][1] if at < len(there) else left + 1
        # What cannot be shown may lie between the two, or after the last.
        closed = at < len(there) or right == 1 << after.depth or after.content(right) == _NOBODY
        if right == left + 1 and closed:
            return Missing(before.proof(index), after.proof(left), after.proof(right))
    return None


def _is_well_formed(preimage: bytes, total: int, *, at_bottom: bool) -> bool:
    """Return whether a payout tree can have this node, by the rules of the distributor."""
    if not preimage:
        return at_bottom and total == 0
    if len(preimage) == 32:
        return at_bottom and any(preimage[:20]) and _amount(preimage[20:]) == total
    sums = _amount(preimage[32:44]) + _amount(preimage[76:])
    return len(preimage) == 88 and not at_bottom and sums == total


def _node(tree: PostedTree) -> bytes:
    return bytes.fromhex(tree.root[2:]) + tree.sum.to_bytes(12, "big")


def _paddings() -> Iterator[bytes]:
    node = PADDING
    for _ in range(MAX_DEPTH + 1):
        yield node
        node = node_of(node + node)


_PADDINGS: Final = tuple(_paddings())
"""The node of nothing but padding, by its height above the leaves."""
_EMPTY: Final = {node[:32]: below + below for below, node in pairwise((b"", *_PADDINGS))}
"""What the hashes of those are taken of, which everybody knows."""


def _who(leaf: LeafProof) -> str:
    return checksum(leaf.account)


def _account(content: bytes) -> Address:
    return Address("0x" + content[:20].hex())


def _amount(data: bytes) -> int:
    return int.from_bytes(data, "big")
