"""Laws of challenges: honest growth is never faulted, every break is, and what is found proves itself."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.challenge import (
    Decrease,
    Disorder,
    Fault,
    LeafProof,
    Malformed,
    Missing,
    PostedTree,
    find_fault,
)
from chain.hashing import keccak256
from chain.messages import checksum
from chain.tree import PADDING, SumTree, node_of, preimages, verify_proof
from chain.types import Address, Hash32, Wei
from tests.broken import BREAKS, NOBODY, THIEF, UINT96, Break, forge, grown, honest, leaf, listed

LUCK = st.randoms(use_true_random=False)
EMPTY = honest({})


def commitment(tree: PostedTree) -> Hash32:
    return Hash32("0x" + keccak256(bytes.fromhex(tree.root[2:]) + tree.sum.to_bytes(12, "big")).hex())


def proves(tree: PostedTree, proof: LeafProof) -> bool:
    """Tell whether a proof is one of the tree, of a leaf or of padding."""
    if len(proof.path) != 44 * tree.depth and proof.path:
        return False
    node = PADDING
    if proof.account != NOBODY.account or proof.cumulative:
        amount = proof.cumulative.to_bytes(12, "big")
        node = keccak256(bytes.fromhex(proof.account[2:]) + amount) + amount
    return climb(node, proof.index, proof.path) == root_of(tree)


def climb(node: bytes, index: int, path: bytes) -> bytes:
    for at in range(0, len(path), 44):
        sibling = path[at : at + 44]
        node = node_of(sibling + node if index & 1 else node + sibling)
        index >>= 1
    return node if index == 0 else b""


def root_of(tree: PostedTree) -> bytes:
    return bytes.fromhex(tree.root[2:]) + tree.sum.to_bytes(12, "big")


def is_shown(fault: Fault, active: PostedTree, pending: PostedTree) -> bool:
    """Tell whether the proofs of a fault are of the two roots; whether they show one is for the contract to say."""
    if isinstance(fault, Malformed):
        digest = keccak256(fault.preimage) if fault.preimage else bytes(32)
        top = climb(digest + fault.sum.to_bytes(12, "big"), fault.index, fault.path)
        return top == root_of(pending)
    if isinstance(fault, Disorder):
        return proves(pending, fault.left) and proves(pending, fault.right)
    if isinstance(fault, Decrease):
        return proves(active, fault.before) and proves(pending, fault.lowered)
    gap = fault.right.index
    left = gap == 0 or (fault.left.index == gap - 1 and proves(pending, fault.left))
    right = gap == 1 << pending.depth or proves(pending, fault.right)
    return proves(active, fault.before) and left and right


@given(LUCK, st.integers(0, 33))
def test_an_honest_root_is_never_faulted(luck: Random, size: int) -> None:
    before, after = grown(luck, size)
    assert find_fault(honest(before), honest(after)) is None
    assert find_fault(EMPTY, honest(before)) is None
    assert find_fault(honest(before), honest(before)) is None


@pytest.mark.parametrize("broken", BREAKS, ids=lambda b: b.__name__)
@given(LUCK, st.integers(1, 17))
@settings(max_examples=40)
def test_every_break_is_found_and_shown(broken: Break, luck: Random, size: int) -> None:
    before, after = grown(luck, size)
    active, pending = honest(before), broken(luck, before, after)
    fault = find_fault(active, pending)
    assert isinstance(fault, BREAKS[broken])
    assert is_shown(fault, active, pending)


@given(LUCK, st.integers(1, 17))
def test_whoever_is_missing_or_has_less_is_named(luck: Random, size: int) -> None:
    before, after = grown(luck, size)
    hurt = sorted(luck.sample(sorted(before), luck.randint(1, size)))
    left = {a: luck.choice([0, v - 1]) if a in hurt else after[a] for a, v in before.items()}
    kept = {a: v for a, v in (after | left).items() if v or a not in hurt}
    fault = find_fault(honest(before), honest(kept))
    assert isinstance(fault, Decrease | Missing)
    first = f"0x{hurt[0]:040x}"
    assert (fault.before.account, fault.before.cumulative) == (first, before[hurt[0]])
    assert isinstance(fault, Missing) == (hurt[0] not in kept)
    assert checksum(Address(first)) in fault.sentence()


@given(LUCK, st.integers(0, 9), st.integers(1, 3))
def test_a_root_whose_data_is_withheld_is_not_faulted_but_known_to_be_unknown(
    luck: Random, size: int, more: int
) -> None:
    before, after = grown(luck, size, more=more)
    other = honest({**after, THIEF: 1})
    withheld = PostedTree.of(other.root, other.sum, other.depth, listed(before))
    assert not withheld.is_known
    assert other.is_known
    assert find_fault(honest(before), withheld) is None


@given(LUCK, st.integers(2, 17), st.data())
@settings(max_examples=60)
def test_what_is_found_in_a_tree_that_is_partly_withheld_is_shown(
    luck: Random, size: int, data: st.DataObject
) -> None:
    before, after = grown(luck, size)
    broken = data.draw(st.sampled_from(sorted(BREAKS, key=lambda b: b.__name__)))
    whole = broken(luck, before, after)
    kept = {h: p for h, p in whole.known.items() if luck.random() < 0.8}
    part = PostedTree(whole.root, whole.sum, whole.depth, kept)
    active = honest(before)
    fault = find_fault(active, part)
    assert fault is None or is_shown(fault, active, part)


@given(LUCK, st.integers(2, 17))
def test_an_honest_root_of_which_something_is_withheld_is_not_faulted(luck: Random, size: int) -> None:
    before, after = grown(luck, size)
    whole = honest(after)
    kept = {h: p for h, p in whole.known.items() if luck.random() < 0.8}
    assert find_fault(honest(before), PostedTree(whole.root, whole.sum, whole.depth, kept)) is None


@pytest.mark.parametrize("broken", BREAKS, ids=lambda b: b.__name__)
@given(LUCK, st.integers(2, 9))
@settings(max_examples=20)
def test_after_a_wrong_root_that_became_active_only_what_it_proves_is_held_against_the_next(
    broken: Break, luck: Random, size: int
) -> None:
    before, after = grown(luck, size)
    active = broken(luck, before, after)
    pending = honest({a: v for a, v in after.items() if luck.random() < 0.8})
    fault = find_fault(active, pending)
    assert fault is None or is_shown(fault, active, pending)


@given(LUCK, st.integers(1, 9))
def test_the_highest_node_that_lies_is_shown_because_no_proof_passes_one(luck: Random, size: int) -> None:
    _, after = grown(luck, size)
    leaves = listed({**after, THIEF: 1})
    lies = {(0, 0): (None, 1), (1, 0): (None, 1)}
    fault = find_fault(EMPTY, forge(leaves, lies))
    assert isinstance(fault, Malformed)
    assert len(fault.preimage) == 88
    assert (len(fault.path), fault.index) == (44 * ((len(leaves) - 1).bit_length() - 1), 0)


def test_a_tree_of_more_depth_than_it_needs_is_nothing_that_can_be_shown() -> None:
    for size in range(4):
        leaves = [leaf(9 + i, 3) for i in range(size)]
        for depth in (3, 32):
            *_, root = preimages(leaves, depth)
            posted = PostedTree.of(Hash32("0x" + keccak256(root).hex()), Wei(3 * size), depth, leaves)
            assert posted.is_known
            assert find_fault(EMPTY, posted) is None
            assert find_fault(honest({5: 1}), posted) is not None


def test_the_edges_of_a_gap_are_the_ends_of_the_tree() -> None:
    middle = honest({20: 1, 30: 1})
    first, last = find_fault(honest({10: 1}), middle), find_fault(honest({40: 1}), middle)
    assert isinstance(first, Missing)
    assert isinstance(last, Missing)
    nothing = (NOBODY.account, 0)
    assert first.right.index == 0
    assert first.arguments()[1] == (*nothing, 0, b"")
    assert (last.left.account, last.left.index) == (f"0x{30:040x}", 1)
    assert last.arguments()[2] == (*nothing, 2, b"")
    beside = find_fault(honest({40: 1}), honest({20: 1, 30: 1, 35: 1}))
    assert isinstance(beside, Missing)
    assert beside.arguments()[2][:3] == (*nothing, 3)
    assert len(beside.right.path) == 88


def test_padding_is_not_kept_for_each_place_of_a_deep_tree() -> None:
    depth, leaves = 32, [leaf(7, 2)]
    *_, root = preimages(leaves, depth)
    assert len(preimages(leaves, depth)) == 33
    posted = PostedTree.of(Hash32("0x" + keccak256(root).hex()), Wei(2), depth, leaves)
    missing = find_fault(honest({8: 1}), posted)
    assert isinstance(missing, Missing)
    assert (missing.left.index, missing.right.index, len(missing.right.path)) == (0, 1, 44 * 32)


DUSD = "{} DUSD".format
A, B, C = (checksum(Address(f"0x{i:040x}")) for i in (0xA, 0xB, 0xC))


@pytest.mark.parametrize(
    ("active", "pending", "said"),
    [
        (honest({0xA: 12}), honest({0xA: 10}), f"{A} had 12 DUSD in the active root, 10 DUSD in the pending one"),
        (honest({0xA: 3}), honest({0xB: 3}), f"{A} had 3 DUSD in the active root and is missing from the pending one"),
        (
            EMPTY, forge([leaf(0xA, 1), leaf(0xA, 2)], {}),
            f"{A} stands in the pending root twice: with 1 DUSD as leaf 0, with 2 DUSD as leaf 1",
        ),
        (
            EMPTY, forge([leaf(0xB, 1), leaf(0xA, 2)], {}),
            f"{A} stands in the pending root behind {B}, as leaf 1, out of order",
        ),
        (
            EMPTY, forge([NOBODY, leaf(0xA, 2)], {}),
            f"{A} stands in the pending root behind padding, as leaf 1, out of order",
        ),
        (
            EMPTY, forge([leaf(0xA, 1), leaf(0xB, 2)], {(1, 0): (None, 4)}),
            "the pending root counts as 7 DUSD, but what is below it adds up to 3 DUSD",
        ),
        (
            EMPTY, forge([leaf(0xA, 1), leaf(0xB, 2)], {(0, 1): (None, 4)}),
            f"node 1, 1 levels below the pending root, is the leaf of {B}, with 2 DUSD, but counts as 6 DUSD",
        ),
        (
            EMPTY, forge([leaf(0xA, 1), leaf(0xB, 2), leaf(0xC, 3)], {(0, 3): (None, 4)}),
            "node 3, 2 levels below the pending root, is padding, with 0 DUSD, but counts as 4 DUSD",
        ),
        (
            EMPTY, forge([leaf(0, 1)], {}),
            "the pending root is a leaf of the zero address, which nobody can claim for",
        ),
        (
            EMPTY, PostedTree.of(honest({0xC: 5}).root, Wei(5), 1, [leaf(0xC, 5)]),
            f"the pending root is the leaf of {C}, which belongs at the bottom",
        ),
        (EMPTY, PostedTree.of(EMPTY.root, Wei(0), 1, []), "the pending root is padding, which belongs at the bottom"),
        (
            EMPTY, PostedTree.of(honest({0xA: 5, 0xB: 1}).root, Wei(6), 0, listed({0xA: 5, 0xB: 1})),
            "the pending root stands where leaves belong",
        ),
        (
            EMPTY, forge([leaf(0xA, 5)], {(0, 0): (b"strange", 0)}),
            "the pending root is neither a node nor a leaf: its hash is that of 7 bytes",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_said_in_words(active: PostedTree, pending: PostedTree, said: str) -> None:
    fault = find_fault(active, pending)
    assert fault is not None
    assert fault.sentence(DUSD) == said


@given(LUCK, st.integers(0, 33), st.integers(0, 2))
def test_preimages_are_those_of_the_tree_that_is_built(luck: Random, size: int, deeper: int) -> None:
    book, _ = grown(luck, size)
    tree = SumTree.build(listed(book))
    found = preimages(listed(book), tree.depth + deeper)
    assert {node[:32] for level in tree.levels for node in level} <= {keccak256(p) for p in found}
    top, padding = root_of(honest(book)), tree.paddings[-1]
    for _ in range(deeper):
        top, padding = node_of(top + padding), node_of(padding + padding)
    assert [keccak256(p) for p in found[-1:]] == [top[:32]][: len(found)]


def test_sums_of_preimages_wrap_as_no_honest_one_does() -> None:
    pair = preimages([leaf(1, UINT96 - 1), leaf(2, 3)], 1)[-1]
    assert int.from_bytes(node_of(pair)[32:], "big") == 2


@given(LUCK, st.integers(1, 20), st.data())
def test_a_path_is_the_nodes_of_the_proof_as_bytes_and_a_block_proves_all_its_leaves(
    luck: Random, size: int, data: st.DataObject
) -> None:
    book, _ = grown(luck, size)
    leaves = listed(book)
    tree = SumTree.build(leaves)
    one = data.draw(st.sampled_from(leaves))
    proof = tree.proof(one.account)
    assert proof.path == b"".join(bytes.fromhex(h[2:]) + s.to_bytes(12, "big") for h, s in proof.nodes)
    assert verify_proof(tree.commitment, one.account, one.cumulative, proof.index, proof.nodes)
    level = data.draw(st.integers(0, tree.depth))
    index = data.draw(st.integers(0, (size - 1) >> level))
    block = tree.block(level, index)
    assert list(block.leaves) == leaves[index << level : (index + 1) << level]
    below = preimages(block.leaves, level)[-1]
    total = sum(x.cumulative for x in block.leaves)
    node = keccak256(below) + total.to_bytes(12, "big")
    assert climb(node, block.index, block.path) == root_of(honest(book))
    assert (block.level, block.index) == (level, index)


@pytest.mark.parametrize("real", [0, 1, 16, 31])
def test_padding_at_the_wrong_height_is_found_without_unfolding_it(real: int) -> None:
    """The tree of one leaf, shallower than posted: followed down both sides, its padding would fill the memory."""
    only = leaf(1, 10**9)
    root = Hash32("0x" + keccak256(preimages([only], real)[-1]).hex())
    pending = PostedTree.of(root, only.cumulative, 32, [only])
    fault = find_fault(EMPTY, pending)
    assert isinstance(fault, Malformed)
    assert is_shown(fault, EMPTY, pending)
