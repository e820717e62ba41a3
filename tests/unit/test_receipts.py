"""A receipt that was kept finds its ranking in the log, or proves that it was dropped or moved."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from chain.bundle import Evidence
from chain.errors import SignatureError
from chain.messages import Receipt, checksum, sign
from chain.receipts import KeptReceipt, check_receipts, read_receipts
from tests.worlds import DOMAIN, PEOPLE, RECEIPTS, evidence_of, first_standing

GOOD = evidence_of(Random(7), first_standing())
DIGESTS = {r.position: r.ranking.digest(DOMAIN) for r in GOOD.rankings}
KEPT = [
    KeptReceipt(receipt, sign(receipt, DOMAIN, RECEIPTS), n + 1)
    for n, r in enumerate(GOOD.rankings)
    for receipt in [Receipt(DIGESTS[r.position], 0, r.position, r.received_at)]
]


def _faults(kept: list[KeptReceipt], evidence: Evidence = GOOD) -> list[str]:
    digests = {r.position: r.ranking.digest(DOMAIN) for r in evidence.rankings}
    return [f.fault for f in check_receipts(kept, evidence, digests, DOMAIN)]


def _other(**changes: int) -> KeptReceipt:
    receipt = replace(KEPT[3].receipt, **changes)
    return KeptReceipt(receipt, sign(receipt, DOMAIN, RECEIPTS), 4)


def test_every_receipt_of_an_honest_log_finds_its_ranking() -> None:
    assert _faults(KEPT) == [""] * len(GOOD.rankings)
    assert len(KEPT) > 10


@pytest.mark.parametrize("at", [0, 3, len(KEPT) - 1])
def test_a_dropped_ranking_is_named_even_if_the_others_move_up(at: int) -> None:
    left = [*GOOD.rankings[:at], *GOOD.rankings[at + 1 :]]
    closed_up = replace(GOOD, rankings=tuple(replace(r, position=i) for i, r in enumerate(left)))
    (fault,) = _faults([KEPT[at]], closed_up)
    assert KEPT[at].receipt.digest_of in fault
    assert "was DROPPED" in fault
    faults = _faults(KEPT, closed_up)
    assert sum("DROPPED" in f for f in faults) == 1
    assert sum("it was moved" in f for f in faults) == len(KEPT) - at - 1


def test_a_ranking_that_is_said_to_have_come_at_another_time_is_named() -> None:
    (fault,) = _faults([_other(received_at=KEPT[3].receipt.received_at - 1)])
    assert "it was moved" in fault


def test_a_receipt_of_another_signer_proves_nothing_against_the_operator() -> None:
    dropped = replace(GOOD, rankings=GOOD.rankings[:-1])
    forged = replace(KEPT[-1], signature=sign(KEPT[-1].receipt, DOMAIN, PEOPLE[0]))
    (fault,) = _faults([forged], dropped)
    assert "the operator names" in fault
    (fault,) = _faults([replace(KEPT[-1], signature="0x")], dropped)
    assert "proves nothing" in fault


def test_receipts_of_other_epochs_are_left_out() -> None:
    assert _faults([_other(epoch=1)]) == []


def test_a_file_is_read_as_it_is_kept() -> None:
    r = KEPT[0]
    answer = {
        "digest": r.receipt.digest_of, "epoch": 0, "position": r.receipt.position,
        "received_at": r.receipt.received_at, "signature": r.signature, "signer": checksum(GOOD.header.receipt_signer),
    }  # fmt: skip
    line = json.dumps({"ranking": {}, "receipt": answer})
    assert list(read_receipts([line, "", line])) == [r, replace(r, line=3)]
    for broken in ("{", "[]", "{}", json.dumps({"receipt": answer | {"position": -1}}), "[" * 100_000):
        with pytest.raises(SignatureError, match="line 2 of the receipts"):
            list(read_receipts([line, broken]))
