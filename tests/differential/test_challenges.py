"""Proofs built by Python, replayed in the EVM.

Every broken root falls to the challenge that Python finds, which pays the bond; no honest one falls to anything;
and what Python proves of an active root is paid, leaf by leaf or by the block.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

import httpx
import pytest

from chain.challenge import Fault, LeafProof, PostedTree, find_fault
from chain.contracts import Contract, call, call_each, creation, revert_reason
from chain.devnet import Devnet
from chain.hashing import keccak256
from chain.keys import address_of, devnet_accounts
from chain.rpc import Rpc
from chain.tree import PADDING, SumTree, node_of, preimages
from chain.types import Address, Hash32, Wei
from tests.broken import BREAKS, NOBODY, THIEF, UINT96, Book, Break, grown, honest, listed

WINDOW_S = 60
BOND = 10**17
GAS = 2_000_000
SIZES = (1, 2, 3, 4, 5, 8, 9, 16, 17, 33)
OWNER, CHALLENGER = (address_of(account) for account in devnet_accounts(31337, 2))
FAULTS = ("challengeDecrease", "challengeMissing", "challengeOrder", "challengeMalformed")
"""In the order of the contract's enum."""
CHALLENGED = "0x" + keccak256(b"Challenged(uint64,bytes32,address,uint8,address)").hex()


@dataclass(frozen=True)
class Ground:
    """A distributor with all revenue there can be, and a bond; `OWNER` owns it and posts."""

    rpc: Rpc
    url: str
    distributor: Contract

    def send(self, sender: Address, function: str, *args: Any, value: int = 0) -> dict[str, Any]:
        """Return the receipt of a call, which may have been reverted."""
        return self._mined(sender, self.distributor, function, *args, value=value)

    def _mined(
        self, sender: Address, contract: Contract, function: str, *args: Any, value: int = 0
    ) -> dict[str, Any]:
        wanted = {"from": sender, "to": contract.address, "gas": hex(GAS), "value": hex(value)}
        wanted["data"] = "0x" + contract.encode(function, *args).hex()
        return _receipt(self.rpc, wanted)

    def fund(self) -> None:
        token = Contract("DevnetDollar", call(self.rpc, self.distributor, "token"))
        assert self._mined(OWNER, token, "mint", OWNER, UINT96 - 1)["status"] == "0x1"
        assert self._mined(OWNER, token, "approve", self.distributor.address, UINT96 - 1)["status"] == "0x1"
        assert self.send(OWNER, "fund", 0, UINT96 - 1)["status"] == "0x1"
        assert self.send(OWNER, "addBond", value=BOND)["status"] == "0x1"

    def post(self, tree: PostedTree) -> bool:
        """Post a root for the next epoch and tell whether the distributor takes it at all."""
        epoch, _, _ = call(self.rpc, self.distributor, "active")
        report = (
            epoch,
            tree.root,
            tree.sum,
            tree.depth,
            tree.root,
            tree.root,
            tree.root,
            0,
            self.rpc.block(0).hash,
        )
        return bool(self.send(OWNER, "post", report)["status"] == "0x1")

    def activate(self, tree: PostedTree) -> None:
        assert self.post(tree)
        self.rpc.request("evm_increaseTime", WINDOW_S)
        assert self.send(OWNER, "activate")["status"] == "0x1"

    def refused(self, attempts: list[tuple[str, tuple[Any, ...]]]) -> list[str]:
        """Return why each of these calls is refused; "accepted" where it is not."""
        calls = [
            {
                "jsonrpc": "2.0", "id": number, "method": "eth_call",
                "params": [
                    {"to": self.distributor.address, "data": "0x" + self.distributor.encode(f, *args).hex()},
                    "latest",
                ],
            }
            for number, (f, args) in enumerate(attempts)
        ]  # fmt: skip
        answers = httpx.post(self.url, json=calls, timeout=30).json()
        said = {
            a["id"]: revert_reason(bytes.fromhex(a["error"]["data"][2:])) if "error" in a else "accepted"
            for a in answers
        }
        return [said[number] for number in range(len(attempts))]


def _receipt(rpc: Rpc, transaction: dict[str, str]) -> dict[str, Any]:
    """Send from an account that Anvil itself holds, and return the receipt; it mines a moment after it answers."""
    sent = rpc.request("eth_sendTransaction", transaction)
    while (found := rpc.request("eth_getTransactionReceipt", sent)) is None:
        time.sleep(0.001)
    return dict(found)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Devnet(0, timestamp=1_800_000_000) as anvil, Rpc(anvil.url) as rpc:

        def put(name: str, *args: Any) -> Address:
            data = "0x" + creation(name, *args).hex()
            return Address(
                _receipt(rpc, {"from": OWNER, "data": data, "gas": hex(10_000_000)})["contractAddress"]
            )

        setup = (1_700_000_000, 1, WINDOW_S, BOND, OWNER, OWNER, OWNER)
        made = Ground(
            rpc,
            anvil.url,
            Contract("RevenueDistributor", put("RevenueDistributor", put("DevnetDollar"), *setup)),
        )
        made.fund()
        yield made


@pytest.fixture(autouse=True)
def undo(ground: Ground) -> Iterator[None]:
    """Put the chain back after each test."""
    state = ground.rpc.request("evm_snapshot")
    yield
    assert ground.rpc.request("evm_revert", state)


def falls(ground: Ground, fault: Fault) -> None:
    """Send a challenge as a stranger would, and see the root gone, the reason told, and the bond paid."""
    epoch, root, *_ = call(ground.rpc, ground.distributor, "pending")
    before = ground.rpc.balance(CHALLENGER)
    receipt = ground.send(CHALLENGER, fault.function, *fault.arguments())
    assert receipt["status"] == "0x1", fault
    cost = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert ground.rpc.balance(CHALLENGER) == before + BOND - cost
    assert call(ground.rpc, ground.distributor, "pending")[-1] == 0
    (log,) = receipt["logs"]
    assert log["topics"] == [CHALLENGED, f"0x{epoch:064x}", root, f"0x{int(CHALLENGER, 16):064x}"]
    assert int(log["data"][2:66], 16) == FAULTS.index(fault.function)


@pytest.mark.parametrize("broken", BREAKS, ids=lambda b: b.__name__)
def test_every_broken_root_falls_to_what_python_finds_and_pays_the_bond(
    ground: Ground, broken: Break
) -> None:
    luck = Random(broken.__name__)
    refused = 0
    for size in SIZES:
        before, after = grown(luck, size)
        state = ground.rpc.request("evm_snapshot")
        active, pending = honest(before), broken(luck, before, after)
        ground.activate(active)
        if ground.post(pending):
            fault = find_fault(active, pending)
            assert fault is not None
            falls(ground, fault)
        else:
            assert pending.sum < active.sum
            refused += 1
        assert ground.rpc.request("evm_revert", state)
    assert refused < len(SIZES) / 2


@pytest.mark.parametrize(
    "broken", [b for b in BREAKS if "lowered" not in b.__name__ and "dropped" not in b.__name__]
)
def test_the_first_root_ever_falls_like_any_other(ground: Ground, broken: Break) -> None:
    luck = Random(broken.__name__)
    pending = broken(luck, {}, {7: 3, 9: 1, 12: 5})
    fault = find_fault(honest({}), pending)
    assert ground.post(pending)
    assert fault is not None
    falls(ground, fault)


def test_every_place_that_an_account_can_be_missing_from_can_be_shown(ground: Ground) -> None:
    for size in (1, 2, 3, 4, 7, 8, 9):
        state = ground.rpc.request("evm_snapshot")
        whole = {10 * (i + 1): 1 for i in range(size)}
        active = honest(whole)
        ground.activate(active)
        for gone in whole:
            rest = {a: v for a, v in whole.items() if a != gone}
            # In place of the dropped one, others at either end: all sizes of the rest, and all places of the gap.
            for extra in ({}, {5: 1}, {THIEF: 1}, {5: 1, THIEF: 1}, {5: 1, 6: 1, THIEF: 1}):
                pending = honest(rest | extra)
                if pending.sum < active.sum:
                    continue
                inner = ground.rpc.request("evm_snapshot")
                assert ground.post(pending)
                fault = find_fault(active, pending)
                assert fault is not None
                assert fault.function == "challengeMissing"
                falls(ground, fault)
                assert ground.rpc.request("evm_revert", inner)
        assert ground.rpc.request("evm_revert", state)


# -- honest roots ----------------------------------------------------------------------------------------------


class Attacker:
    """Builds every challenge that the nodes of an honest root can be bent into."""

    def __init__(self, before: Book, after: Book) -> None:
        self.before, self.after = _Nodes(before), _Nodes(after)

    def attempts(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield function and arguments."""
        yield from (("challengeDecrease", pair) for pair in self._decreases())
        yield from (("challengeMissing", three) for three in self._gaps())
        yield from (("challengeOrder", pair) for pair in self._orders())
        yield from (("challengeMalformed", node) for node in self._nodes())

    def _decreases(self) -> Iterator[tuple[Any, ...]]:
        places = range(1 << self.after.depth)
        for old, place in product(self.before.proofs(), places):
            new = self.after.proof(place)
            yield old, new
            yield old, (old[0], *new[1:])
            yield old, (old[0], max(0, old[1] - 1), *new[2:])
            yield old, (old[0], 0, *new[2:])
            yield new, old

    def _gaps(self) -> Iterator[tuple[Any, ...]]:
        size = 1 << self.after.depth
        nothing = (NOBODY.account, 0, 0, b"")
        for old, gap in product(self.before.proofs(), range(size + 2)):
            left = self.after.proof(gap - 1) if 0 < gap <= size else nothing
            right = self.after.proof(gap) if gap < size else (*nothing[:2], gap, b"")
            yield old, left, right
            yield old, right, left
            yield old, left, (*right[:2], size, right[3])
            yield old, left, (*right[:2], 0, right[3])
            yield old, (*left[:2], left[2] + 1, left[3]), (*right[:2], gap + 1, right[3])
            yield old, nothing, right
            yield old, left, (*nothing[:2], gap, right[3])
            yield old, (*nothing[:2], *left[2:]), right
            yield old, left, (*right[:3], right[3][44:])
        for old, gap in product(self.before.proofs(), (UINT96, 2**255, 2**256 - 1)):
            yield old, (*nothing[:2], gap - 1, b""), (*nothing[:2], gap, b"")

    def _orders(self) -> Iterator[tuple[Any, ...]]:
        places = range(1 << self.after.depth)
        for a, b in product(places, places):
            left, right = self.after.proof(a), self.after.proof(b)
            yield left, right
            yield left, (*right[:2], a + 1, right[3])
            yield (*left[:2], b - 1 if b else 2**256 - 1, left[3]), right
            yield right, (*left[:2], b + 1, right[3])

    def _nodes(self) -> Iterator[tuple[Any, ...]]:
        for (level, index), (preimage, total) in self.after.nodes():
            path = self.after.path(level, index)
            inner = bytes(44) + PADDING
            for said in {
                preimage,
                b"",
                bytes(32),
                bytes(88),
                inner,
                preimage[:44],
                preimage + b"\0",
                preimage[::-1],
            }:
                yield said, total, index, path
                yield said, (total + 1) % UINT96, index, path
                yield said, 0, index, path
                yield said, UINT96 - 1, index, path
                yield said, total, index ^ 1, path
                yield said, total, index + (1 << level), path
                yield said, total, index >> 1, path[44:]
                yield said, total, index << 1, PADDING + path
                yield said, total, index, path[:-1]


class _Nodes:
    """The nodes of an honest tree by level, from the root down, its padding too."""

    def __init__(self, book: Book) -> None:
        leaves = listed(book)
        self.depth = (len(leaves) - 1).bit_length() if leaves else 0
        self._leaves = [*leaves, *[NOBODY] * ((1 << self.depth) - len(leaves))]
        self._size = len(leaves)
        known = {keccak256(p): p for p in preimages(leaves, self.depth)}
        row = [_leaf_node(x) for x in self._leaves]
        self._levels = [row]
        while len(row) > 1:
            row = [node_of(a + b) for a, b in zip(row[::2], row[1::2], strict=True)]
            self._levels.insert(0, row)
        self._known = known

    def nodes(self) -> Iterator[tuple[tuple[int, int], tuple[bytes, int]]]:
        for level, row in enumerate(self._levels):
            for index, node in enumerate(row):
                below = self._levels[level + 1][2 * index : 2 * index + 2] if level < self.depth else []
                preimage = b"".join(below) or self._known.get(node[:32], b"")
                yield (level, index), (preimage, int.from_bytes(node[32:], "big"))

    def path(self, level: int, index: int) -> bytes:
        return b"".join(self._levels[up][(index >> (level - up)) ^ 1] for up in range(level, 0, -1))

    def proof(self, index: int) -> tuple[Any, ...]:
        mine = self._leaves[index]
        return mine.account, mine.cumulative, index, self.path(self.depth, index)

    def proofs(self) -> Iterator[tuple[Any, ...]]:
        return (self.proof(index) for index in range(self._size))


def _leaf_node(mine: Any) -> bytes:
    amount = mine.cumulative.to_bytes(12, "big")
    return PADDING if mine == NOBODY else keccak256(bytes.fromhex(mine.account[2:]) + amount) + amount


BOOKS: tuple[tuple[Book, Book], ...] = (
    ({}, {}), ({}, {5: 1}), ({5: 1}, {5: 1}), ({5: 1}, {5: 1, 6: 2}), ({5: 1, 6: 1}, {4: 1, 5: 3, 6: 1}),
    ({5: 2, 9: 1, THIEF: 2}, {5: 2, 7: 1, 9: 1, THIEF: 4}), ({7: 3, 8: 3}, {6: 1, 7: 4, 8: 3, 9: 1, 10: 1}),
)  # fmt: skip
"""Small ones, of which every attempt is made."""


@pytest.mark.parametrize(("before", "after"), BOOKS)
def test_a_small_honest_root_withstands_every_challenge_that_can_be_built(
    ground: Ground, before: Book, after: Book
) -> None:
    _withstands(ground, before, after, list(Attacker(before, after).attempts()))


@pytest.mark.parametrize("size", SIZES)
def test_an_honest_root_of_any_size_withstands(ground: Ground, size: int) -> None:
    luck = Random(size)
    before, after = grown(luck, size)
    attempts = list(Attacker(before, after).attempts())
    _withstands(ground, before, after, luck.sample(attempts, min(len(attempts), 400)))


def _withstands(
    ground: Ground, before: Book, after: Book, attempts: list[tuple[str, tuple[Any, ...]]]
) -> None:
    active, pending = honest(before), honest(after)
    ground.activate(active)
    assert ground.post(pending)
    assert find_fault(active, pending) is None
    said = ground.refused(attempts)
    assert [
        a for a, s in zip(attempts, said, strict=True) if s == "accepted" or s.startswith("an unknown")
    ] == []


def test_a_tree_of_more_depth_than_it_needs_cannot_be_challenged(ground: Ground) -> None:
    leaves = listed({5: 1, 6: 2})
    *_, root = preimages(leaves, 5)
    pending = PostedTree.of(Hash32("0x" + keccak256(root).hex()), Wei(3), 5, leaves)
    assert ground.post(pending)
    left, right = (LeafProof(x.account, x.cumulative, i, b"") for i, x in enumerate(leaves))
    assert find_fault(honest({}), pending) is None
    said = ground.refused([("challengeOrder", ((*_fields(left),), (*_fields(right),)))])
    assert "InOrder" in said[0]


def _fields(proof: LeafProof) -> tuple[Any, ...]:
    return proof.account, proof.cumulative, proof.index, proof.path


# -- claims ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5, 8, 13])
def test_one_by_one_many_at_once_and_by_blocks_everybody_is_paid_the_same(ground: Ground, size: int) -> None:
    book, _ = grown(Random(size), size)
    leaves = listed(book)
    tree = SumTree.build(leaves)
    ground.activate(honest(book))

    def paid_by(*calls: tuple[str, tuple[Any, ...]]) -> list[int]:
        state = ground.rpc.request("evm_snapshot")
        for function, args in calls:
            assert ground.send(CHALLENGER, function, *args)["status"] == "0x1"
        found = call_each(ground.rpc, ground.distributor, "claimed", [(x.account,) for x in leaves])
        assert ground.rpc.request("evm_revert", state)
        return found

    proofs = [(x, tree.proof(x.account)) for x in leaves]
    structs = [(x.account, x.cumulative, p.index, p.path) for x, p in proofs]
    amounts = [x.cumulative for x in leaves]
    assert paid_by(*(("claim", struct) for struct in structs)) == amounts
    assert paid_by(("claimMany", (structs,))) == amounts
    for level in range(tree.depth + 1):
        blocks = [tree.block(level, index) for index in range(((size - 1) >> level) + 1)]
        several = [([(x.account, x.cumulative) for x in b.leaves], b.level, b.index, b.path) for b in blocks]
        assert paid_by(*(("claimSubtree", args) for args in several)) == amounts
