"""Snapshots: hash and format are checked line by line, and no prompt is on both sides of a split."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import SnapshotError
from trainer.preferences import Comparison, prompts_of, read_snapshot, repeated, split, write_snapshot

ROW = {
    "prompt": "How was the tea?",
    "chosen": "The tea was lovely.",
    "rejected": "It was cold.",
    "confidence_ppm": 900_000,
    "judgements": 5,
    "epoch": 2,
}


def snapshot(folder: Path, *lines: str) -> tuple[Path, str]:
    path = folder / "snapshot.jsonl"
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def comparison(prompt: str, *, confidence_ppm: int = 900_000) -> Comparison:
    return Comparison(prompt, "good", "bad", confidence_ppm, 1, 0)


def test_a_snapshot_reads_back_what_it_says(tmp_path: Path) -> None:
    path, sha256 = snapshot(
        tmp_path, json.dumps(ROW), json.dumps(ROW | {"prompt": "a\u2028b é"}, ensure_ascii=False)
    )
    first, second = read_snapshot(path, sha256)
    assert asdict(first) == ROW
    assert second.prompt == "a\u2028b é"


def test_a_written_snapshot_is_read_by_the_hash_that_writing_returned(tmp_path: Path) -> None:
    rows = [Comparison(**ROW), comparison("a\u2028b é")]  # type: ignore[arg-type]
    sha256 = write_snapshot(tmp_path / "new" / "snapshot.jsonl", rows)
    assert read_snapshot(tmp_path / "new" / "snapshot.jsonl", sha256) == rows


def test_another_hash_is_refused_and_both_are_named(tmp_path: Path) -> None:
    path, sha256 = snapshot(tmp_path, json.dumps(ROW))
    path.write_bytes(path.read_bytes().replace(b"lovely", b"lovelY"))
    with pytest.raises(SnapshotError, match=sha256) as caught:
        read_snapshot(path, sha256)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"confidence_ppm": 499_999},
            "confidence_ppm must be at least 500000 and at most 1000000, not 499999",
        ),
        ({"confidence_ppm": 1_000_001}, "not 1000001"),
        ({"confidence_ppm": 0.9}, "confidence_ppm must be of type int, not 0.9"),
        ({"confidence_ppm": True}, "must be of type int, not True"),
        ({"judgements": 0}, "judgements must be at least 1, not 0"),
        ({"epoch": -1}, "epoch must be at least 0, not -1"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "tea \ud800"}, "prompt is no text: it has half a character, '\\ud800', at 4"),
        ({"chosen": "\udfff"}, "chosen is no text: it has half a character"),
        ({"chosen": ROW["rejected"]}, "compares an answer with itself"),
        ({"extra": 1}, "must have exactly the fields"),
    ],
)
def test_a_malformed_line_is_named_with_its_value(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path, sha256 = snapshot(tmp_path, json.dumps(ROW), json.dumps(ROW | change))
    with pytest.raises(SnapshotError, match="line 2") as caught:
        read_snapshot(path, sha256)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[1]",
        json.dumps(ROW)[:-1] + ', "epoch": 3}',
        '"text"',
        json.dumps({k: v for k, v in ROW.items() if k != "epoch"}),
    ],
)
def test_a_line_that_is_no_comparison_is_named(tmp_path: Path, line: str) -> None:
    path, sha256 = snapshot(tmp_path, json.dumps(ROW), line, json.dumps(ROW))
    with pytest.raises(SnapshotError, match="line 2"):
        read_snapshot(path, sha256)


def test_a_missing_an_empty_and_a_mis_encoded_snapshot_are_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="cannot read"):
        read_snapshot(tmp_path / "none", "00")
    empty, sha256 = snapshot(tmp_path)
    with pytest.raises(SnapshotError, match="no comparisons"):
        read_snapshot(empty, sha256)
    for encoding in ("utf-16", "utf-16-le", "latin-1"):
        data = '{"prompt": "Wie: öde?"}\n'.encode(encoding)
        empty.write_bytes(data)
        with pytest.raises(SnapshotError, match=r"not UTF-8 at byte|line 1 is not JSON"):
            read_snapshot(empty, hashlib.sha256(data).hexdigest())


def test_a_nul_is_a_character_like_any_other_but_not_raw_in_json(tmp_path: Path) -> None:
    path, sha256 = snapshot(tmp_path, json.dumps(ROW | {"chosen": "good\0tea"}))
    assert read_snapshot(path, sha256)[0].chosen == "good\0tea"
    path, sha256 = snapshot(tmp_path, json.dumps(ROW).replace("lovely", "love\0ly"))
    with pytest.raises(SnapshotError, match="line 1 is not JSON"):
        read_snapshot(path, sha256)


def test_log_odds_are_those_of_the_confidence_and_finite_where_it_is_certain() -> None:
    coin, three_to_one, certain = (
        comparison("p", confidence_ppm=c).log_odds for c in (500_000, 750_000, 1_000_000)
    )
    assert (coin, three_to_one) == (0.0, pytest.approx(math.log(3)))
    assert certain == comparison("p", confidence_ppm=999_999).log_odds == pytest.approx(math.log(999_999))


def test_weight_is_zero_for_a_coin_and_one_for_certainty() -> None:
    assert [comparison("p", confidence_ppm=c).weight for c in (500_000, 750_000, 1_000_000)] == [
        0.0,
        0.5,
        1.0,
    ]


@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=80),
    st.sampled_from([0.01, 0.3, 0.9]),
    st.text(max_size=3),
)
def test_a_split_loses_nothing_and_shares_no_prompt(numbers: list[int], held_out: float, salt: str) -> None:
    rows = [comparison(f"prompt {n}") for n in [*numbers, 100, 101]]
    sides = split(rows, held_out=held_out, salt=salt)
    assert sides.train
    assert sides.held_out
    assert sorted(map(repr, sides.train + sides.held_out)) == sorted(map(repr, rows))
    assert not set(prompts_of(sides.train)) & set(prompts_of(sides.held_out))


def test_a_prompt_keeps_its_side_when_the_snapshot_grows() -> None:
    early = split([comparison(f"prompt {n}") for n in range(100)], held_out=0.2, salt="s")
    later = split([comparison(f"prompt {n}") for n in range(400)], held_out=0.2, salt="s")
    assert set(prompts_of(early.held_out)) <= set(prompts_of(later.held_out))
    assert set(prompts_of(early.train)) <= set(prompts_of(later.train))
    assert 0.1 < len(later.held_out) / 400 < 0.3


def test_another_salt_splits_otherwise() -> None:
    rows = [comparison(f"prompt {n}") for n in range(100)]
    assert split(rows, held_out=0.2, salt="a").held_out != split(rows, held_out=0.2, salt="b").held_out


def test_one_prompt_alone_cannot_be_split() -> None:
    with pytest.raises(SnapshotError, match="1 different prompts"):
        split([comparison("same"), comparison("same")], held_out=0.5, salt="s")


def test_comparisons_that_are_all_a_coins_teach_nothing_and_are_refused() -> None:
    coins = [comparison(f"prompt {n}", confidence_ppm=500_000) for n in range(8)]
    with pytest.raises(SnapshotError, match=r"all \d comparisons to learn from have confidence_ppm 500000"):
        split(coins, held_out=0.3, salt="s")
    sides = split([*coins, *(comparison(f"prompt {n}") for n in range(8))], held_out=0.3, salt="s")
    assert sum(row.weight for row in sides.train) > 0


def test_a_comparison_that_repeats_counts_again_and_its_share_is_told(tmp_path: Path) -> None:
    rows = [comparison("a"), comparison("b"), comparison("a"), comparison("a", confidence_ppm=900_001)]
    sha256 = write_snapshot(tmp_path / "s.jsonl", rows)
    assert read_snapshot(tmp_path / "s.jsonl", sha256) == rows
    sides = split(rows, held_out=0.5, salt="s")
    assert len(sides.train) + len(sides.held_out) == 4
    assert repeated(rows) == 0.25
    assert repeated([]) == 0
