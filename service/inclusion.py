"""Proofs that a ranking stands under its epoch's ledger root; each closed epoch's tree is built once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from chain.merkle import LedgerTree
from chain.types import Address, Hash32
from service.errors import ConflictError

KEPT = 2
"""Trees that are kept: of the newest epoch and of the one before."""


class LedgerTrees:
    """The trees that proofs of inclusion come from."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], LedgerTree] = {}
        self._lock = threading.Lock()

    def find(self, epoch: int, root: str, read: Callable[[], Iterable[tuple[Hash32, Address]]]) -> LedgerTree:
        """Return the tree of an epoch's ledger root, from `read` where it is not kept.

        ConflictError where what is read gives another root: no proof from it would hold.
        """
        # One builds, and those who ask meanwhile wait for it: it takes seconds where there are a million rankings.
        with self._lock:
            if (epoch, root) not in self._kept:
                tree = LedgerTree(read())
                if tree.root != root:
                    raise ConflictError(
                        f"the rankings of epoch {epoch} have the root {tree.root}, closed was {root}; an abandoned "
                        "epoch has no ranking, else restore the database from a backup"
                    )
                self._kept[epoch, root] = tree
                for oldest in list(self._kept)[:-KEPT]:
                    del self._kept[oldest]
            return self._kept[epoch, root]
