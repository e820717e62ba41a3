"""Laws of the score: two implementations agree, nothing but the answers matters, and splitting never pays."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain import score, spec
from chain.errors import ScoreInputError
from chain.score import MAX_HISTORY, MAX_ROWS, Pairs, Rows
from chain.types import ONE, Address, EpochScore, Pair, PairResult, Params, Ratio, Row, WalletState

World = tuple[list[Row], list[Pair], list[WalletState], Params]
MOST = {2: 1, 3: 3, 4: 6, 6: 15}
V1 = Params()
crowded = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def fast(
    rows: Sequence[Row], pairs: Sequence[Pair], states: Sequence[WalletState], params: Params
) -> EpochScore:
    return score.score(Rows.of(rows), Pairs.of(pairs), states, params)


pairs_of = st.builds(Pair, gold=st.integers(-1, 1), bucket=st.integers(0, 4), longer=st.integers(-1, 1))
states_of = st.one_of(
    st.just(WalletState()),
    st.builds(
        WalletState,
        label_n=st.integers(-40 * ONE, 40 * ONE) | st.sampled_from([-MAX_HISTORY, MAX_HISTORY]),
        label_d=st.integers(0, 40 * ONE) | st.just(MAX_HISTORY),
        pay_g=st.integers(-(10**20), 10**20) | st.integers(-50 * ONE, 50 * ONE),
        pay_v=st.integers(0, 10**22) | st.integers(0, 10**9),
        pay_hmax=st.integers(0, 50 * ONE),
    ),
)
params_of = st.just(V1) | st.builds(
    Params,
    n1=st.integers(1, 50),
    amin_em=st.integers(0, 400_000),
    amin=st.integers(400_000, 600_000),
    amax=st.integers(600_000, ONE),
    z_num=st.integers(0, 5),
    z_den=st.integers(1, 3),
    c0=st.integers(0, 12),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    pairs = draw(st.lists(pairs_of, min_size=1, max_size=7))
    states = draw(st.lists(states_of, min_size=1, max_size=6))
    rows: list[Row] = []
    for judgement in range(draw(st.integers(0, 14))):
        k = draw(st.sampled_from([2, 3, 4, 6]))
        wallet = draw(st.integers(0, len(states) - 1))
        answer = st.tuples(st.integers(0, len(pairs) - 1), st.sampled_from([-1, 1]))
        answers = draw(st.lists(answer, max_size=MOST[k], unique_by=lambda a: a[0]))
        rows += [Row(judgement, wallet, pair, x, 12 // k) for pair, x in answers]
    return rows, pairs, states, draw(params_of)


def crowd(seed: int, wallets: int = 12, judgements: int = 240) -> tuple[list[Row], list[Pair]]:
    """Return an epoch of rankings of 2, 3, 4 or 6 responses by wallets from expert to adversary."""
    luck = random.Random(seed)
    truth = [luck.choice([-1, 1]) for _ in range(90)]
    pairs = [Pair(t * (luck.random() < 0.1), luck.randrange(5), luck.choice([-1, 0, t, t])) for t in truth]
    rows = []
    for judgement in range(judgements):
        k, wallet = luck.choice([2, 3, 4, 6]), luck.randrange(wallets)
        right = 0.95 - 0.07 * wallet
        for pair in luck.sample(range(90), luck.randint(1, MOST[k])):
            x = truth[pair] * (1 if luck.random() < right else -1)
            rows.append(Row(judgement * 70_001, wallet, pair, x, 12 // k))
    return rows, pairs


@given(worlds(), worlds())
@crowded
def test_the_fast_score_is_the_specification_to_the_last_bit(first: World, second: World) -> None:
    rows, pairs, states, params = first
    result = fast(rows, pairs, states, params)
    assert result == spec.score(rows, pairs, states, params)
    states = [result.wallets[c % len(states)].state for c in range(len(second[2]))]
    assert fast(second[0], second[1], states, params) == spec.score(second[0], second[1], states, params)


@given(worlds(), st.integers(1, 7))
@crowded
def test_it_does_not_matter_in_pieces_of_how_many_rows_the_score_is_computed(world: World, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "_PIECE", size)
        assert fast(*world) == spec.score(*world)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("bad", range(5))
def test_the_first_bad_row_is_named_in_whatever_piece_it_lies(size: int, bad: int) -> None:
    good = [Row(j, 0, 0, 1, 4) for j in range(5)]
    loud = [replace(r, x=7) if r.judgement >= bad else r for r in good]
    twice = [*good[: bad + 1], *good[bad:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "_PIECE", size)
        with pytest.raises(ScoreInputError, match=f"row {bad}: x must be -1..1; found 7"):
            fast(loud, [Pair(0, 0, 0)], [WalletState()], V1)
        with pytest.raises(ScoreInputError, match=f"row {bad + 1}: a judgement has each pair once; found 0"):
            fast(twice, [Pair(0, 0, 0)], [WalletState()], V1)


@pytest.mark.parametrize("seed", range(4))
def test_a_crowd_is_scored_alike_by_both_over_chained_epochs_and_good_work_is_paid(seed: int) -> None:
    states, paid = [WalletState()] * 12, [0] * 12
    for epoch in range(3):
        rows, pairs = crowd(10 * seed + epoch)
        result = fast(rows, pairs, states, V1)
        assert result == spec.score(rows, pairs, states, V1)
        states = [w.state for w in result.wallets]
        paid = [p + w.w for p, w in zip(paid, result.wallets, strict=True)]
    assert paid == [s.pay_hmax for s in states]
    assert paid[0] > 0
    assert paid[11] == 0


@given(worlds(), st.randoms(use_true_random=False))
@crowded
def test_the_order_of_rows_does_not_matter(world: World, luck: random.Random) -> None:
    rows, pairs, states, params = world
    shuffled = luck.sample(rows, len(rows))
    assert fast(shuffled, pairs, states, params) == fast(rows, pairs, states, params)


@given(worlds(), st.randoms(use_true_random=False))
@crowded
def test_relabelling_wallets_pairs_and_judgements_permutes_the_result(
    world: World, luck: random.Random
) -> None:
    rows, pairs, states, params = world
    c, p = luck.sample(range(len(states)), len(states)), luck.sample(range(len(pairs)), len(pairs))
    there = [Row(99 - r.judgement, c.index(r.wallet), p.index(r.pair), r.x, r.w) for r in rows]
    result, moved = (
        fast(rows, pairs, states, params),
        fast(there, [pairs[i] for i in p], [states[i] for i in c], params),
    )
    assert moved.wallets == tuple(result.wallets[i] for i in c)
    assert moved.pairs == tuple(result.pairs[i] for i in p)
    assert moved.style_bias == result.style_bias


@given(worlds())
@crowded
def test_which_response_of_a_pair_comes_first_does_not_matter(world: World) -> None:
    rows, pairs, states, params = world
    result = fast(rows, pairs, states, params)
    mirrored = [replace(p, gold=-p.gold, longer=-p.longer) for p in pairs]
    other = fast([replace(r, x=-r.x) for r in rows], mirrored, states, params)
    assert other.wallets == result.wallets
    assert other.style_bias == result.style_bias
    assert other.pairs == tuple(PairResult(-p.log_odds, -p.label, p.confidence) for p in result.pairs)


@given(worlds())
@crowded
def test_labels_are_zero_only_on_a_tie_of_both_rules_and_confidence_is_a_chance(world: World) -> None:
    rows, pairs, states, params = world
    for p, known in enumerate(fast(rows, pairs, states, params).pairs):
        votes = sum(r.x for r in rows if r.pair == p)
        assert 500_000 <= known.confidence <= ONE
        assert known.label * known.log_odds == abs(known.log_odds)
        assert known.log_odds != 0 or (known.label > 0, known.label < 0) == (votes > 0, votes < 0)


@given(worlds(), st.integers(2, 4))
@crowded
def test_what_is_paid_over_the_epochs_is_the_height_ever_reached(world: World, epochs: int) -> None:
    rows, pairs, states, params = world
    start, paid = states, [0] * len(states)
    for _ in range(epochs):
        result = fast(rows, pairs, states, params)
        states = [w.state for w in result.wallets]
        paid = [p + w.w for p, w in zip(paid, result.wallets, strict=True)]
    assert paid == [after.pay_hmax - before.pay_hmax for before, after in zip(start, states, strict=True)]


@pytest.mark.parametrize("stride", [1, 2**16, 2**32, 2**33])
def test_judgements_may_be_named_by_any_numbers_and_lie_mixed(stride: int) -> None:
    rows, pairs = crowd(5)
    named = [replace(r, judgement=stride * (r.judgement // 70_001)) for r in rows]
    mixed = random.Random(7).sample(named, len(named))
    assert fast(mixed, pairs, [WalletState()] * 12, V1) == fast(rows, pairs, [WalletState()] * 12, V1)


def test_opposite_answers_on_gold_leave_opposite_histories_to_the_last_bit() -> None:
    rows = [Row(2 * p + c, c, p, 1 - 2 * c, 6) for p in range(3) for c in range(2)]
    states = [WalletState(label_n=5, label_d=8), WalletState(label_n=-5, label_d=8)]
    for run in (fast, spec.score):
        right, wrong = run(rows, [Pair(1, 0, 0)] * 3, states, replace(V1, amin=0, amin_em=0)).wallets
        assert right.a + wrong.a == ONE
        assert right.state.label_n == -wrong.state.label_n
        assert right.delta_g == -wrong.delta_g


def test_a_crowd_without_gold_or_history_still_finds_its_consensus() -> None:
    rows = [Row(3 * p + c, c, p, 1, 6) for p in range(9) for c in range(3)]
    result = fast(rows, [Pair(0, 0, 0)] * 9, [WalletState()] * 3, V1)
    assert all(w.n > 0 for w in result.wallets)
    assert all(p.label == 1 and p.confidence > 500_000 for p in result.pairs)


def test_a_lone_answer_never_agrees_with_itself() -> None:
    result = fast([Row(0, 0, 0, 1, 6)], [Pair(0, 0, 0)], [WalletState()], V1).wallets[0]
    assert (result.n, result.d, result.delta_g, result.delta_v) == (0, 0, 0, 0)


def test_gold_is_the_truth_whatever_the_crowd_says() -> None:
    rows = [Row(c, c, 0, -1 if c else 1, 6) for c in range(5)]
    result = fast(rows, [Pair(1, 0, 0)], [WalletState()] * 5, V1)
    assert [w.delta_g for w in result.wallets] == [6 * ONE] + 4 * [-6 * ONE]


def test_choosing_the_longer_earns_nothing_where_the_longer_is_always_better() -> None:
    pairs = [Pair(longer, 2, longer) for longer in (1, -1, -1, 1)]
    result = fast([Row(p, 0, p, pairs[p].longer, 6) for p in range(4)], pairs, [WalletState()], V1)
    assert result.style_bias == (0, 0, ONE, 0, 0)
    assert result.wallets[0].delta_g == 0
    assert result.wallets[0].n == 24 * ONE


def test_a_wallet_without_rows_took_part_and_its_label_history_halves() -> None:
    state = WalletState(label_n=-7, label_d=9, pay_g=5, pay_v=4, pay_hmax=3)
    result = fast([], [], [state], V1).wallets[0]
    assert result.state == WalletState(label_n=-3, label_d=4, pay_g=5, pay_v=4, pay_hmax=3)
    assert result.w == 0


def test_stake_is_no_argument_of_anything_that_makes_a_label() -> None:
    for function in (score.score, spec.score, spec.log_odds):
        assert not [name for name in inspect.signature(function).parameters if "stake" in name]
    assert not [name for record in (Row, Pair, WalletState) for name in record.__slots__ if "stake" in name]


amounts = st.integers(0, 40) | st.integers(0, 10**30)
positive = st.integers(1, 40) | st.integers(1, 10**30)
ratios = st.builds(Ratio, num=st.integers(0, 40) | st.integers(0, 10**24), den=positive)


@given(amounts, amounts, ratios, st.integers(0, 3))
@settings(deadline=None)
def test_both_haptic_scores_agree_and_are_the_truncated_formula(
    w: int, stake: int, lam: Ratio, kappa: int
) -> None:
    params = replace(V1, kappa=kappa)
    value = score.haptic_score(w, stake, lam, params)
    assert value == spec.haptic_score(w, stake, lam, params)
    if w and stake:
        bottom, top = stake * lam.den + kappa * lam.num * w, w * stake * lam.den
        assert value * bottom <= top < (value + 1) * bottom
    else:
        assert value == 0


@given(amounts, amounts, amounts, amounts, ratios)
@settings(deadline=None)
def test_splitting_work_and_stake_over_two_wallets_never_pays(
    w1: int, s1: int, w2: int, s2: int, lam: Ratio
) -> None:
    apart = score.haptic_score(w1, s1, lam, V1) + score.haptic_score(w2, s2, lam, V1)
    assert score.haptic_score(w1 + w2, s1 + s2, lam, V1) >= apart


@given(amounts, amounts, ratios, st.integers(1, 1000))
@settings(deadline=None)
def test_k_times_work_and_stake_score_k_times_up_to_truncation(
    w: int, stake: int, lam: Ratio, k: int
) -> None:
    one = score.haptic_score(w, stake, lam, V1)
    assert k * one <= score.haptic_score(k * w, k * stake, lam, V1) <= k * one + k - 1


@given(positive, amounts, amounts, ratios)
@settings(deadline=None)
def test_more_stake_never_scores_less_and_never_above_the_proven_work(
    w: int, s: int, more: int, lam: Ratio
) -> None:
    assert score.haptic_score(w, s, lam, V1) <= score.haptic_score(w, s + more, lam, V1) <= w


@given(positive, positive, st.integers(1, 4))
@settings(deadline=None)
def test_at_the_going_rate_stake_can_still_raise_the_score_by_one_plus_kappa(
    w: int, rate: int, kappa: int
) -> None:
    assert score.haptic_score(w, rate * w, Ratio(rate, 1), replace(V1, kappa=kappa)) == w // (1 + kappa)


books = st.dictionaries(
    st.integers(1, 6).map(lambda i: Address(f"0x{i:040x}")),
    st.tuples(st.integers(0, 6) | amounts, st.integers(0, 6) | amounts),
    max_size=6,
)


def _median(ws: dict[Address, int], stakes: dict[Address, int], previous: Ratio) -> Ratio:
    """Return λ by its definition, each wallet held against every other one."""
    both = [a for a in ws if ws[a] and a in stakes]
    for c in both:
        before = sum(ws[q] for q in both if (stakes[q] * ws[c], q) < (stakes[c] * ws[q], c))
        if 2 * before < sum(ws[q] for q in both) <= 2 * (before + ws[c]):
            return Ratio(stakes[c], ws[c])
    return previous


@given(books, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_lambda_is_the_weighted_median_in_both_and_whatever_the_order(
    book: dict[Address, tuple[int, int]], luck: random.Random
) -> None:
    ws, stakes = {a: w for a, (w, _) in book.items()}, {a: s for a, (_, s) in book.items() if s}
    found = score.lambda_next(ws, stakes, Ratio(7, 3))
    shuffled = {a: ws[a] for a in luck.sample(sorted(ws), len(ws))}
    assert (
        found == spec.lambda_next(ws, stakes, Ratio(7, 3)) == score.lambda_next(shuffled, stakes, Ratio(7, 3))
    )
    assert found == _median(ws, stakes, Ratio(7, 3))
    both = [a for a in ws if ws[a] and a in stakes]
    below = sum(ws[a] for a in both if stakes[a] * found.den < found.num * ws[a])
    above = sum(ws[a] for a in both if stakes[a] * found.den > found.num * ws[a])
    total = sum(ws[a] for a in both)
    assert found == Ratio(7, 3) if not both else 2 * below < total >= 2 * above


def test_of_wallets_at_the_same_rate_lambda_names_the_lowest_that_reaches_half() -> None:
    ws = {Address(f"0x{i:040x}"): w for i, w in ((3, 2), (1, 1), (2, 1))}
    stakes = {a: 10 * w for a, w in ws.items()}
    for module in (score, spec):
        assert module.lambda_next(ws, stakes, Ratio(1, 1)) == Ratio(10, 1)


GOOD = [Row(0, 0, 0, 1, 4), Row(0, 0, 1, 1, 4), Row(1, 1, 0, -1, 6)]


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, {"wallet": 2}, "row 0: wallet must be 0..1; found 2"),
        (2, {"wallet": -1}, "row 2: wallet must be 0..1; found -1"),
        (1, {"pair": 2}, "row 1: pair must be 0..1; found 2"),
        (2, {"x": 0}, r"row 2: a tie gives no row, x must be \+1 or -1; found 0"),
        (2, {"x": -(2**63)}, "row 2: x must be -1..1"),
        (2, {"w": 5}, "row 2: w must be 12/K for K = 2, 3, 4, 6; found 5"),
        (2, {"w": 12}, "row 2: w must be 2..6; found 12"),
        (1, {"judgement": -1}, "row 1: judgement must be"),
        (1, {"judgement": 2**63}, "row 1: a number is beyond 64 bits"),
        (1, {"w": 3}, "row 1: a judgement has one weight; found 4, 3"),
        (1, {"wallet": 1}, "row 1: a judgement has one wallet; found 0, 1"),
        (1, {"pair": 0}, "row 1: a judgement has each pair once; found 0"),
        (2, {"judgement": 0, "wallet": 0, "w": 4}, "row 2: a judgement has each pair once; found 0"),
    ],
)
def test_rows_that_no_feedback_gives_are_refused_by_name(
    place: int, change: dict[str, int], message: str
) -> None:
    rows = [replace(r, **change) if i == place else r for i, r in enumerate(GOOD)]
    with pytest.raises(ScoreInputError, match=message):
        fast(rows, [Pair(0, 0, 0)] * 2, [WalletState()] * 2, V1)


def test_a_judgement_with_more_rows_than_pairs_of_its_k_is_refused() -> None:
    with pytest.raises(ScoreInputError, match="row 0: its judgement has more rows than K has pairs; found 2"):
        fast([Row(7, 0, p, 1, 6) for p in range(2)], [Pair(0, 0, 0)] * 2, [WalletState()], V1)


@pytest.mark.parametrize(
    "change", [{"gold": 2}, {"gold": -(2**63)}, {"bucket": 5}, {"bucket": -1}, {"longer": -2}]
)
def test_pairs_out_of_range_are_refused_by_name(change: dict[str, int]) -> None:
    with pytest.raises(ScoreInputError, match="pair 1: "):
        fast([], [Pair(0, 0, 0), replace(Pair(0, 0, 0), **change)], [], V1)


@pytest.mark.parametrize(
    "change", [{"label_n": -MAX_HISTORY - 1}, {"label_d": -1}, {"pay_v": -1}, {"pay_hmax": -1}]
)
def test_states_that_no_epoch_leaves_are_refused_by_name(change: dict[str, int]) -> None:
    with pytest.raises(ScoreInputError, match="wallet 1: "):
        fast([], [], [WalletState(), replace(WalletState(), **change)], V1)


@pytest.mark.parametrize(
    "change", [{"n1": 0}, {"z_den": 0}, {"z_num": -1}, {"amax": ONE + 1}, {"amin_em": 600_000}]
)
def test_parameters_that_would_divide_by_zero_or_leave_the_tables_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ScoreInputError, match="must be"):
        fast([], [], [], replace(V1, **change))


def test_columns_of_different_lengths_or_more_rows_than_int64_is_shown_to_hold_are_refused() -> None:
    rows, pairs = Rows.of(GOOD), Pairs.of([Pair(0, 0, 0)] * 2)
    with pytest.raises(ScoreInputError, match=r"rows: wallet is int64 \(2,\), not int64 \(3,\)"):
        score.score(replace(rows, wallet=rows.wallet[:2]), pairs, [WalletState()] * 2, V1)
    many = np.broadcast_to(np.int64(1), MAX_ROWS + 1)
    with pytest.raises(ScoreInputError, match="10000001 rows"):
        score.score(Rows(many, many, many, many, many), pairs, [WalletState()] * 2, V1)


def test_history_at_its_bound_stays_within_it() -> None:
    state = WalletState(label_n=MAX_HISTORY, label_d=MAX_HISTORY)
    rows = [Row(c, c, 0, 1, 6) for c in range(40)]
    result = fast(rows, [Pair(1, 0, 0)], [state] * 40, V1)
    assert result == spec.score(rows, [Pair(1, 0, 0)], [state] * 40, V1)
    assert all(0 <= w.state.label_n <= MAX_HISTORY and w.state.label_d <= MAX_HISTORY for w in result.wallets)
