"""The operator's own tasks come in the order of their file, each once, and a line that cannot be asked is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chain.messages import checksum
from chain.rules import SIZES, Rules
from chain.types import Address
from service.arena import Content, content_of
from service.errors import ConfigError
from service.pool import file_tasks

WALLET = Address("0x" + "ab" * 20)


def _row(n: int, size: int = 3, **more: Any) -> dict[str, Any]:
    return {"prompt": f"p{n}", "responses": [f"{n} says {i}\u2028" for i in range(size)]} | more


def _file(folder: Path, *rows: object) -> Path:
    path = folder / "tasks.jsonl"
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n", encoding="utf-8")
    return path


def test_tasks_come_in_the_order_of_the_file_and_never_twice(tmp_path: Path) -> None:
    path = _file(tmp_path, *(_row(n) for n in (0, 1, 1, 2, 0)))
    used: set[Content] = set()
    for expected in (["p0", "p1"], ["p2"], []):
        plans = file_tasks(path, Rules(), 2, used)
        assert [p.task.prompt for p in plans] == expected
        used |= {content_of(p.task) for p in plans}


def test_a_task_was_asked_whatever_the_method_and_the_order_of_its_responses(tmp_path: Path) -> None:
    path = _file(tmp_path, _row(0))
    (plan,) = file_tasks(path, Rules(methods=("ranking",)), 9, set())
    mixed = _row(0) | {"responses": _row(0)["responses"][::-1]}
    again = _file(tmp_path, mixed)
    assert file_tasks(again, Rules(methods=("likert",)), 9, {content_of(plan.task)}) == []


def test_every_size_of_a_task_can_be_asked(tmp_path: Path) -> None:
    plans = file_tasks(_file(tmp_path, *(_row(n, n) for n in SIZES)), Rules(), 9, set())
    assert [len(p.task.responses) for p in plans] == list(SIZES)
    assert all(p.gold_ranks == () and p.task.assignees == () for p in plans)


def test_each_response_keeps_who_made_it_and_the_prompt_its_author(tmp_path: Path) -> None:
    named = _row(0, origins=["x", "y", "z"], author=checksum(WALLET))
    known, unknown = file_tasks(_file(tmp_path, named, _row(1)), Rules(), 9, set())
    assert dict(zip(known.task.responses, known.origins, strict=True)) == dict(
        zip(named["responses"], "xyz", strict=True)
    )
    assert (known.task.author, unknown.task.author) == (WALLET, "")
    assert set(unknown.origins) == {"file"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], "found list"),
        ({"responses": ["a", "b"]}, "prompt: expected"),
        ({"prompt": " ", "responses": ["a", "b"]}, "prompt: expected"),
        ({"prompt": "p"}, "responses"),
        ({"prompt": "p", "responses": ["a", " "]}, "responses: expected"),
        ({"prompt": "p", "responses": ["a", 7]}, "responses: expected"),
        ({"prompt": "p", "responses": ["a", "a"]}, "same text"),
        (_row(1, 5), "not 5"),
        (_row(1, origins=["x"]), "origins: expected 3 names"),
        (_row(1, author="0x12"), "author"),
    ],
)
def test_a_line_that_cannot_be_asked_is_named_though_it_is_not_its_turn(
    tmp_path: Path, line: object, words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"HAPTIC_TASKS_FILE .*tasks\.jsonl, line 2: .*{words}"):
        file_tasks(_file(tmp_path, _row(0), line), Rules(), 1, set())


@pytest.mark.parametrize("line", ["{", pytest.param("[" * 100_000, id="deep")])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, line: str) -> None:
    path = _file(tmp_path, _row(0))
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"HAPTIC_TASKS_FILE .*tasks\.jsonl, line 2: it is not JSON"):
        file_tasks(path, Rules(), 1, set())


def test_a_missing_file_is_named_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"HAPTIC_TASKS_FILE .*none\.jsonl"):
        file_tasks(tmp_path / "none.jsonl", Rules(), 1, set())
