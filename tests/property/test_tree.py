"""Laws of the payout tree: what is in it can be proven, nothing else can, and its sums add up."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from eth_hash.auto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.errors import PayoutError
from chain.hashing import keccak256
from chain.tree import SumTree, verify_proof
from chain.types import Address, Hash32, Leaf, Wei

UINT96_MAX = 2**96 - 1
LEAVES = [Leaf(Address(f"0x{i:02x}" + 38 * "e"), Wei(v)) for i, v in ((1, 7), (9, 5 * 10**18), (0xA0, 1))]

amounts = (st.integers(0, 3) | st.integers(0, 2**90)).map(Wei)
books = st.dictionaries(st.integers(1, 2**160 - 1) | st.integers(1, 20), amounts, min_size=1, max_size=9)
leaf_lists = books.map(lambda book: [Leaf(Address(f"0x{i:040x}"), v) for i, v in sorted(book.items())])


def uint96(value: int) -> bytes:
    return value.to_bytes(12, "big")


def leaf_of(leaf: Leaf) -> bytes:
    return keccak(bytes.fromhex(leaf.account[2:]) + uint96(leaf.cumulative))


def reference(leaves: Sequence[Leaf | None]) -> tuple[bytes, int]:
    """Return (hash, sum) of the node over a power of two of leaves, top down, as the protocol words it."""
    if len(leaves) == 1:
        leaf = leaves[0]
        return (leaf_of(leaf), leaf.cumulative) if leaf else (bytes(32), 0)
    half = len(leaves) // 2
    (left, a), (right, b) = reference(leaves[:half]), reference(leaves[half:])
    return keccak(left + uint96(a) + right + uint96(b)), a + b


def committed(digest: bytes, total: int) -> str:
    return "0x" + keccak(digest + uint96(total)).hex()


def test_the_hash_is_the_keccak_of_ethereum_and_not_sha3() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


def test_a_tree_of_one_leaf_is_the_leaf() -> None:
    tree = SumTree.build(LEAVES[:1])
    assert (tree.depth, tree.sum, tree.root_hash) == (0, 7, "0x" + leaf_of(LEAVES[0]).hex())
    assert tree.commitment == committed(leaf_of(LEAVES[0]), 7)
    assert tree.proof(LEAVES[0].account).nodes == ()


def test_a_tree_of_two_leaves_hashes_88_bytes() -> None:
    tree = SumTree.build(LEAVES[:2])
    packed = leaf_of(LEAVES[0]) + uint96(7) + leaf_of(LEAVES[1]) + uint96(5 * 10**18)
    assert len(packed) == 88
    assert (tree.depth, tree.sum) == (1, 5 * 10**18 + 7)
    assert tree.commitment == committed(keccak(packed), 5 * 10**18 + 7)


def test_a_tree_of_three_leaves_has_one_leaf_of_nobody_at_the_right() -> None:
    tree = SumTree.build(LEAVES)
    left = keccak(leaf_of(LEAVES[0]) + uint96(7) + leaf_of(LEAVES[1]) + uint96(5 * 10**18))
    right = keccak(leaf_of(LEAVES[2]) + uint96(1) + bytes(44))
    root = keccak(left + uint96(5 * 10**18 + 7) + right + uint96(1))
    assert (tree.depth, tree.sum, tree.root_hash) == (2, 5 * 10**18 + 8, "0x" + root.hex())
    assert tree.commitment == committed(root, 5 * 10**18 + 8)
    assert tree.proof(LEAVES[2].account).nodes == (
        ("0x" + 64 * "0", 0),
        ("0x" + left.hex(), 5 * 10**18 + 7),
    )


def test_a_tree_of_nobody_is_a_leaf_of_nobody() -> None:
    tree = SumTree.build([])
    assert (tree.depth, tree.sum, tree.root_hash) == (0, 0, "0x" + 64 * "0")
    assert tree.commitment == committed(bytes(32), 0)


@given(leaf_lists)
@settings(deadline=None)
def test_the_tree_is_the_one_of_the_protocol_and_of_the_smallest_depth(leaves: list[Leaf]) -> None:
    tree = SumTree.build(leaves)
    size = 2**tree.depth
    assert size >= len(leaves) > size // 2
    digest, total = reference([*leaves, *[None] * (size - len(leaves))])
    assert tree.root_hash == "0x" + digest.hex()
    assert tree.sum == total == sum(leaf.cumulative for leaf in leaves)
    assert tree.commitment == committed(digest, total)


@given(leaf_lists)
@settings(deadline=None)
def test_every_leaf_is_proven_and_the_sums_on_its_way_add_up(leaves: list[Leaf]) -> None:
    tree = SumTree.build(leaves)
    for place, leaf in enumerate(leaves):
        proof = tree.proof(leaf.account)
        assert proof.index == place
        assert len(proof.nodes) == tree.depth
        assert leaf.cumulative + sum(amount for _, amount in proof.nodes) == tree.sum
        assert verify_proof(tree.commitment, leaf.account, leaf.cumulative, proof.index, proof.nodes)


@given(leaf_lists, st.data())
@settings(deadline=None)
def test_a_proof_with_anything_changed_proves_nothing(leaves: list[Leaf], data: st.DataObject) -> None:
    tree = SumTree.build(leaves)
    leaf = data.draw(st.sampled_from(leaves))
    proof = tree.proof(leaf.account)
    good = (tree.commitment, leaf.account, leaf.cumulative, proof.index, proof.nodes)
    digest, account = Hash32("0x" + 64 * "5"), Address("0x" + 40 * "5")
    assert not verify_proof(digest, *good[1:])
    assert not verify_proof(good[0], account, *good[2:])
    for cumulative in (leaf.cumulative + 1, leaf.cumulative - 1, UINT96_MAX + 1):
        assert not verify_proof(*good[:2], cumulative, *good[3:])
    for index in {*range(-1, 2**tree.depth + 1), proof.index + 2**tree.depth} - {proof.index}:
        assert not verify_proof(*good[:3], index, proof.nodes)
    assert not verify_proof(*good[:4], (*proof.nodes, (digest, 0)))
    for level, (sibling, amount) in enumerate(proof.nodes):
        assert not verify_proof(*good[:4], proof.nodes[:level])
        for other in ((digest, amount), (sibling, amount + 1), (sibling, amount - 1), (sibling, UINT96_MAX)):
            assert not verify_proof(*good[:4], (*proof.nodes[:level], other, *proof.nodes[level + 1 :]))


@given(leaf_lists, st.data())
@settings(deadline=None)
def test_no_sum_can_be_moved_from_one_node_of_a_proof_to_another(
    leaves: list[Leaf], data: st.DataObject
) -> None:
    tree = SumTree.build(leaves)
    leaf = data.draw(st.sampled_from(leaves))
    proof = tree.proof(leaf.account)
    for giver, taker in itertools.permutations(range(tree.depth), 2):
        moved = list(proof.nodes)
        moved[giver] = (moved[giver][0], moved[giver][1] - 1)
        moved[taker] = (moved[taker][0], moved[taker][1] + 1)
        assert not verify_proof(tree.commitment, leaf.account, leaf.cumulative, proof.index, moved)


@pytest.mark.parametrize("account", ["0x", "0x" + 38 * "a", "0x" + 40 * "A", "0x" + 40 * "g", 40 * "a"])
def test_a_malformed_address_or_hash_proves_nothing_and_makes_no_tree(account: str) -> None:
    tree = SumTree.build(LEAVES)
    proof = tree.proof(LEAVES[0].account)
    assert not verify_proof(tree.commitment, Address(account), 7, 0, proof.nodes)
    assert not verify_proof(tree.commitment, LEAVES[0].account, 7, 0, [(Hash32(account), 1), proof.nodes[1]])
    with pytest.raises(PayoutError, match="leaf 0, "):
        SumTree.build([Leaf(Address(account), Wei(1))])


@pytest.mark.parametrize("leaves", [[LEAVES[0], LEAVES[0]], [LEAVES[1], LEAVES[0]]])
def test_leaves_that_do_not_ascend_are_refused_by_name(leaves: list[Leaf]) -> None:
    with pytest.raises(PayoutError, match=f"leaf 1, .*{LEAVES[0].account}.* is not above"):
        SumTree.build(leaves)


@pytest.mark.parametrize("cumulative", [0, 1])
def test_a_leaf_of_the_zero_address_is_refused(cumulative: int) -> None:
    nobody = Leaf(Address("0x" + 40 * "0"), Wei(cumulative))
    with pytest.raises(PayoutError, match=r"leaf 0, .* is of the zero address, which nobody can claim for"):
        SumTree.build([nobody, *LEAVES])


@pytest.mark.parametrize(("level", "index"), [(0, 3), (1, 2), (2, 1), (3, 0), (-1, 0), (0, -1)])
def test_a_block_that_the_tree_does_not_have_is_refused(level: int, index: int) -> None:
    with pytest.raises(PayoutError, match=rf"block {index} of 2\*\*{level} leaves: this tree has 3 leaves"):
        SumTree.build(LEAVES).block(level, index)


@pytest.mark.parametrize("cumulative", [-1, UINT96_MAX + 1])
def test_a_leaf_beyond_uint96_is_refused_by_name(cumulative: int) -> None:
    with pytest.raises(PayoutError, match=f"leaf 1, .*{LEAVES[1].account}"):
        SumTree.build([LEAVES[0], Leaf(LEAVES[1].account, Wei(cumulative))])


def test_the_sum_fills_uint96_and_no_more() -> None:
    assert SumTree.build([LEAVES[0], Leaf(LEAVES[1].account, Wei(UINT96_MAX - 7))]).sum == UINT96_MAX
    with pytest.raises(PayoutError, match=f"leaf 1, .*with {2**96} so far"):
        SumTree.build([LEAVES[0], Leaf(LEAVES[1].account, Wei(UINT96_MAX - 6))])


def test_an_account_that_was_never_paid_has_no_proof() -> None:
    with pytest.raises(PayoutError, match="has no leaf"):
        SumTree.build(LEAVES).proof(Address("0x" + 40 * "f"))
