"""The tree of an active root is built once, of the right leaves, and few of them are kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from chain.tree import SumTree
from chain.types import Address, Leaf, Wei
from service.context import Trees
from service.errors import ConflictError


@dataclass
class Shelf:
    """Leaves in a database, and how often they were read."""

    leaves: Mapping[Address, Wei]
    slowness_s: float = 0.0
    reads: int = 0

    def read(self) -> Mapping[Address, Wei]:
        self.reads += 1
        time.sleep(self.slowness_s)
        return self.leaves

    @property
    def root(self) -> str:
        return SumTree.build([Leaf(a, v) for a, v in sorted(self.leaves.items())]).root_hash


def _shelf(cumulative: int) -> Shelf:
    accounts = [Address("0x" + f"{n:040x}") for n in (3, 1, 2)]
    return Shelf({a: Wei(cumulative + n) for n, a in enumerate(accounts)})


def test_a_tree_is_built_once_for_all_who_ask_at_the_same_time() -> None:
    trees, shelf, all_here = Trees(), _shelf(5), threading.Barrier(4)
    shelf.slowness_s = 0.05

    def ask(_: int) -> int:
        all_here.wait()
        return trees.find(0, shelf.root, shelf.read).tree.sum

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [18] * 4
    assert shelf.reads == 1


def test_another_epoch_or_another_root_is_another_tree() -> None:
    trees, first, second = Trees(), _shelf(5), _shelf(6)
    assert trees.find(0, first.root, first.read).leaves == first.leaves
    assert trees.find(0, second.root, second.read).leaves == second.leaves
    assert trees.find(1, second.root, second.read).leaves == second.leaves
    assert (first.reads, second.reads) == (1, 2)


def test_only_the_newest_trees_are_kept() -> None:
    trees, shelves = Trees(), [_shelf(n) for n in range(Trees.KEPT + 1)]
    ask: Callable[[int], object] = lambda n: trees.find(n, shelves[n].root, shelves[n].read)  # noqa: E731
    for epoch in (*range(Trees.KEPT + 1), *range(1, Trees.KEPT + 1)):
        ask(epoch)
    assert [s.reads for s in shelves] == [1] * len(shelves)
    ask(0)
    assert shelves[0].reads == 2


def test_leaves_that_do_not_give_the_root_are_refused_and_not_kept() -> None:
    trees, shelf, right = Trees(), _shelf(5), _shelf(6)
    with pytest.raises(
        ConflictError, match=f"epoch 7 give the root {shelf.root}, the active one is {right.root}"
    ):
        trees.find(7, right.root, shelf.read)
    assert trees.find(7, right.root, right.read).leaves == right.leaves
