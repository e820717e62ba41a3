"""Answers become blind tasks by laws that hold whatever the models say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.feedback import Task
from chain.gold import Gold
from chain.rules import METHODS, SIZES, Rules
from service.arena import (
    Answer,
    Content,
    Plan,
    Prompt,
    content_of,
    file_gold,
    gold_of,
    gold_share,
    lexicon_gold,
    methods_for,
    plan_tasks,
    read_prompts,
)
from service.errors import ConfigError
from trainer import gold as lexicon

NOTHING: set[Content] = set()
WORDS = ("horrible", "tired", "decent", "charming")

draws = st.binary(min_size=32, max_size=32)
# Few different texts, so that models say the same and prompts come twice.
answers = st.lists(
    st.builds(
        Answer,
        prompt=st.sampled_from(["p", "q", "r"]),
        model=st.sampled_from(["old", "new"]),
        text=st.text("abé\u2028 ", max_size=2),
    ),
    max_size=30,
)
method_sets = st.sets(st.sampled_from(METHODS), min_size=1).map(lambda m: Rules(methods=tuple(sorted(m))))


@given(answers, method_sets, st.integers(0, 5), draws)
def test_a_task_shows_different_answers_to_its_prompt_of_a_number_that_there_is(
    said: list[Answer], rules: Rules, count: int, draw: bytes
) -> None:
    plans = plan_tasks(said, rules, count, draw)
    assert len(plans) <= count
    for plan in plans:
        texts = plan.task.responses
        assert len(texts) in SIZES
        assert len(set(texts)) == len(texts)
        assert {Answer(plan.task.prompt, m, t) for m, t in zip(plan.origins, texts, strict=True)} <= set(said)


@given(answers, method_sets, draws)
def test_no_prompt_and_no_task_comes_twice(said: list[Answer], rules: Rules, draw: bytes) -> None:
    plans = plan_tasks(said, rules, 99, draw)
    assert len({p.task.prompt for p in plans}) == len({p.task.hash() for p in plans}) == len(plans)


@given(answers, method_sets, draws)
def test_every_task_can_be_judged_by_each_of_its_methods(
    said: list[Answer], rules: Rules, draw: bytes
) -> None:
    for plan in plan_tasks(said, rules, 99, draw):
        fits = {"pairwise": len(plan.origins) == 2, "best_worst": len(plan.origins) > 2}
        assert plan.task.methods
        assert set(plan.task.methods) <= set(rules.methods)
        assert all(fits.get(m, True) for m in plan.task.methods)


@given(answers.flatmap(lambda said: st.tuples(st.just(said), st.permutations(said))), draws)
def test_the_draw_alone_decides_whatever_the_order_of_the_answers(
    both: tuple[list[Answer], list[Answer]], draw: bytes
) -> None:
    said, mixed = both
    assert plan_tasks(mixed, Rules(), 9, draw) == plan_tasks(said, Rules(), 9, draw)


def _answers(prompts: int, texts: int = 4) -> list[Answer]:
    return [
        Answer(f"prompt {p}", model, f"{model} {WORDS[n % 4]} {n}")
        for p in range(prompts)
        for model in ("old", "new")
        for n in range(texts)
    ]


def test_another_draw_gives_other_tasks() -> None:
    first, second = (plan_tasks(_answers(16), Rules(), 16, bytes([n]) * 32) for n in range(2))
    assert [p.task for p in first] != [p.task for p in second]


def test_tasks_show_all_numbers_of_answers_and_the_models_meet_in_each() -> None:
    plans = plan_tasks(_answers(16), Rules(), 16, bytes(32))
    assert Counter(len(p.origins) for p in plans) == {2: 6, 3: 2, 4: 6, 6: 2}
    for plan in plans:
        counts = Counter(plan.origins)
        assert set(counts) == {"old", "new"}
        assert max(counts.values()) - min(counts.values()) == len(plan.origins) % 2
    odd = [
        Counter(p.origins)["old"]
        for n in range(8)
        for p in plan_tasks(_answers(16), Rules(), 16, bytes([n]) * 32)
        if len(p.origins) == 3
    ]
    assert set(odd) == {1, 2}


@pytest.mark.parametrize(("texts", "sizes"), [(1, {2}), (2, {2, 3, 4}), (3, {2, 3, 4, 6})])
def test_a_task_shows_fewer_where_there_are_not_so_many(texts: int, sizes: set[int]) -> None:
    assert {len(p.origins) for p in plan_tasks(_answers(16, texts), Rules(), 16, bytes(32))} == sizes


def test_a_size_that_no_method_can_judge_is_not_made() -> None:
    only = Rules(methods=("best_worst",))
    assert min(len(p.origins) for p in plan_tasks(_answers(16), only, 16, bytes(32))) == 3
    assert {
        len(p.origins) for p in plan_tasks(_answers(16), Rules(methods=("pairwise",)), 16, bytes(32))
    } == {2}


def test_a_prompt_keeps_its_author_and_an_answer_its_models_name_only_in_the_notes() -> None:
    wallet = "0x" + "ab" * 20
    said = [Answer("p", "sft-0", "I am sft-0"), Answer("p", "sft-1", "fine"), Answer("q", "sft-0", "b")]
    (plan,) = plan_tasks([*said, Answer("p", "sft-1", "I am sft-1")], Rules(), 9, bytes(32), {"p": wallet})
    assert plan.task.author == wallet
    assert set(plan.task.responses) == {"I am [model]", "fine"}
    assert [r.shown for r in plan.redacted] == ["I am [model]"]
    assert plan.redacted[0].original in {"I am sft-0", "I am sft-1"}


def test_a_text_that_both_models_gave_is_shown_once_and_is_not_always_the_same_models() -> None:
    said = [Answer("p", m, t) for m in ("old", "new") for t in ("same", "other")]
    plans = [plan_tasks(said, Rules(), 1, bytes([n]) * 32)[0] for n in range(24)]
    assert all(len(p.task.responses) == 2 for p in plans)
    assert {p.origins[p.task.responses.index("same")] for p in plans} == {"old", "new"}


def test_one_answer_is_no_task() -> None:
    assert plan_tasks([Answer("p", "old", "only")] * 3, Rules(), 9, bytes(32)) == []


@given(st.sampled_from(SIZES), method_sets)
def test_the_methods_of_a_size_make_a_task(size: int, rules: Rules) -> None:
    methods = methods_for(size, rules.methods)
    if methods:
        Task.of("p", [str(i) for i in range(size)], methods)


@given(st.integers(0, 40), st.integers(0, 1_000_000))
def test_the_lexicon_marks_the_share_rounded_up_and_changes_nothing_else(count: int, share: int) -> None:
    plans = plan_tasks(_answers(count), Rules(), count, bytes(32))
    marked = lexicon_gold(plans, share)
    assert sum(bool(p.gold_ranks) for p in marked) == -(-count * share // 1_000_000)
    assert [(p.task, p.origins, p.redacted) for p in marked] == [
        (p.task, p.origins, p.redacted) for p in plans
    ]


def test_gold_ranks_follow_the_lexicon_and_the_clearest_tasks_are_taken() -> None:
    clear = Task.of("p", ["horrible horrible", "charming charming"], ("ranking",))
    dull = Task.of("q", ["decent", "decent decent"], ("ranking",))
    same = Task.of("r", ["a", "b"], ("ranking",))
    plans = [Plan(t, ("x", "x")) for t in (same, dull, clear)]
    marked = lexicon_gold(plans, 300_000)
    assert [bool(p.gold_ranks) for p in marked] == [False, False, True]
    best = marked[2].task.responses[marked[2].gold_ranks.index(1)]
    assert best == max(clear.responses, key=lambda t: lexicon.score("p", t))


def _gold_line(n: int) -> str:
    texts = [f"wrong \u2028 {n}", f"right {n}", f"middling {n}", f"so so {n}"]
    return json.dumps({"prompt": f"p{n}", "responses": texts, "ranks": [3, 1, 2, 2]}, ensure_ascii=False)


@pytest.fixture
def gold_path(tmp_path: Path) -> Path:
    path = tmp_path / "gold.jsonl"
    path.write_text("\n".join(_gold_line(n) for n in (0, 1, 2, 2)) + "\n", encoding="utf-8")
    return path


def test_gold_of_a_file_is_never_used_twice_by_whatever_methods(gold_path: Path) -> None:
    used: set[Content] = set()
    for expected in (["p0", "p1"], ["p2"], []):
        plans = file_gold(gold_path, Rules(), 2, used.intersection)
        assert [p.task.prompt for p in plans] == expected
        used |= {content_of(p.task) for p in plans}
    assert file_gold(gold_path, Rules(methods=("likert",)), 9, used.intersection) == []


def test_gold_of_a_file_keeps_its_ranks_though_the_answers_are_sorted(gold_path: Path) -> None:
    (plan,) = file_gold(gold_path, Rules(), 1, NOTHING.intersection)
    ranks = dict(zip(plan.task.responses, plan.gold_ranks, strict=True))
    assert (ranks["right 0"], ranks["wrong \u2028 0"], ranks["so so 0"]) == (1, 3, 2)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        pytest.param("[" * 100_000, id="deep"),
        "[]",
        '{"prompt": "p"}',
        '{"prompt": "p", "responses": ["a", "b"], "ranks": [1]}',
        '{"prompt": "p", "responses": ["a", "a"], "ranks": [1, 2]}',
        '{"prompt": "p", "responses": ["a", "b", "c", "d", "e"], "ranks": [1, 2, 3, 4, 5]}',
        '{"prompt": "p", "responses": ["a", 7], "ranks": [1, 2]}',
        '{"prompt": "p", "responses": ["a", "b"], "ranks": [1, "x"]}',
    ],
)
def test_a_gold_line_that_cannot_be_used_is_named_by_its_number(gold_path: Path, line: str) -> None:
    gold_path.write_text(_gold_line(0) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gold\.jsonl, line 2"):
        file_gold(gold_path, Rules(), 9, NOTHING.intersection)


def test_a_prompt_is_read_with_its_author_and_without_what_is_no_text(tmp_path: Path) -> None:
    path, wallet = tmp_path / "prompts.jsonl", "0x" + "ab" * 20
    path.write_text(
        json.dumps({"prompt": "a\x1bb", "author": wallet}) + '\n{"prompt": "c"}\n{"prompt": "c"}\n'
    )
    assert read_prompts(path) == [Prompt("a\ufffdb", wallet), Prompt("c")]
    path.write_text('{"prompt": "c"}\n' + json.dumps({"prompt": "c", "author": wallet}))
    with pytest.raises(ConfigError, match="line 2: the prompt stands there twice"):
        read_prompts(path)


@pytest.mark.parametrize(
    "line",
    ["{", pytest.param("[" * 100_000, id="deep"), "[1]", '{"text": "p"}', '{"prompt": "p", "author": "me"}'],
)
def test_a_prompt_line_that_cannot_be_used_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a\u2028b"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"prompts\.jsonl, line 3"):
        read_prompts(path)


def test_a_missing_file_is_named_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"HAPTIC_PROMPTS_FILE .*none\.jsonl"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"HAPTIC_GOLD_FILE .*none\.jsonl"):
        file_gold(tmp_path / "none.jsonl", Rules(), 1, NOTHING.intersection)


def test_gold_is_five_percent_for_three_epochs_and_two_percent_after() -> None:
    assert [gold_share(Rules(), e) for e in range(5)] == [50_000, 50_000, 50_000, 20_000, 20_000]


def test_the_salt_of_gold_depends_on_the_secret_seed_and_on_the_task() -> None:
    plans = [Plan(Task.of(p, ["a", "b"], ("ranking",)), ("x", "x"), (1, 2)) for p in "pq"]
    found = [gold_of(plan, seed) for plan in plans for seed in (bytes(32), b"s" * 32)]
    assert len({g.salt for g in found}) == 4
    assert found[0] == Gold(plans[0].task.hash(), (1, 2), found[0].salt)
