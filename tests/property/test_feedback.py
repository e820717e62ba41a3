"""Laws of feedback: what a ranking says, and which comparisons it becomes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.canonical import text_hash
from chain.errors import ScoreInputError
from chain.feedback import Comparisons, Task, check_ranking, comparisons, dense_ranks, summary_of
from chain.keys import address_of
from chain.messages import Ranking
from chain.rules import METHODS, SIZES
from chain.types import Address, Hash32
from tests.worlds import NO_COMMENT, PEOPLE, answered, task_of

WALLETS = tuple(address_of(p) for p in PEOPLE[:4])
Epoch = tuple[list[Ranking], dict[Hash32, Task], dict[Hash32, tuple[int, ...]]]
marks_of = st.integers(1, 7)


def _ranking(
    wallet: Address,
    task: Task,
    shown: Sequence[Hash32],
    ranks: Sequence[int],
    *,
    flag: str = "",
    revision: int = 0,
) -> Ranking:
    return Ranking(
        wallet, 0, task.hash(), "ranking", summary_of(ranks), tuple(shown), tuple(ranks), (),
        flag, NO_COMMENT, revision, 1
    )  # fmt: skip


@st.composite
def epochs(draw: st.DrawFn) -> Epoch:
    """Draw tasks of texts of few lengths, gold for some of them, and rankings in any order shown."""
    tasks, gold, rankings = {}, {}, []
    for n in range(draw(st.integers(1, 3))):
        size = draw(st.sampled_from(SIZES))
        task = task_of(str(n), [f"{i}" + "é" * draw(st.integers(0, 3)) for i in range(size)])
        tasks[task.hash()] = task
        if draw(st.booleans()):
            gold[task.hash()] = dense_ranks([draw(marks_of) for _ in range(size)])
        for wallet in WALLETS:
            for revision in range(draw(st.integers(0, 2))):
                shown = draw(st.permutations(task.hashes))
                marks, flag = [draw(marks_of) for _ in shown], draw(st.sampled_from(["", "", "", "unsafe"]))
                ranks = dense_ranks([1] * size if flag else marks)
                rankings.append(_ranking(wallet, task, shown, ranks, flag=flag, revision=revision))
    return rankings, tasks, gold


def _better(found: Comparisons, place: int) -> tuple[Address, Hash32, Hash32, Hash32]:
    """Return a row in words: who finds which response of which task better than which."""
    row = found.rows[place]
    key = found.keys[row.pair]
    a, b = (key.a, key.b) if row.x > 0 else (key.b, key.a)
    return found.wallets[row.wallet], key.task, a, b


@given(st.sampled_from(SIZES), st.randoms(use_true_random=False))
def test_a_full_order_of_k_responses_is_worth_k_minus_1_comparisons(k: int, luck: Random) -> None:
    task = task_of("t", [f"text {i}" for i in range(k)])
    ranking = _ranking(WALLETS[0], task, luck.sample(task.hashes, k), luck.sample(range(1, k + 1), k))
    found = comparisons([ranking], {task.hash(): task}, {})
    assert len(found.rows) == k * (k - 1) // 2
    assert {r.w for r in found.rows} == {12 // k}
    assert sum(r.w for r in found.rows) == 6 * (k - 1)


@given(epochs(), st.randoms(use_true_random=False))
def test_the_order_in_which_rankings_came_does_not_matter(epoch: Epoch, luck: Random) -> None:
    rankings, tasks, gold = epoch
    assert comparisons(luck.sample(rankings, len(rankings)), tasks, gold) == comparisons(
        rankings, tasks, gold
    )


@given(epochs())
def test_only_the_highest_revision_counts(epoch: Epoch) -> None:
    rankings, tasks, gold = epoch
    last = {(r.wallet, r.task): r for r in sorted(rankings, key=lambda r: r.revision)}
    assert comparisons(rankings, tasks, gold) == comparisons(last.values(), tasks, gold)


@given(epochs())
def test_rows_say_what_people_said(epoch: Epoch) -> None:
    rankings, tasks, gold = epoch
    found = comparisons(rankings, tasks, gold)
    last = {(r.wallet, r.task): r for r in sorted(rankings, key=lambda r: r.revision)}
    said = [
        (r.wallet, r.task, r.shown[i], r.shown[j])
        for r in last.values()
        for i in range(len(r.shown))
        for j in range(len(r.shown))
        if r.ranks[i] < r.ranks[j]
    ]
    assert sorted(_better(found, i) for i in range(len(found.rows))) == sorted(said)
    assert all(key.a < key.b for key in found.keys)
    assert len({(r.judgement, r.pair) for r in found.rows}) == len(found.rows)
    assert len({r.judgement for r in found.rows}) == len({s[:2] for s in said})


@given(epochs())
def test_who_only_flags_or_ties_takes_part_without_a_row(epoch: Epoch) -> None:
    rankings, tasks, gold = epoch
    found = comparisons(rankings, tasks, gold)
    assert found.wallets == tuple(sorted({r.wallet for r in rankings}))
    tied = [replace(r, ranks=(1,) * len(r.ranks), flag="broken") for r in rankings]
    assert comparisons(tied, tasks, gold) == Comparisons(found.wallets, (), ())


@given(epochs())
def test_a_flag_silences_an_order_even_where_one_is_given(epoch: Epoch) -> None:
    rankings, tasks, gold = epoch
    flagged = [replace(r, flag="unsafe") for r in rankings]
    assert comparisons(flagged, tasks, gold).rows == ()


@given(epochs())
def test_buckets_gold_and_length_follow_the_formulas(epoch: Epoch) -> None:
    rankings, tasks, gold = epoch
    found = comparisons(rankings, tasks, gold)
    length = {(t, h): len(x) for t, k in tasks.items() for h, x in zip(k.hashes, k.responses, strict=True)}
    deltas = [length[k.task, k.a] - length[k.task, k.b] for k in found.keys]
    for key, pair, delta in zip(found.keys, found.pairs, deltas, strict=True):
        shorter = sum(abs(q) < abs(delta) for q in deltas)
        assert pair.bucket == 5 * shorter // len(deltas)
        assert pair.longer == (1 if delta > 0 else -1 if delta < 0 else 0)
        hashes, ranks = tasks[key.task].hashes, gold.get(key.task)
        a, b = (ranks[hashes.index(h)] for h in (key.a, key.b)) if ranks else (0, 0)
        assert pair.gold == (1 if a < b else -1 if a > b else 0)


@given(st.lists(marks_of, min_size=1, max_size=6))
def test_dense_ranks_are_1_to_n_without_a_gap_and_keep_the_order(marks: list[int]) -> None:
    ranks = dense_ranks(marks)
    assert set(ranks) == set(range(1, max(ranks) + 1))
    for (i, x), (j, y) in combinations(enumerate(marks), 2):
        assert (x > y, x == y) == (ranks[i] < ranks[j], ranks[i] == ranks[j])


def _read(summary: str) -> tuple[int, ...]:
    """Read a summary back into ranks."""
    place = {
        letter: rank
        for rank, group in enumerate(summary.split(" > "), start=1)
        for letter in group.split(" = ")
    }
    return tuple(place[letter] for letter in sorted(place))


@given(st.lists(marks_of, min_size=2, max_size=6))
def test_a_summary_says_exactly_the_ranks(marks: list[int]) -> None:
    ranks = dense_ranks(marks)
    assert _read(summary_of(ranks)) == ranks


def test_a_summary_is_the_one_of_the_protocol() -> None:
    assert summary_of((2, 1, 2, 3)) == "B > A = C > D"


@given(st.sampled_from(METHODS), st.sampled_from(SIZES), st.data())
def test_what_a_method_can_say_is_accepted(method: str, k: int, data: st.DataObject) -> None:
    if (method == "pairwise") != (k == 2) and method in {"pairwise", "best_worst"}:
        return
    task = task_of("t", [f"text {i}" for i in range(k)])
    ranks, likert = answered(method, data.draw(st.lists(marks_of, min_size=k, max_size=k)))
    ranking = replace(_ranking(WALLETS[0], task, task.hashes, ranks), method=method, likert=likert)
    check_ranking(ranking, method, task.hashes)


FOUR = task_of("four", ["a", "b", "c", "d"])
SHOWN = FOUR.hashes
OTHER = text_hash("another")


def _refused(
    match: str, method: str = "ranking", ranks: Sequence[int] = (2, 1, 2, 3), **changes: object
) -> None:
    good = replace(_ranking(WALLETS[0], FOUR, SHOWN, ranks), method=method)
    with pytest.raises(ScoreInputError, match=match):
        check_ranking(replace(good, **changes), method, SHOWN)  # type: ignore[arg-type]


def test_another_method_than_the_drawn_one_is_refused() -> None:
    with pytest.raises(ScoreInputError, match="method is 'ranking'; this wallet was asked by 'likert'"):
        check_ranking(_ranking(WALLETS[0], FOUR, SHOWN, (2, 1, 2, 3)), "likert", SHOWN)


def test_a_response_that_was_not_shown_is_refused() -> None:
    _refused(f"{OTHER} was not shown", shown=(*SHOWN[:3], OTHER))


def test_another_order_than_the_shown_one_is_refused() -> None:
    _refused("the order or number differs", shown=SHOWN[::-1])
    _refused("the order or number differs", shown=SHOWN[:3])


def test_an_unknown_flag_is_refused() -> None:
    _refused("flag 'boring' is not one of '', 'all_bad'", flag="boring")


@pytest.mark.parametrize("ranks", [(1, 2, 2), (1, 2, 3, 4, 5), (0, 1, 2, 3), (1, 1, 3, 4), (2, 2, 3, 4), ()])
def test_ranks_that_are_not_dense_are_refused(ranks: tuple[int, ...]) -> None:
    _refused(re.escape(f"ranks {list(ranks)}: expected 4 dense ranks"), ranks=ranks)


def test_a_summary_that_says_something_else_is_refused() -> None:
    _refused("summary 'A > B = C = D' does not say the ranks: 'B > A = C > D'", summary="A > B = C = D")


def test_a_flagged_ranking_with_an_order_is_refused() -> None:
    _refused("flagged 'unsafe' gives no order", flag="unsafe")


def test_marks_belong_to_likert_only() -> None:
    _refused(r"likert marks \[1, 2, 3, 4\] belong to the method 'likert' only", likert=(1, 2, 3, 4))


@pytest.mark.parametrize("ranks", [(1, 2, 2, 2), (1, 1, 2, 3), (1, 2, 3, 3), (1, 2, 3, 4)])
def test_best_worst_names_one_best_and_one_worst(ranks: tuple[int, ...]) -> None:
    _refused(re.escape(f"ranks {list(ranks)} do not"), method="best_worst", ranks=ranks)


@pytest.mark.parametrize("likert", [(), (5, 6, 5), (5, 6, 5, 0), (5, 8, 5, 1)])
def test_likert_gives_each_response_a_mark_from_1_to_7(likert: tuple[int, ...]) -> None:
    _refused(
        re.escape(f"likert {list(likert)}: expected 4 marks from 1 to 7"), method="likert", likert=likert
    )


def test_likert_marks_are_followed_by_the_ranks() -> None:
    _refused(
        r"ranks \[2, 1, 2, 3\] do not follow the marks \[5, 6, 5, 5\]", method="likert", likert=(5, 6, 5, 5)
    )


def test_a_flag_needs_no_marks() -> None:
    flagged = replace(_ranking(WALLETS[0], FOUR, SHOWN, (1, 1, 1, 1), flag="unsafe"), method="likert")
    check_ranking(flagged, "likert", SHOWN)


@given(st.permutations(["a", "bb", "ccc", "d"]), st.permutations(["ranking", "likert", "best_worst"]))
def test_a_task_is_the_same_however_it_is_written(texts: list[str], methods: list[str]) -> None:
    task = Task.of("prompt", texts, methods)
    assert task == Task.of("prompt", ["a", "bb", "ccc", "d"], ["best_worst", "likert", "ranking"])
    assert task.hashes == tuple(sorted(text_hash(t) for t in texts))


@pytest.mark.parametrize(
    ("texts", "methods", "match"),
    [
        (["a", "a"], ["ranking"], "two responses to 'p' have the same text"),
        (["a"], ["ranking"], "not 1"),
        (list("abcde"), ["ranking"], "not 5"),
        (["a", "b"], [], "methods"),
        (["a", "b"], ["coin"], "coin"),
        (["a", "b"], ["ranking", "ranking"], "each once"),
        (["a", "b", "c"], ["pairwise", "ranking"], "'pairwise' cannot judge 3 responses"),
        (["a", "b"], ["best_worst"], "'best_worst' cannot judge 2 responses"),
    ],
)
def test_a_task_that_cannot_be_judged_is_refused(texts: list[str], methods: list[str], match: str) -> None:
    with pytest.raises(ScoreInputError, match=match):
        Task.of("p", texts, methods)
