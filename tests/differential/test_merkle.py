"""The ledger root against OpenZeppelin's own merkle-tree library, and the laws of its proofs."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.errors import BundleError
from chain.merkle import EMPTY_ROOT, LedgerTree, ledger_root, verify_ledger_proof
from chain.types import Address, Hash32

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors/ledger_root.json").read_text())
Entries = list[tuple[Hash32, Address]]


def entries_of(count: int) -> Entries:
    """Return the entries that the vectors were made of."""
    digests = [sha256(f"digest {i}".encode()).hexdigest() for i in range(count)]
    wallets = [sha256(f"wallet {i % 4}".encode()).hexdigest()[:40] for i in range(count)]
    return [(Hash32("0x" + d), Address("0x" + w)) for d, w in zip(digests, wallets, strict=True)]


@pytest.mark.parametrize("tree", VECTORS["trees"], ids=lambda t: f"{t['n']} entries")
def test_roots_and_proofs_are_those_of_openzeppelin(tree: dict[str, Any]) -> None:
    entries = entries_of(tree["n"])
    assert ledger_root(entries) == tree["root"]
    assert list(LedgerTree(entries).proof(entries[-1][0])) == tree["proof_of_last"]
    assert verify_ledger_proof(Hash32(tree["root"]), *entries[-1], tree["proof_of_last"])


@given(st.integers(1, 20), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_neither_order_nor_repetition_of_entries_matters(count: int, luck: random.Random) -> None:
    entries = entries_of(count)
    assert ledger_root(luck.choices(entries, k=count) + luck.sample(entries, count)) == ledger_root(entries)


@given(st.integers(1, 20))
@settings(deadline=None)
def test_every_ranking_is_proven_and_nothing_else_is(count: int) -> None:
    entries = entries_of(count)
    root, (stranger, _) = ledger_root(entries), entries_of(count + 1)[-1]
    for digest, wallet in entries:
        proof = LedgerTree(entries).proof(digest)
        assert verify_ledger_proof(root, digest, wallet, proof)
        assert not verify_ledger_proof(root, digest, Address("0x" + 40 * "1"), proof)
        assert not verify_ledger_proof(root, stranger, wallet, proof)
        assert not verify_ledger_proof(root, digest, wallet, (*proof, root))
        for level in range(len(proof)):
            assert not verify_ledger_proof(
                root, digest, wallet, (*proof[:level], stranger, *proof[level + 1 :])
            )


@pytest.mark.parametrize("sibling", ["0x", "0x12", "0x" + 128 * "a", "0x" + 64 * "g"])
def test_a_malformed_proof_proves_nothing(sibling: str) -> None:
    entries = entries_of(2)
    assert not verify_ledger_proof(ledger_root(entries), *entries[0], [Hash32(sibling)])


def test_a_ledger_of_nothing_has_the_empty_root_and_proves_nothing() -> None:
    assert ledger_root([]) == EMPTY_ROOT
    assert not verify_ledger_proof(EMPTY_ROOT, *entries_of(1)[0], [])


def test_a_digest_that_is_not_in_the_ledger_has_no_proof() -> None:
    with pytest.raises(BundleError, match="is not in the ledger of 2 rankings"):
        LedgerTree(entries_of(2)).proof(Hash32("0x" + 64 * "1"))


def test_one_digest_of_two_wallets_is_refused() -> None:
    (digest, wallet), other = entries_of(1)[0], Address("0x" + 40 * "1")
    with pytest.raises(BundleError, match=f"{digest} is of {min(wallet, other)} and of {max(wallet, other)}"):
        ledger_root([(digest, wallet), (digest, other)])
