"""What a watcher remembers: the payout trees that it needed last, here and on disk, for when their bundles are gone.

Who is dropped or lowered is proven robbed by the tree that pays, and an operator who robs may take its bundle
away first. A file is not trusted: it counts only where its leaves hash to what stands on the chain.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chain.canonical import canonical
from chain.challenge import PostedTree
from chain.errors import BundleError, HapticError
from chain.messages import parse_address
from chain.types import Address, Hash32, Leaf, Wei

log = logging.getLogger(__name__)
KEPT: Final = 2
"""The tree that pays, and the one that waits to."""


@dataclass(slots=True)
class Memory:
    """The trees of one distributor that were needed last; no method raises for what is on the disk."""

    chain_id: int
    distributor: Address
    folder: Path | None = None
    """Where the next process finds them, one file each; None keeps them for this one only."""
    _trees: dict[tuple[Hash32, int], PostedTree] = field(default_factory=dict)
    """By commitment and depth, the one that was needed last at the end."""
    _said: set[str] = field(default_factory=set)
    _written: set[Hash32] = field(default_factory=set)
    """Those that have a file; a write that failed is tried again with the next look."""
    _unread: set[str] = field(default_factory=set)
    """Files that could not be read for a moment, and may be needed after it."""

    def recall(self, commitment: Hash32, total: Wei, depth: int) -> PostedTree | None:
        """Return the tree that stands on the chain as this, or None where it is not remembered."""
        tree = self._trees.get((commitment, depth)) or self._read(commitment, total, depth)
        if tree is not None:
            self._need(tree)
        return tree

    def keep(self, commitment: Hash32, total: Wei, depth: int, leaves: Sequence[Leaf]) -> PostedTree | None:
        """Return and remember the tree of these leaves if it is what stands on the chain as this, or None."""
        known = self._trees.get((commitment, depth))
        tree = known or PostedTree.committed(commitment, total, depth, leaves)
        if tree is not None:
            self._need(tree)
        if tree is not None and tree.commitment not in self._written and self.folder is not None:
            self._write(self.folder, tree, leaves)
        return tree

    def _need(self, tree: PostedTree) -> None:
        key = tree.commitment, tree.depth
        self._trees.pop(key, None)
        self._trees[key] = tree
        for old in list(self._trees)[:-KEPT]:
            del self._trees[old]

    # -- the folder ----------------------------------------------------------------------------------------------

    def _name(self, commitment: Hash32) -> str:
        return f"{self.chain_id}-{self.distributor}-{commitment}.jsonl"

    def _read(self, commitment: Hash32, total: Wei, depth: int) -> PostedTree | None:
        if self.folder is None:
            return None
        file = self.folder / self._name(commitment)
        try:
            tree = PostedTree.committed(commitment, total, depth, self._leaves(file.read_bytes()))
            why = "it has other leaves than the root that pays"
        except FileNotFoundError:
            return None
        except OSError as error:
            self._unread.add(file.name)
            tree, why = None, f"it cannot be read: {error.strerror}"
        except BundleError as error:
            tree, why = None, str(error)
        except (HapticError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            tree, why = None, f"it is no list of leaves ({type(error).__name__}: {error})"
        else:
            self._unread.discard(file.name)
            if tree is not None:
                self._written.add(commitment)
        if tree is None:
            self._say(f"{file} is ignored: {why}. The bundle is read instead")
        return tree

    def _leaves(self, data: bytes) -> list[Leaf]:
        """Return the leaves of a file, whatever they are worth; many kinds of error where it is none of ours."""
        first, *lines = data.splitlines()
        header = json.loads(first)
        chain, distributor = header["chainId"], header["distributor"]
        if (chain, distributor) != (self.chain_id, self.distributor):
            raise BundleError(f"it is of the distributor {distributor!r} on chain {chain!r}")
        return [_leaf(json.loads(line)) for line in lines]

    def _write(self, folder: Path, tree: PostedTree, leaves: Sequence[Leaf]) -> None:
        """Write a tree whole or not at all, then delete the files of those that are forgotten."""
        name = self._name(tree.commitment)
        header = {
            "chainId": self.chain_id, "distributor": self.distributor, "root": tree.root, "sum": str(tree.sum),
            "depth": tree.depth,
        }  # fmt: skip
        fresh = folder / f".{name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                file.write(canonical(header) + b"\n")
                for leaf in leaves:
                    line = {"account": leaf.account, "cumulative": str(leaf.cumulative)}
                    file.write(canonical(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(folder / name)
            self._written.add(tree.commitment)
            needed = self._unread | {self._name(commitment) for commitment, _ in self._trees}
            for old in folder.glob(f"{self.chain_id}-{self.distributor}-*.jsonl"):
                if old.name not in needed:
                    old.unlink(missing_ok=True)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            self._say(
                f"what {folder} should keep is not written ({error.strerror}): the watch goes on, but who starts "
                "it again needs the bundles; make the folder writable, or name another"
            )

    def _say(self, text: str) -> None:
        """Log something once, however many looks come to it."""
        if text not in self._said:
            self._said.add(text)
            log.warning(text)


def _leaf(line: dict[str, Any]) -> Leaf:
    return Leaf(parse_address(line["account"]), Wei(int(line["cumulative"])))
