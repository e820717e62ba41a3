"""Each thing that a stranger can check about an epoch's evidence, broken once and named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount

from chain.assignment import display_order, epoch_seed, method_of, seed_commitment, task_point
from chain.bundle import Evidence, SignedRanking, SignedSession
from chain.canonical import text_hash
from chain.errors import SignatureError, VerifyError
from chain.evidence import CLOCK_SKEW_S, FINAL_WITHIN_S, check_evidence, check_session, check_signer
from chain.feedback import summary_of
from chain.gold import Gold
from chain.keys import address_of
from chain.messages import Domain, recover, sign
from chain.rules import METHODS
from chain.types import Address, Epoch, Hash32
from tests.worlds import (
    DISTRIBUTOR,
    DOMAIN,
    GENESIS,
    KEYS,
    LENGTH,
    PEOPLE,
    evidence_of,
    first_standing,
    seed_of,
    session_of,
)

GOOD = evidence_of(Random(7), first_standing())
BY_SESSION = next(r for r in GOOD.rankings if r.ranking.wallet == address_of(PEOPLE[1]))
ALL_KEYS: dict[str, LocalAccount] = {address_of(p): p for p in PEOPLE}


def _named(evidence: Evidence, match: str) -> None:
    with pytest.raises(VerifyError, match=match):
        check_evidence(evidence, DOMAIN)


def _with(at: int, **changes: Any) -> Evidence:
    """Return the good evidence with one entry of the log changed; the wallet signs it anew."""
    entry = GOOD.rankings[at]
    said = replace(entry.ranking, **{k: v for k, v in changes.items() if hasattr(entry.ranking, k)})
    if said != entry.ranking:
        entry = replace(entry, ranking=said, signature=sign(said, DOMAIN, ALL_KEYS[said.wallet]))
    rest = {k: v for k, v in changes.items() if not hasattr(entry.ranking, k)}
    return _log([*GOOD.rankings[:at], replace(entry, **rest), *GOOD.rankings[at + 1 :]])


def _log(rankings: Iterable[SignedRanking], **changes: Any) -> Evidence:
    return replace(GOOD, rankings=tuple(rankings), **changes)


def _numbered(rankings: Iterable[SignedRanking]) -> list[SignedRanking]:
    return [replace(r, position=i) for i, r in enumerate(rankings)]


def test_good_evidence_gives_the_digest_of_every_ranking() -> None:
    digests = check_evidence(GOOD, DOMAIN)
    assert digests == {r.position: r.ranking.digest(DOMAIN) for r in GOOD.rankings}
    assert len(digests) > 10


def test_the_signer_of_each_message_is_recovered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery is what most of a close's time goes into."""
    asked: list[str] = []

    def counted(digest: Hash32, signature: str) -> Address:
        asked.append(signature)
        return recover(digest, signature)

    monkeypatch.setattr("chain.evidence.recover", counted)
    check_evidence(GOOD, DOMAIN)
    assert sorted(asked) == sorted(x.signature for x in (*GOOD.rankings, *GOOD.sessions))


@pytest.mark.parametrize("at", [0, 3])
def test_a_dropped_ranking_leaves_a_gap(at: int) -> None:
    _named(
        _log([*GOOD.rankings[:at], *GOOD.rankings[at + 1 :]]),
        rf"ranking at position {at + 1}: expected position {at}; one is missing or added",
    )


def test_a_position_that_stands_twice_is_named() -> None:
    _named(_log([GOOD.rankings[0], *GOOD.rankings]), "ranking at position 0: expected position 1")


def test_a_revision_that_is_not_new_is_named() -> None:
    again = _numbered([*GOOD.rankings, GOOD.rankings[2]])
    _named(_log(again), rf"ranking at position {len(again) - 1}: revision 0 of .* does not follow")


def test_revisions_count_from_0_without_a_gap() -> None:
    last = GOOD.rankings[-1].position
    _named(_with(last, revision=7), f"ranking at position {last}: revision 7 of .* does not follow revision")


def test_revisions_only_grow() -> None:
    at = next(i for i, r in enumerate(GOOD.rankings) if r.ranking.revision == 1)
    assert GOOD.rankings[at - 1].ranking.task == GOOD.rankings[at].ranking.task
    swapped = _numbered([*GOOD.rankings[: at - 1], GOOD.rankings[at], GOOD.rankings[at - 1]])
    _named(_log(swapped), rf"ranking at position {at - 1}: revision 1 of .* does not follow revision -1")


def test_a_ranking_signed_by_a_stranger_is_named() -> None:
    entry = GOOD.rankings[0]
    forged = replace(entry, signature=sign(entry.ranking, DOMAIN, PEOPLE[7]))
    _named(
        _log([forged, *GOOD.rankings[1:]]),
        f"ranking at position 0 by {entry.ranking.wallet}: .*signed by {address_of(PEOPLE[7])}, which",
    )


def test_a_ranking_signed_for_another_chain_or_vault_is_named() -> None:
    for domain in (Domain(1, DOMAIN.vault), Domain(DOMAIN.chain_id, address_of(PEOPLE[0]))):
        entry = GOOD.rankings[0]
        elsewhere = replace(entry, signature=sign(entry.ranking, domain, PEOPLE[0]))
        _named(_log([elsewhere, *GOOD.rankings[1:]]), "ranking at position 0 .*check the key, the chain id")


def test_a_changed_rank_is_named_even_with_a_matching_summary() -> None:
    at = next(
        i for i, r in enumerate(GOOD.rankings) if r.ranking.method == "ranking" and len(r.ranking.ranks) > 2
    )
    said = GOOD.rankings[at].ranking
    k = len(said.ranks)
    other = tuple(range(1, k + 1)) if said.ranks != tuple(range(1, k + 1)) else tuple(range(k, 0, -1))
    changed = replace(GOOD.rankings[at], ranking=replace(said, ranks=other, summary=summary_of(other)))
    _named(
        _log([*GOOD.rankings[:at], changed, *GOOD.rankings[at + 1 :]]),
        f"ranking at position {at} by .*signed by",
    )


def test_a_malformed_signature_is_named() -> None:
    _named(_with(0, signature="0x12"), "ranking at position 0 .*expected 65 bytes")


def test_a_ranking_of_another_epoch_is_named() -> None:
    _named(_with(0, epoch=1), "ranking at position 0 .*it is for epoch 1, not 0")


def test_a_ranking_of_an_unknown_task_is_named() -> None:
    last, strange = GOOD.rankings[-1].position, text_hash("?")
    _named(_with(last, task=strange, revision=0), f"ranking at position {last} .*task {strange} is unknown")


def test_two_tasks_that_compare_the_same_are_named() -> None:
    name, task = max(GOOD.tasks.items(), key=lambda item: len(item[1].responses))
    twin = replace(task, methods=("ranking",)).sealed(seed_of(0))
    evidence = replace(GOOD, tasks={**GOOD.tasks, twin.hash(): twin})
    _named(evidence, f"task {twin.hash()}: it compares the same responses as task {name}")


@pytest.mark.parametrize("at", [GENESIS - 1, GENESIS + LENGTH])
def test_a_ranking_that_came_outside_the_epoch_is_named(at: int) -> None:
    _named(_with(0, received_at=at), f"ranking at position 0 .*received at {at}, outside")


@pytest.mark.parametrize("at", [GENESIS, GENESIS + LENGTH - 1])
def test_the_first_and_the_last_second_are_inside(at: int) -> None:
    all_then = _log(
        (replace(r, received_at=at) for r in GOOD.rankings),
        handouts=tuple(replace(h, at=at) for h in GOOD.handouts),
        skips=tuple(replace(s, at=at) for s in GOOD.skips),
    )
    assert len(check_evidence(all_then, DOMAIN)) == len(GOOD.rankings)


@pytest.mark.parametrize("at", [GENESIS - 1, GENESIS + LENGTH])
def test_a_hand_out_or_a_skip_outside_the_epoch_is_named(at: int) -> None:
    entry, skip = GOOD.handouts[3], GOOD.skips[0]
    moved = (*GOOD.handouts[:3], replace(entry, at=at), *GOOD.handouts[4:])
    _named(replace(GOOD, handouts=moved), f"hand-out {entry.number} of {entry.wallet}: at {at}, outside")
    moved_skips = (replace(skip, at=at), *GOOD.skips[1:])
    _named(replace(GOOD, skips=moved_skips), f"skip {skip.number} of {skip.wallet}: at {at}, outside")


def test_who_may_be_asked_is_part_of_a_tasks_name() -> None:
    task, one, two = next(iter(GOOD.tasks.values())), address_of(PEOPLE[0]), address_of(PEOPLE[1])
    kinds = [{}, {"author": one}, {"author": two}, {"assignees": (one,)}, {"assignees": (one, two)}]
    assert len({replace(task, **kind).hash() for kind in kinds}) == len(kinds)


def test_the_same_task_has_one_name_in_an_epoch_and_another_in_the_next() -> None:
    task = replace(next(iter(GOOD.tasks.values())), salt="")
    first, second = task.sealed(seed_of(0)), task.sealed(seed_of(1))
    assert len({task.hash(), first.hash(), second.hash()}) == 3
    assert (first.sealed(seed_of(0)), second.sealed(seed_of(0))) == (first, first)
    assert len({t.salt for t in GOOD.tasks.values()}) == len(GOOD.tasks)


def test_a_name_that_was_chosen_by_its_salt_is_named() -> None:
    name, task = next(iter(GOOD.tasks.items()))
    chosen = replace(task, salt=text_hash("chosen"))
    evidence = replace(
        GOOD, tasks={chosen.hash(): chosen, **{n: t for n, t in GOOD.tasks.items() if n != name}}
    )
    _named(
        evidence, f"task {chosen.hash()}: its salt is '{chosen.salt}'; .* the epoch's seed draws {task.salt}"
    )


def test_a_ranking_without_its_hand_out_is_named() -> None:
    _named(replace(GOOD, handouts=GOOD.handouts[1:]), f"of {GOOD.handouts[1].wallet}: expected number 0")
    _named(replace(GOOD, handouts=(), skips=()), "ranking at position 0 by .*was not handed to the wallet")


def test_another_method_than_the_drawn_one_is_named() -> None:
    method = next(m for m in METHODS if m != GOOD.rankings[0].ranking.method)
    _named(_with(0, method=method), f"ranking at position 0 .*method is '{method}'; this wallet was asked by")


def test_a_task_that_the_drawn_method_cannot_judge_is_named() -> None:
    said = GOOD.rankings[0].ranking
    task = replace(GOOD.tasks[said.task], methods=tuple(m for m in METHODS if m != said.method))
    evidence = replace(GOOD, tasks={**GOOD.tasks, said.task: task.sealed(seed_of(0))})
    _named(evidence, f"ranking at position 0 .*cannot be judged by {said.method}")


def test_another_order_than_the_drawn_one_is_named() -> None:
    shown = GOOD.rankings[0].ranking.shown
    _named(
        _with(0, shown=shown[::-1]), "ranking at position 0 .*the order or number differs from what was shown"
    )


def test_another_seed_than_the_one_that_was_shown_by_is_named() -> None:
    header = replace(GOOD.header, seed="0x" + seed_of(1).hex())
    _named(
        replace(GOOD, header=header), f"task {next(iter(GOOD.tasks))}: its salt is .* the epoch's seed draws"
    )


def test_gold_of_an_unknown_task_or_of_another_size_is_named() -> None:
    name, gold = next(iter(GOOD.gold.items()))
    _named(replace(GOOD, gold={name: replace(gold, ranks=(*gold.ranks, 1))}), f"gold of task {name}")
    strange = text_hash("?")
    _named(replace(GOOD, gold={strange: Gold(strange, (1, 2), strange)}), f"gold of task {strange}")


def _sessions(*sessions: SignedSession) -> Evidence:
    """Return the good evidence with other sessions of the second person."""
    others = [s for s in GOOD.sessions if s.session.wallet != address_of(PEOPLE[1])]
    return replace(GOOD, sessions=(*sessions, *others))


def test_a_key_without_a_session_is_a_stranger() -> None:
    _named(_sessions(), f"ranking at position {BY_SESSION.position} by .*which is neither the wallet")


def test_a_session_of_another_epoch_is_named() -> None:
    _named(
        _sessions(session_of(PEOPLE[1], epoch=1)),
        f"session of {address_of(PEOPLE[1])}: session is for epoch 1, not 0",
    )


def test_a_session_that_its_wallet_did_not_sign_is_named() -> None:
    good = session_of(PEOPLE[1])
    forged = replace(good, signature=sign(good.session, DOMAIN, PEOPLE[7]))
    _named(_sessions(forged), f"session of {address_of(PEOPLE[1])}.*was signed by {address_of(PEOPLE[7])}")


def test_a_session_of_one_wallet_does_not_sign_for_another() -> None:
    stolen = replace(BY_SESSION, signature=sign(BY_SESSION.ranking, DOMAIN, KEYS[address_of(PEOPLE[3])]))
    at = BY_SESSION.position
    _named(
        _log([*GOOD.rankings[:at], stolen, *GOOD.rankings[at + 1 :]]), f"ranking at position {at} .*neither"
    )


def test_a_ranking_that_says_it_was_signed_after_it_came_is_named() -> None:
    came = GOOD.rankings[0].received_at
    assert check_evidence(_with(0, signed_at=came + CLOCK_SKEW_S), DOMAIN)
    late = came + CLOCK_SKEW_S + 1
    _named(
        _with(0, signed_at=late), f"ranking at position 0 .*signed at {late}, after it was received at {came}"
    )


def test_a_ranking_that_came_after_its_session_is_named_whatever_it_says_of_the_time() -> None:
    over = session_of(PEOPLE[1], not_after=BY_SESSION.received_at)
    assert BY_SESSION.ranking.signed_at < over.session.not_after
    _named(_sessions(over), f"ranking at position {BY_SESSION.position} .*ended at")


def test_a_ranking_signed_after_its_session_is_refused() -> None:
    early = session_of(PEOPLE[1], not_after=BY_SESSION.ranking.signed_at - 1).session
    with pytest.raises(SignatureError, match=f"ended at {early.not_after}; sign a new session"):
        check_signer(BY_SESSION.ranking, BY_SESSION.signature, DOMAIN, [early])


def test_a_backdated_signature_does_not_outlive_its_session() -> None:
    assert BY_SESSION.ranking.signed_at < BY_SESSION.received_at
    over = session_of(PEOPLE[1], not_after=BY_SESSION.received_at)
    _named(_sessions(over), f"ranking at position {BY_SESSION.position} .*ended at {over.session.not_after}")


def test_a_session_signed_anew_for_the_same_key_lasts_longer() -> None:
    said = BY_SESSION.ranking
    early, later = (session_of(PEOPLE[1], not_after=said.signed_at + more).session for more in (-1, 0))
    for sessions in ((early, later), (later, early)):
        assert check_signer(said, BY_SESSION.signature, DOMAIN, sessions) == said.digest(DOMAIN)


def test_a_key_that_signs_more_than_its_wallet_allowed_is_named() -> None:
    used = sum(r.ranking.wallet == address_of(PEOPLE[1]) for r in GOOD.rankings)
    key = address_of(KEYS[address_of(PEOPLE[1])])
    assert check_evidence(_sessions(session_of(PEOPLE[1], most=used)), DOMAIN)
    _named(
        _sessions(session_of(PEOPLE[1], most=used - 1)),
        f"session key {key} of {address_of(PEOPLE[1])} signed {used} rankings, its limit is {used - 1}",
    )


def test_a_wallet_that_signs_itself_has_no_limit() -> None:
    entry = GOOD.rankings[0]
    assert check_signer(entry.ranking, entry.signature, DOMAIN, []) == entry.ranking.digest(DOMAIN)


def test_a_session_is_returned_when_its_wallet_signed_it() -> None:
    good = session_of(PEOPLE[1], epoch=4)
    assert check_session(good, DOMAIN, 4) == good.session
    with pytest.raises(SignatureError, match="session is for epoch 4, not 5; sign a new one"):
        check_session(good, DOMAIN, 5)


def test_a_draw_depends_on_everything_it_is_for() -> None:
    task, hashes = max(((t, k.hashes) for t, k in GOOD.tasks.items()), key=lambda x: len(x[1]))
    draws: list[Any] = [
        task_point(seed_of(e), address_of(p), turn) for e in range(2) for p in PEOPLE[:2] for turn in range(2)
    ]  # fmt: skip
    assert len(set(draws)) == len(draws)
    by_epoch = {display_order(seed_of(e), address_of(PEOPLE[0]), task, hashes) for e in range(9)}
    by_wallet = {display_order(seed_of(0), address_of(p), task, hashes) for p in PEOPLE}
    assert min(len(by_epoch), len(by_wallet)) > 5
    assert all(sorted(order) == sorted(hashes) for order in by_epoch | by_wallet)
    assert {method_of(seed_of(e), address_of(p), METHODS) for e in range(9) for p in PEOPLE} == set(METHODS)


def test_an_epochs_seed_is_secret_until_it_is_revealed_and_then_fits_its_commitment() -> None:
    places = [(b"master", 1, DISTRIBUTOR, Epoch(e)) for e in range(3)]
    places += [(b"other", 1, DISTRIBUTOR, Epoch(0)), (b"master", 2, DISTRIBUTOR, Epoch(0))]
    places += [(b"master", 1, DOMAIN.vault, Epoch(0))]
    seeds = [epoch_seed(*place) for place in places]
    assert len({seed_commitment(s) for s in seeds}) == len(places)
    assert all(len(s) == 32 and seed_commitment(s) != "0x" + s.hex() for s in seeds)


class _Code:
    """Contract wallets that accept each a signature, from one block on until another."""

    def __init__(self, accepted: dict[Address, tuple[str, range]]) -> None:
        self.accepted = accepted

    def time(self, block: int) -> int:
        return GENESIS + block

    def accepts(self, wallet: Address, _digest: Hash32, signature: str, block: int) -> bool:
        known, blocks = self.accepted.get(wallet, ("", range(0)))
        return signature == known and block in blocks


def _by_code(signature: str, block: int) -> Evidence:
    """Return the good evidence with its first ranking signed by what is no key's signature."""
    return _log([replace(GOOD.rankings[0], signature=signature, block=block), *GOOD.rankings[1:]])


FIRST = GOOD.rankings[0]
CAME = FIRST.received_at - GENESIS


def test_what_a_wallets_code_accepts_counts_at_the_block_that_is_named() -> None:
    code = _Code({FIRST.ranking.wallet: ("0xabcd", range(1, CAME + 1))})
    found = check_evidence(_by_code("0xabcd", CAME), DOMAIN, code)
    assert found[0] == FIRST.ranking.digest(DOMAIN)
    for signature, block in (("0xabce", CAME), ("0xabcd", 0)):
        with pytest.raises(VerifyError, match=r"ranking at position 0 .*(does not accept|expected 65 bytes)"):
            check_evidence(_by_code(signature, block), DOMAIN, code)


@pytest.mark.parametrize("block", [CAME - FINAL_WITHIN_S - 1, CAME + 1])
def test_code_is_asked_within_two_hours_before_the_ranking_came(block: int) -> None:
    code = _Code({FIRST.ranking.wallet: ("0xabcd", range(-(10**6), 10**6))})
    with pytest.raises(VerifyError, match=rf"ranking at position 0 .*block {block} is of .* outside"):
        check_evidence(_by_code("0xabcd", block), DOMAIN, code)
    for fine in (CAME - FINAL_WITHIN_S, CAME):
        assert check_evidence(_by_code("0xabcd", fine), DOMAIN, code)


def test_what_a_key_signed_names_no_block() -> None:
    _named(_by_code(FIRST.signature, 5), "ranking at position 0 .*block is 5, expected 0")
    session = replace(GOOD.sessions[0], block=5)
    _named(replace(GOOD, sessions=(session, *GOOD.sessions[1:])), "session of .*block is 5, expected 0")


def test_a_session_signed_in_later_does_not_undo_what_code_accepted_before() -> None:
    """Its key may be the owner's, which the wallet's code knows: the ranking came before any session named it."""
    owner = next(p for p in PEOPLE if address_of(p) != FIRST.ranking.wallet)
    signature = sign(FIRST.ranking, DOMAIN, owner)
    wallet = FIRST.ranking.wallet
    code = _Code({wallet: (signature, range(1, CAME + 1))})
    said = replace(session_of(ALL_KEYS[wallet], epoch=0).session, key=address_of(owner), max_judgements=0)
    later = SignedSession(said, sign(said, DOMAIN, ALL_KEYS[wallet]))
    found = replace(_by_code(signature, CAME), sessions=(*GOOD.sessions, later))
    assert check_evidence(found, DOMAIN, code)[0] == FIRST.ranking.digest(DOMAIN)
    assert check_evidence(replace(found, sessions=GOOD.sessions), DOMAIN, code)


def test_without_a_chain_what_code_accepted_is_not_taken_for_good() -> None:
    _named(_by_code("0xabcd", CAME), "ranking at position 0 .*there is no chain to ask it at")


def test_a_session_by_code_is_of_its_epoch() -> None:
    signed, others = GOOD.sessions[0], GOOD.sessions[1:]
    code = _Code({signed.session.wallet: ("0xabcd", range(-(10**6), 10**6))})
    for block in (-FINAL_WITHIN_S, LENGTH - 1):
        changed = replace(signed, signature="0xabcd", block=block)
        assert check_evidence(replace(GOOD, sessions=(changed, *others)), DOMAIN, code)
    for block in (-FINAL_WITHIN_S - 1, LENGTH):
        changed = replace(signed, signature="0xabcd", block=block)
        with pytest.raises(VerifyError, match=f"session of .*block {block} is of .* outside"):
            check_evidence(replace(GOOD, sessions=(changed, *others)), DOMAIN, code)
