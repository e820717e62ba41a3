"""Laws of the close: two engines give the same bytes, no money appears or is lost, pools await their run."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.bundle import Evidence, Run
from chain.canonical import hash_of, text_hash
from chain.epoch import (
    FAST,
    SPEC,
    Closed,
    Engine,
    close,
    preference_lines,
    snapshot_hash,
)
from chain.evidence import check_evidence
from chain.gold import gold_root
from chain.merkle import ledger_root
from chain.rules import Rules
from chain.types import ZERO_HASH, Epoch
from tests.worlds import DOMAIN, GENEROUS, evidence_of, facts_of, first_standing

worlds = settings(max_examples=15)
fundings = st.lists(
    st.dictionaries(st.sampled_from([0, 1, 2, 3, 2**64 - 1]), st.integers(0, 10**12), max_size=4),
    min_size=1,
    max_size=3,
)
"""Revenue by run, per epoch: of no run, of one that will be known, of one that never is, of a silly one."""


def _declared(epoch: int) -> tuple[Run, ...]:
    """Return what an epoch declares: run 1 in epoch 1, run 2 in epoch 2, each over all epochs before."""
    return (Run(epoch, Epoch(0), Epoch(epoch - 1), text_hash(f"snapshot {epoch}")),) if epoch else ()


def _story(
    seed: int, funded: Sequence[dict[int, int]], engine: Engine, rules: Rules = GENEROUS
) -> list[tuple[Evidence, Closed]]:
    """Return chained epochs; the same seed tells the same story."""
    return [(found, closed) for found, closed, _ in _written(seed, funded, engine, rules)]


def _written(
    seed: int, funded: Sequence[dict[int, int]], engine: Engine, rules: Rules = GENEROUS
) -> list[tuple[Evidence, Closed, bytes]]:
    """Return chained epochs with their bundles."""
    luck, standing, told = Random(seed), first_standing(rules), []
    for epoch, income in enumerate(funded):
        found = evidence_of(luck, standing, epoch=epoch, runs=_declared(epoch), rules=rules)
        digests = {r.position: r.ranking.digest(DOMAIN) for r in found.rankings}
        lines: list[bytes] = []
        closed = close(found, facts_of(epoch, income), standing, engine, digests, lines.append)
        told.append((found, closed, b"".join(lines)))
        standing = closed.standing
    return told


@given(st.integers(0, 2**32), fundings, st.sampled_from([GENEROUS, Rules()]))
@worlds
def test_both_engines_close_chained_epochs_with_the_same_bytes(
    seed: int, funded: list[dict[int, int]], rules: Rules
) -> None:
    for (_, fast, said), (_, spec, said_too) in zip(
        _written(seed, funded, FAST, rules), _written(seed, funded, SPEC, rules), strict=True
    ):
        assert said == said_too
        assert fast.tree.commitment == spec.tree.commitment
        assert fast.standing == spec.standing


def test_chained_epochs_have_the_hashes_that_they_had_when_they_were_first_closed() -> None:
    told = _story(6, [{0: 1000, 2**64 - 1: 7}, {1: 500}, {2: 9}], FAST)
    assert [closed.data_hash for _, closed in told] == [
        "0x55ea563f8b320be71a903ad74405e050c4b0981c49983c9f3b21d8a54f1807ac",
        "0xff2a9857a8958910544b2b60cb525bae8c025fb45cb6a90cda25a57e5b190216",
        "0x034e2ef9315eaf0c8771a500bad271b4286b62fbb8e3c7ca8b8c910dee2adcb1",
    ]


@given(st.integers(0, 2**32), fundings)
@worlds
def test_every_unit_that_came_in_is_allotted_or_carried_and_no_total_falls(
    seed: int, funded: list[dict[int, int]]
) -> None:
    income, before = 0, {}
    for (_, closed), more in zip(_story(seed, funded, FAST), funded, strict=True):
        income += sum(more.values())
        assert closed.tree.sum + sum(closed.standing.carried.values()) == income
        for pool in closed.pools:
            assert sum(pool.shares.values()) + pool.carried_out == pool.funded + pool.carried_in
            assert pool.carried_out in {0, pool.funded + pool.carried_in}
        totals = closed.standing.cumulative
        assert all(totals[account] >= total for account, total in before.items())
        before = dict(totals)


@given(st.integers(0, 2**32))
@worlds
def test_everyone_closes_an_epoch_with_the_evidence_that_can_be_checked(seed: int) -> None:
    for found, closed in _story(seed, [{0: 1}, {}], FAST):
        digests = check_evidence(found, DOMAIN)
        assert list(digests) == list(range(len(found.rankings)))
        assert closed.ledger_root == ledger_root(
            (digests[r.position], r.ranking.wallet) for r in found.rankings
        )


def test_a_pool_waits_until_its_run_is_known_and_then_goes_by_the_epochs_of_its_snapshot() -> None:
    (_, first), (_, second), (_, third) = _story(7, [{1: 100, 9: 5}, {1: 11}, {2: 1000}], FAST)
    assert [(p.run, p.carried_out) for p in first.pools] == [(1, 100), (9, 5)]
    assert first.tree.sum == 0
    paid = {p.run: p for p in second.pools}
    assert (paid[1].carried_in, paid[1].funded, paid[1].carried_out) == (100, 11, 0)
    assert paid[1].shares == {a: v for a, v in SPEC.allocate(111, first.scores).shares.items() if v}
    assert paid[9].carried_out == 5
    both = {a: first.scores.get(a, 0) + second.scores.get(a, 0) for a in (*first.scores, *second.scores)}
    (run_two,) = [p for p in third.pools if p.run == 2]
    assert run_two.shares == {a: v for a, v in SPEC.allocate(1000, both).shares.items() if v}


def test_revenue_of_no_run_goes_by_the_score_of_the_epoch_itself() -> None:
    (_, _), (_, second) = _story(7, [{}, {0: 999}], FAST)
    (pool,) = second.pools
    assert pool.shares == {a: v for a, v in SPEC.allocate(999, second.scores).shares.items() if v}


def test_revenue_of_an_epoch_in_which_nobody_scores_waits_for_one_in_which_somebody_does() -> None:
    standing, digests = first_standing(), {}
    empty = evidence_of(Random(1), standing, tasks=0)
    closed = close(empty, facts_of(0, {0: 50}), standing, FAST, digests)
    assert closed.standing.carried == {0: 50}
    assert closed.ledger_root == ZERO_HASH
    assert gold_root([], {}, bytes(32)) == ZERO_HASH
    busy = evidence_of(Random(7), closed.standing, epoch=1)
    digests = {r.position: r.ranking.digest(DOMAIN) for r in busy.rankings}
    after = close(busy, facts_of(1, {0: 1}), closed.standing, FAST, digests)
    assert (after.tree.sum, dict(after.standing.carried)) == (51, {})


def test_revenue_of_a_run_from_which_nobody_scored_goes_by_the_score_of_the_epoch() -> None:
    quiet = close(
        evidence_of(Random(1), first_standing(), tasks=0), facts_of(0, {1: 50}), first_standing(), FAST, {}
    )
    assert quiet.standing.carried == {1: 50}
    busy = evidence_of(Random(7), quiet.standing, epoch=1, runs=_declared(1))
    digests = {r.position: r.ranking.digest(DOMAIN) for r in busy.rankings}
    after = close(busy, facts_of(1, {}), quiet.standing, FAST, digests)
    (pool,) = after.pools
    assert (pool.run, pool.carried_in, pool.carried_out) == (1, 50, 0)
    assert pool.shares == {a: v for a, v in SPEC.allocate(50, after.scores).shares.items() if v}


def test_an_epoch_hands_on_lambda_states_and_its_hash_but_not_the_states_of_strangers() -> None:
    (_, first, written), (found, second, _) = _written(7, [{}, {}], FAST)
    assert found.header.previous == first.data_hash == hash_of(written)
    assert found.header.lam == first.standing.lam
    by_wallet = dict(zip(first.comparisons.wallets, first.result.wallets, strict=True))
    stakes = dict(zip(first.comparisons.wallets, first.stakes, strict=True))
    expected = SPEC.lambda_next({w: r.w for w, r in by_wallet.items()}, stakes, first_standing().lam)
    assert first.standing.lam == expected != first_standing().lam
    assert set(second.standing.states) == {*first.comparisons.wallets, *second.comparisons.wallets}
    assert len(second.standing.scores) == 2


def test_who_has_no_stake_is_recorded_but_scores_nothing() -> None:
    ((_, closed),) = _story(7, [{0: 100}], FAST)
    poor = [w for w, s in zip(closed.comparisons.wallets, closed.stakes, strict=True) if s == 0]
    assert [closed.scores[w] for w in poor] == [0]
    assert poor[0] not in closed.standing.cumulative


def test_the_preferences_of_an_epoch_name_the_better_text_of_every_labelled_pair() -> None:
    ((found, closed),) = _story(7, [{}], FAST)
    lines = list(preference_lines(found.tasks, closed.comparisons, closed.result, 0))
    labelled = [
        (key, pair.label)
        for key, pair in zip(closed.comparisons.keys, closed.result.pairs, strict=True)
        if pair.label
    ]
    assert len(lines) == len(labelled) > 0
    for raw, (key, label) in zip(lines, labelled, strict=True):
        line = json.loads(raw)
        better, worse = (key.a, key.b) if label > 0 else (key.b, key.a)
        assert (text_hash(line["chosen"]), text_hash(line["rejected"])) == (better, worse)
        assert line["prompt"] == found.tasks[key.task].prompt
        rows = [r for r in closed.comparisons.rows if closed.comparisons.keys[r.pair] == key]
        assert line["judgements"] == len(rows)


def test_a_close_says_its_stages_and_leaves_the_collector_as_it_was() -> None:
    found, stages = evidence_of(Random(7), first_standing()), []
    digests = {r.position: r.ranking.digest(DOMAIN) for r in found.rankings}

    def begin(stage: str) -> None:
        stages.append((stage, gc.isenabled()))

    close(found, facts_of(0, {}), first_standing(), FAST, digests, begin=begin)
    assert stages == [(s, False) for s in ("comparisons", "score", "payouts", "trees", "bundle")]
    assert gc.isenabled()
    with pytest.raises(KeyError):
        close(found, facts_of(0, {}), first_standing(), FAST, {})
    assert gc.isenabled()
    with off():
        close(found, facts_of(0, {}), first_standing(), FAST, digests)
        assert not gc.isenabled()


@contextmanager
def off() -> Iterator[None]:
    """Do without the collector, as a caller may."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_the_snapshot_of_a_run_is_the_sha256_of_its_epochs_one_after_the_other() -> None:
    assert snapshot_hash([b"a\n", b"b\n"]) == "0x" + hashlib.sha256(b"a\nb\n").hexdigest()


@pytest.mark.parametrize("field", ["n1", "z_num", "c0", "kappa"])
def test_every_parameter_reaches_the_rules_hash(field: str) -> None:
    params = replace(GENEROUS.params, **{field: 5})
    assert replace(GENEROUS, params=params).hash() != GENEROUS.hash()
