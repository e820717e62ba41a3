"""Proofs that a ranking stands under its epoch's ledger root; each closed epoch's tree is built once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chain.merkle import LedgerTree
from chain.types import Address, Hash32
from service.errors import ConflictError
from service.once import Once

KEPT = 2
"""Trees that are kept: of the newest epoch and of the one before."""


class LedgerTrees:
    """The trees that proofs of inclusion come from."""

    def __init__(self) -> None:
        self._made: Once[tuple[int, str], LedgerTree] = Once(KEPT)

    def find(self, epoch: int, root: str, read: Callable[[], Iterable[tuple[Hash32, Address]]]) -> LedgerTree:
        """Return the tree of an epoch's ledger root, from `read` where it is not kept.

        ConflictError where what is read gives another root: no proof from it would hold.
        """
        return self._made.find((epoch, root), lambda: _tree(epoch, root, read()))


def _tree(epoch: int, root: str, entries: Iterable[tuple[Hash32, Address]]) -> LedgerTree:
    tree = LedgerTree(entries)
    if tree.root != root:
        raise ConflictError(
            f"the rankings of epoch {epoch} have the root {tree.root}, closed was {root}; an abandoned epoch has no "
            "ranking, else restore the database from a backup"
        )
    return tree
