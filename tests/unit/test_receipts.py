"""A promise that was kept finds its ranking or hand-out in the log, or proves that it was dropped or moved."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from chain.assignment import display_order
from chain.bundle import Evidence
from chain.canonical import text_hash
from chain.messages import Handout, Receipt, checksum, sign
from chain.receipts import Kept, Unread, check_promises, read_promises
from tests.worlds import DOMAIN, PEOPLE, RECEIPTS, evidence_of, first_standing

GOOD = evidence_of(Random(7), first_standing())
SEED = bytes.fromhex(GOOD.header.seed[2:])
DIGESTS = {r.position: r.ranking.digest(DOMAIN) for r in GOOD.rankings}
KEPT = [
    Kept(receipt, sign(receipt, DOMAIN, RECEIPTS), n + 1)
    for n, r in enumerate(GOOD.rankings)
    for receipt in [Receipt(DIGESTS[r.position], 0, r.position, r.received_at)]
]

HANDED = [
    Kept(promise, sign(promise, DOMAIN, RECEIPTS), n + 1)
    for n, h in enumerate(GOOD.handouts)
    for task in [GOOD.tasks[h.task]]
    for shown in [display_order(SEED, h.wallet, h.task, task.hashes)]
    for promise in [Handout(h.wallet, 0, h.task, text_hash(task.prompt), shown, h.number, h.at)]
]


def _faults(kept: list[Kept], evidence: Evidence = GOOD) -> list[str]:
    digests = {r.position: r.ranking.digest(DOMAIN) for r in evidence.rankings}
    return [f.fault for f in check_promises(kept, evidence, digests, DOMAIN)]


def _other(**changes: int) -> Kept:
    receipt = replace(KEPT[3].promise, **changes)
    return Kept(receipt, sign(receipt, DOMAIN, RECEIPTS), 4)


def test_every_receipt_of_an_honest_log_finds_its_ranking() -> None:
    assert _faults(KEPT) == [""] * len(GOOD.rankings)
    assert len(KEPT) > 10


@pytest.mark.parametrize("at", [0, 3, len(KEPT) - 1])
def test_a_dropped_ranking_is_named_even_if_the_others_move_up(at: int) -> None:
    left = [*GOOD.rankings[:at], *GOOD.rankings[at + 1 :]]
    closed_up = replace(GOOD, rankings=tuple(replace(r, position=i) for i, r in enumerate(left)))
    (fault,) = _faults([KEPT[at]], closed_up)
    assert KEPT[at].promise.digest_of in fault
    assert "was DROPPED" in fault
    faults = _faults(KEPT, closed_up)
    assert sum("DROPPED" in f for f in faults) == 1
    assert sum("it was moved" in f for f in faults) == len(KEPT) - at - 1


def test_a_ranking_that_is_said_to_have_come_at_another_time_is_named() -> None:
    (fault,) = _faults([_other(received_at=KEPT[3].promise.received_at - 1)])
    assert "it was moved" in fault


def test_a_receipt_of_another_signer_proves_nothing_against_the_operator() -> None:
    dropped = replace(GOOD, rankings=GOOD.rankings[:-1])
    forged = replace(KEPT[-1], signature=sign(KEPT[-1].promise, DOMAIN, PEOPLE[0]))
    (fault,) = _faults([forged], dropped)
    assert "the operator names" in fault
    (fault,) = _faults([replace(KEPT[-1], signature="0x")], dropped)
    assert "proves nothing" in fault


def test_promises_of_other_epochs_are_left_out() -> None:
    later = replace(HANDED[0], promise=replace(HANDED[0].promise, epoch=1))
    assert _faults([_other(epoch=1), later]) == []


def _shown(**texts: Any) -> Kept:
    promise = replace(HANDED[0].promise, **texts)
    return replace(HANDED[0], promise=promise, signature=sign(promise, DOMAIN, RECEIPTS))


def test_whoever_was_shown_other_texts_than_the_task_has_can_prove_it() -> None:
    other, shown = text_hash("another"), HANDED[0].promise.shown
    (prompt,) = _faults([_shown(prompt=other)])
    assert "was SHOWN with another prompt" in prompt
    assert other in prompt
    for responses in ((other, *shown[1:]), shown[1:], (*shown, other)):
        (fault,) = _faults([_shown(shown=responses)])
        assert "was SHOWN with other responses" in fault
    # Who could choose the order could choose who comes out ahead, for people like what stands first.
    (order,) = _faults([_shown(shown=tuple(reversed(shown)))])
    assert "in another order than the seed draws" in order
    # Texts are a part of what is signed: who says to have been shown others than were promised is found out.
    (fault,) = _faults([replace(_shown(prompt=other), signature=HANDED[0].signature)])
    assert "a promise signed by" in fault


def test_every_promise_of_an_honest_log_finds_its_hand_out() -> None:
    assert _faults(HANDED) == [""] * len(GOOD.handouts)
    assert len(HANDED) > 10


@pytest.mark.parametrize("at", [0, 3, len(HANDED) - 1])
def test_a_hand_out_that_is_left_out_is_named_even_if_the_others_move_up(at: int) -> None:
    left = [*GOOD.handouts[:at], *GOOD.handouts[at + 1 :]]
    closed_up = replace(GOOD, handouts=tuple(replace(h, number=i) for i, h in enumerate(left)))
    (fault,) = _faults([HANDED[at]], closed_up)
    assert HANDED[at].promise.task in fault
    assert HANDED[at].promise.wallet in fault
    assert f"LEFT OUT: it is not so among the {len(left)} hand-outs" in fault


@pytest.mark.parametrize("part", ["wallet", "task", "at"])
def test_a_hand_out_that_the_log_has_otherwise_is_named(part: str) -> None:
    other = {"wallet": "0x" + "11" * 20, "task": "0x" + "11" * 32, "at": GOOD.handouts[3].at + 1}[part]
    changed = list(GOOD.handouts)
    changed[3] = replace(changed[3], **{part: other})
    faults = _faults(HANDED, replace(GOOD, handouts=tuple(changed)))
    assert [n for n, fault in enumerate(faults) if "LEFT OUT" in fault] == [3]


def test_a_promise_of_another_signer_proves_nothing_against_the_operator() -> None:
    dropped = replace(GOOD, handouts=GOOD.handouts[:-1])
    forged = replace(HANDED[-1], signature=sign(HANDED[-1].promise, DOMAIN, PEOPLE[0]))
    (fault,) = _faults([forged], dropped)
    assert "the operator names" in fault
    (fault,) = _faults([replace(HANDED[-1], signature="0x")], dropped)
    assert "proves nothing" in fault


def test_a_file_is_read_as_it_is_kept() -> None:
    r = KEPT[0]
    answer = {
        "digest": r.promise.digest_of, "epoch": 0, "position": r.promise.position,
        "received_at": r.promise.received_at, "signature": r.signature, "signer": checksum(GOOD.header.receipt_signer),
    }  # fmt: skip
    ranking = GOOD.rankings[0].ranking
    line = json.dumps({"ranking": ranking.to_json(), "comment": "", "receipt": answer})
    h = HANDED[0]
    signed = {"signature": h.signature, "signer": checksum(GOOD.header.receipt_signer)}
    handed = h.promise.to_json() | signed
    found = list(
        read_promises([line, "", line, json.dumps({"handout": handed}), json.dumps({"receipt": answer})])
    )
    whole = replace(r, ranking=ranking)
    assert found == [whole, replace(whole, line=3), replace(h, line=4), replace(r, line=5)]
    odd = (
        {"receipt": answer | {"position": -1}}, {"handout": handed | {"at": "1"}}, {"handout": handed | {"at": True}},
        {"ranking": {}, "receipt": answer}, {"refused": answer},
    )  # fmt: skip
    for broken in ("{", "[]", "{}", "1", '{"handout": 1}', *map(json.dumps, odd), "[" * 100_000, line + line):
        spoiled, after = read_promises([broken, line])
        assert isinstance(spoiled, Unread)
        assert (spoiled.line, spoiled.fault[:27]) == (1, "is none that haptic keeps: ")
        assert after == replace(whole, line=2)


def test_an_answer_that_was_refused_is_told_with_the_reason() -> None:
    (found,) = read_promises(
        [json.dumps({"ranking": {}, "refused": {"epoch": 9}, "why": "it is of epoch 9"})]
    )
    assert found == Unread("keeps an answer that was refused: it is of epoch 9", 1)


def test_a_receipt_dated_into_another_epoch_than_its_ranking_is_found_in_the_rankings_own() -> None:
    ranking = GOOD.rankings[3].ranking
    misdated = replace(_other(epoch=999), ranking=ranking)
    for log in (GOOD, replace(GOOD, rankings=GOOD.rankings[:3])):
        (fault,) = _faults([misdated], log)
        assert "sent for epoch 0, and is promised to the log of epoch 999: MISDATED" in fault
    assert _faults([replace(KEPT[3], ranking=ranking)]) == [""]


def test_a_receipt_kept_with_another_ranking_than_its_own_is_named() -> None:
    (fault,) = _faults([replace(KEPT[3], ranking=GOOD.rankings[4].ranking)])
    assert "is not the one that is kept with its receipt" in fault
