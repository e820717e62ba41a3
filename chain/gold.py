"""Gold, tasks whose answer is known: the commitment to it before the epoch, and when it proves wrong after; pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chain.canonical import canonical, hash_of
from chain.feedback import Comparisons
from chain.hashing import keccak256
from chain.merkle import ledger_root
from chain.types import NOBODY, ONE, Hash32, PairResult

SURE: Final = (ONE + 900_000) // 2
"""Confidence of a label whose consensus is at least .9."""


@dataclass(frozen=True, slots=True)
class Gold:
    """The known answer to a task: dense ranks in the order of the task's response hashes, and its salt."""

    task: Hash32
    ranks: tuple[int, ...]
    salt: Hash32


def salt_of(seed: bytes, task: Hash32) -> Hash32:
    """Return the salt that hides whether a task is gold, and its answer, until the seed is revealed."""
    return Hash32("0x" + keccak256(seed + b"gold" + bytes.fromhex(task[2:])).hex())


def gold_digest(gold: Gold) -> Hash32:
    """Return keccak of one salted answer's canonical JSON: a leaf of the gold root."""
    return hash_of(canonical({"task": gold.task, "ranks": list(gold.ranks), "salt": gold.salt}))


def gold_root(tasks: Iterable[Hash32], gold: Mapping[Hash32, Gold], seed: bytes) -> Hash32:
    """Return the commitment to an epoch's tasks and answers: a StandardMerkleTree of (digest, address zero).

    Every task has a leaf, an ordinary one with an empty answer: so no task can be added, left out or exchanged
    once hand-outs have begun, which an operator could choose by who sees what.
    """
    answers = (gold.get(t) or Gold(t, (), salt_of(seed, t)) for t in tasks)
    return ledger_root((gold_digest(g), NOBODY) for g in answers)


def judges(found: Comparisons) -> Counter[Hash32]:
    """Return how many wallets say of each gold task how it is ordered, be it for its answer or against it.

    Whoever flags a task or ties all of it says nothing of that; whoever orders any two of its responses orders two that
    its answer does, unless that orders none.
    """
    gold = [pair.gold for pair in found.pairs]
    rows = zip(found.columns.wallet, found.columns.pair, strict=True)
    said = {(found.keys[pair].task, wallet) for wallet, pair in rows if gold[pair]}
    return Counter(task for task, _ in said)


def wrong_gold(found: Comparisons, labels: Sequence[PairResult], least: int) -> frozenset[Hash32]:
    """Return the gold tasks whose answer is refuted: by `least` judges or more, surely, and on every pair.

    Gold has no part in a label's log-odds but by the reliability of who gave it.
    """
    orders = judges(found)
    said: defaultdict[Hash32, list[bool]] = defaultdict(list)
    for key, pair, label in zip(found.keys, found.pairs, labels, strict=True):
        if pair.gold:
            opposes = label.log_odds * pair.gold < 0
            said[key.task].append(opposes and label.confidence >= SURE)
    return frozenset(t for t, opposed in said.items() if all(opposed) and orders[t] >= least)
