"""Payout trees as operators may post them: honest growth, and every way of breaking it, for the tests of challenges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TypeAlias

from chain.challenge import Decrease, Disorder, Fault, Malformed, Missing, PostedTree
from chain.hashing import keccak256
from chain.tree import PADDING, SumTree
from chain.types import Address, Hash32, Leaf, Wei

Book: TypeAlias = Mapping[int, int]
"""Cumulative amounts by account, as numbers."""
UINT96 = 1 << 96
THIEF = (1 << 160) - 7
"""Gets what is taken from others, so that the total of a broken root is one that can be posted."""
NOBODY = Leaf(Address("0x" + 40 * "0"), Wei(0))
"""Padding."""


def leaf(account: int, amount: int) -> Leaf:
    return Leaf(Address(f"0x{account:040x}"), Wei(amount))


def listed(book: Book) -> list[Leaf]:
    return [leaf(a, v) for a, v in sorted(book.items())]


def honest(book: Book) -> PostedTree:
    """Return the tree that the pipeline itself would post."""
    built = SumTree.build(listed(book))
    return PostedTree.of(built.root_hash, Wei(built.sum), built.depth, listed(book))


def grown(luck: Random, size: int, *, more: int = 3) -> tuple[dict[int, int], dict[int, int]]:
    """Return what `size` accounts had in the active root, and what they and some others have in the next."""
    near = luck.random() < 0.5
    accounts = luck.sample(range(1, 4 * (size + more)), size + more)
    if not near:
        accounts = [a << 140 | luck.getrandbits(140) for a in accounts]
    before = {a: luck.choice([1, 2, luck.getrandbits(40) + 1]) for a in accounts[:size]}
    after = {a: v + luck.choice([0, 0, luck.randrange(9)]) for a, v in before.items()}
    return before, after | {a: luck.randrange(1, 9) for a in accounts[size : size + luck.randint(0, more)]}


Lies: TypeAlias = Mapping[tuple[int, int], tuple[bytes | None, int]]
"""By (levels above the bottom, place): what a node's hash is taken of, None for the right one, and what is added to
its sum."""


def forge(leaves: Sequence[Leaf], lies: Lies, depth: int | None = None) -> PostedTree:
    """Return a tree whose nodes say what they should, but for the lies; those above go by what those below say."""
    levels = ((len(leaves) - 1).bit_length() if leaves else 0) if depth is None else depth
    known: dict[bytes, bytes] = {}

    def node(height: int, index: int) -> bytes:
        if height == 0:
            mine = leaves[index] if index < len(leaves) else NOBODY
            amount = mine.cumulative
            preimage = b"" if mine == NOBODY else bytes.fromhex(mine.account[2:]) + amount.to_bytes(12, "big")
        else:
            preimage = node(height - 1, 2 * index) + node(height - 1, 2 * index + 1)
            amount = Wei(sum(int.from_bytes(preimage[at : at + 12], "big") for at in (32, 76)))
        other, more = lies.get((height, index), (None, 0))
        said = preimage if other is None else other
        digest = keccak256(said) if said else bytes(32)
        if said:
            known[digest] = said
        return digest + ((amount + more) % UINT96).to_bytes(12, "big")

    root = node(levels, 0)
    return PostedTree(Hash32("0x" + root[:32].hex()), Wei(int.from_bytes(root[32:], "big")), levels, known)


def _posted(leaves: Sequence[Leaf]) -> PostedTree:
    made = forge(leaves, {})
    return PostedTree.of(made.root, made.sum, made.depth, leaves)


def dropped(luck: Random, before: Book, after: Book) -> PostedTree:
    gone = luck.choice(sorted(before))
    rest = {a: v for a, v in after.items() if a != gone}
    return _posted(listed(rest | {THIEF: after[gone]}))


def dropped_without_heirs(luck: Random, before: Book, after: Book) -> PostedTree:
    """Drop an account, and give what it had to its neighbours, or to nobody where it was alone."""
    gone = luck.choice(sorted(before))
    rest = {a: v for a, v in after.items() if a != gone}
    if rest:
        rest[luck.choice(sorted(rest))] += after[gone]
    return _posted(listed(rest))


def lowered(luck: Random, before: Book, after: Book) -> PostedTree:
    one = luck.choice(sorted(before))
    less = luck.randrange(before[one])
    return _posted(listed({**after, one: less, THIEF: after[one] - less}))


def duplicated(luck: Random, _: Book, after: Book) -> PostedTree:
    leaves = listed(after)
    place = luck.randrange(len(leaves))
    again = leaf(int(leaves[place].account, 16), luck.choice([leaves[place].cumulative, 5]))
    at = luck.choice([place + 1, luck.randint(0, len(leaves))])
    return _posted([*leaves[:at], again, *leaves[at:]])


def swapped(luck: Random, _: Book, after: Book) -> PostedTree:
    leaves = listed({**after, THIEF: 1})
    a, b = luck.sample(range(len(leaves)), 2)
    leaves[a], leaves[b] = leaves[b], leaves[a]
    return _posted(leaves)


def gapped(luck: Random, _: Book, after: Book) -> PostedTree:
    leaves = listed(after)
    at = luck.randrange(len(leaves))
    return _posted([*leaves[:at], *[NOBODY] * luck.randint(1, 3), *leaves[at:]])


def _somewhere(luck: Random, leaves: Sequence[Leaf], lowest: int) -> tuple[int, int]:
    """Return (levels above the bottom, place) of a node."""
    depth = (len(leaves) - 1).bit_length()
    height = luck.randint(min(lowest, depth), depth)
    return height, luck.randrange(1 << (depth - height))


def leaf_that_lies(luck: Random, _: Book, after: Book) -> PostedTree:
    leaves = listed(after)
    return forge(leaves, {(0, luck.randrange(len(leaves))): (None, luck.randint(1, 9))})


def node_that_lies(luck: Random, _: Book, after: Book) -> PostedTree:
    leaves = listed(after)
    return forge(leaves, {_somewhere(luck, leaves, 1): (None, luck.randint(1, 9))})


def nodes_that_lie(luck: Random, _: Book, after: Book) -> PostedTree:
    """Let several nodes lie, which may make up for each other."""
    leaves = listed(after)
    return forge(
        leaves, {_somewhere(luck, leaves, 0): (None, luck.choice([1, 1, UINT96 - 1])) for _ in range(3)}
    )


def padding_that_lies(luck: Random, _: Book, after: Book) -> PostedTree:
    leaves = [*listed(after), NOBODY]
    height, last = luck.randint(0, (len(leaves) - 1).bit_length() - 1), len(leaves) - 1
    return forge(leaves, {(height, last >> height): (None, luck.randint(1, 9))})


def total_that_lies(luck: Random, _: Book, after: Book) -> PostedTree:
    made = honest(after)
    return PostedTree.of(made.root, Wei(made.sum + luck.choice([1, 10**9])), made.depth, listed(after))


def overflowing(luck: Random, _: Book, after: Book) -> PostedTree:
    """Add two amounts that come to 2**96, so that sums that wrap show nothing of them."""
    much = luck.randrange(1, UINT96)
    return _posted(listed({**after, THIEF: much, THIEF + 1: UINT96 - much}))


def too_deep(luck: Random, _: Book, after: Book) -> PostedTree:
    made = honest(after)
    return PostedTree.of(
        made.root, made.sum, made.depth + luck.choice([1, 2, 32 - made.depth]), listed(after)
    )


def too_flat(luck: Random, _: Book, after: Book) -> PostedTree:
    made = honest({**after, THIEF: 1})
    return PostedTree.of(made.root, made.sum, luck.randrange(made.depth), listed({**after, THIEF: 1}))


def with_a_leaf_of_nobody(luck: Random, _: Book, after: Book) -> PostedTree:
    """Put the hash of 32 zero bytes where a leaf stands: no proof of a leaf can name it."""
    leaves = listed(after)
    place = luck.randrange(len(leaves))
    amount = leaves[place].cumulative
    return forge([*leaves, leaf(THIEF, amount)], {(0, place): (bytes(32), -amount)})


def with_the_zero_address(luck: Random, _: Book, after: Book) -> PostedTree:
    return _posted(listed({**after, 0: luck.randint(1, 9)}))


def with_something_strange(luck: Random, _: Book, after: Book) -> PostedTree:
    leaves = listed(after)
    strange = bytes([luck.randrange(256)] * luck.choice([1, 20, 31, 33, 44, 64, 87, 89]))
    return forge(leaves, {_somewhere(luck, leaves, 0): (strange, 0)})


def with_a_leaf_above_leaves(luck: Random, _: Book, after: Book) -> PostedTree:
    """Put a leaf, with everything below it as its amount, or padding where there is nothing, above the bottom."""
    leaves = listed({**after, THIEF: 1})
    height, place = _somewhere(luck, leaves, 1)
    below = sum(x.cumulative for x in leaves[place << height : (place + 1) << height])
    content = bytes.fromhex(leaves[0].account[2:]) + below.to_bytes(12, "big")
    return forge(leaves, {(height, place): (content if below else b"", 0)})


def with_a_node_among_leaves(luck: Random, _: Book, after: Book) -> PostedTree:
    leaves = listed(after)
    place = luck.randrange(len(leaves))
    inner = bytes(32) + leaves[place].cumulative.to_bytes(12, "big") + PADDING
    return forge(leaves, {(0, place): (inner, 0)})


Break: TypeAlias = Callable[[Random, Book, Book], PostedTree]
BREAKS: Mapping[Break, type[Fault]] = {
    dropped: Missing, dropped_without_heirs: Missing, lowered: Decrease,
    duplicated: Disorder, swapped: Disorder, gapped: Disorder,
    leaf_that_lies: Malformed, node_that_lies: Malformed, nodes_that_lie: Malformed, padding_that_lies: Malformed,
    total_that_lies: Malformed, overflowing: Malformed, too_deep: Malformed, too_flat: Malformed,
    with_a_leaf_of_nobody: Malformed, with_the_zero_address: Malformed, with_something_strange: Malformed,
    with_a_leaf_above_leaves: Malformed, with_a_node_among_leaves: Malformed,
}  # fmt: skip
"""What an operator can do to the next root, and what the distributor can then be shown."""
