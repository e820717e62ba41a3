"""Feedback from elsewhere is read as it was said, and a line that says nothing usable is named with its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.feedback import dense_ranks
from service.judged import FeedbackFileError, Format, Judged, merged, read, signs_of

WALLET = "0x" + "ab" * 20
PAIR: dict[str, Any] = {
    "prompt": "p",
    "responses": [{"system": "x", "text": "a\u2028b"}, {"text": "c"}],
    "judgements": [{"annotator": "ann", "winner": "left"}, {"annotator": "bob", "winner": "tie"}],
}
THREE: dict[str, Any] = {
    "prompt": "p",
    "responses": [{"text": "a"}, {"text": "b"}, {"text": "c"}],
    "rankings": [{"annotator": "ann", "ranks": [30, 10, 30]}],
}
PAIRS: dict[str, Any] = {
    "prompt": "p",
    "responses": THREE["responses"],
    "pairs": [
        {"a": 1, "b": 0, "label": "a"},
        {"a": 0, "b": 2, "label": "tie"},
        {"a": 1, "b": 2, "label": "a"},
    ],
}
DIALOGUE = {
    "chosen": "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: so?\n\nAssistant: well",
    "rejected": "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: so?\n\nAssistant: no",
}


def _file(folder: Path, *rows: object) -> Path:
    path = folder / "said.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_judgements_of_a_pair_are_signs_by_person(tmp_path: Path) -> None:
    (found,) = read(_file(tmp_path, PAIR))
    assert (found.texts, found.systems) == (("a\u2028b", "c"), ("x", ""))
    assert found.signs == {"ann": {(0, 1): 1}, "bob": {(0, 1): 0}}
    assert found.ranks == {"ann": (1, 2), "bob": (1, 1)}


def test_ranks_are_made_dense(tmp_path: Path) -> None:
    (found,) = read(_file(tmp_path, THREE))
    assert found.ranks == {"ann": (2, 1, 2)}


def test_pairs_are_of_one_person_and_are_ranks_where_they_agree_with_each_other(tmp_path: Path) -> None:
    circle = PAIRS | {
        "annotator": "eve",
        "pairs": [
            {"a": 0, "b": 1, "label": "a"},
            {"a": 1, "b": 2, "label": "a"},
            {"a": 0, "b": 2, "label": "b"},
        ],
    }
    some = PAIRS | {"pairs": PAIRS["pairs"][:2]}
    whole, odd, few = read(_file(tmp_path, PAIRS, circle, some))
    assert whole.ranks == {"line 1": (2, 1, 2)}
    assert (odd.ranks, list(odd.signs)) == ({}, ["eve"])
    assert few.ranks == {}


def test_the_prompt_of_two_dialogues_is_all_up_to_the_last_turn(tmp_path: Path) -> None:
    (found,) = read(_file(tmp_path, DIALOGUE))
    assert found.prompt == "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: so?\n\nAssistant:"
    assert found.texts == ("well", "no")
    assert found.ranks == {"line 1": (1, 2)}


def test_chosen_and_rejected_may_have_their_prompt_beside_them(tmp_path: Path) -> None:
    (found,) = read(_file(tmp_path, {"prompt": "q", "chosen": "yes", "rejected": "no", "author": WALLET}))
    assert (found.prompt, found.texts, found.author) == ("q", ("yes", "no"), WALLET)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ('"\udc00"'.encode("utf-16-le", "surrogatepass").decode("latin1"), "is not JSON"),
        ("[]", "expected an object"),
        ({"text": "p"}, "has the fields 'text'; expected prompt and responses"),
        (PAIR | {"prompt": 7}, "prompt: expected a text, found 7"),
        ({"responses": PAIR["responses"]}, "prompt: expected a text, found nothing"),
        (PAIR | {"prompt": "\ud800"}, "is not JSON|lone surrogate"),
        (PAIR | {"responses": "ab"}, "responses: expected a list"),
        (PAIR | {"responses": ["a", "b"]}, r"responses\[0\]: expected an object"),
        (PAIR | {"responses": [{"text": "a"}, {"system": "x"}]}, r"responses\[1\]\.text: expected a text"),
        (PAIR | {"judgements": [{"annotator": "a", "winner": "up"}]}, r"judgements\[0\]\.winner: expected left"),
        (PAIR | {"judgements": [{"winner": "left"}]}, r"judgements\[0\]\.annotator: expected a text"),
        (THREE | {"judgements": PAIR["judgements"]}, "left and right are of 2 responses, here are 3"),
        (THREE | {"rankings": [{"annotator": "a", "ranks": [1, 2]}]}, r"rankings\[0\]\.ranks: expected 3 whole numbers"),
        (THREE | {"rankings": [{"annotator": "a", "ranks": [1, 2, True]}]}, r"rankings\[0\]\.ranks"),
        (PAIRS | {"pairs": [{"a": 0, "b": 3, "label": "a"}]}, r"pairs\[0\]\.a and b: expected two different places"),
        (PAIRS | {"pairs": [{"a": 1, "b": 1, "label": "a"}]}, r"pairs\[0\]\.a and b"),
        (PAIRS | {"pairs": [{"a": 0, "b": 1, "label": "left"}]}, r"pairs\[0\]\.label: expected a, b, tie"),
        (PAIRS | {"pairs": [PAIRS["pairs"][0], {"a": 0, "b": 1, "label": "a"}]}, r"pairs\[1\]\.label: contradicts"),
        (PAIR | {"author": "me"}, "author: 'me' is not an address"),
        (DIALOGUE | {"chosen": "Human: hi"}, "chosen: expected a turn of the assistant"),
        (DIALOGUE | {"rejected": "\n\nHuman: ho\n\nAssistant: no"}, "rejected: expected the dialogue of chosen"),
        (DIALOGUE | {"rejected": DIALOGUE["chosen"] + " "}, "rejected: expected another response"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "rejected: expected another response"),
    ],
)  # fmt: skip
def test_a_line_that_says_nothing_usable_is_named_with_its_field_or_skipped_and_counted(
    tmp_path: Path, line: object, words: str
) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    path = _file(tmp_path, THREE, "", text, PAIR)
    with pytest.raises(FeedbackFileError, match=rf"said\.jsonl, line 3: .*({words})"):
        list(read(path))
    bad: list[FeedbackFileError] = []
    assert [r.line for r in read(path, bad=bad.append)] == [1, 4]
    assert len(bad) == 1


@pytest.mark.parametrize("form", ["dialogues", "pairs"])
def test_a_format_that_is_named_is_the_only_one(tmp_path: Path, form: Format) -> None:
    with pytest.raises(FeedbackFileError, match=r"line 1: (chosen|prompt)"):
        list(read(_file(tmp_path, {"responses": [], "pairs": []}), form))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeedbackFileError, match=r"none\.jsonl cannot be read"):
        list(read(tmp_path / "none.jsonl"))


ranks = st.lists(st.integers(1, 3), min_size=2, max_size=4).map(dense_ranks)


@given(ranks)
def test_ranks_and_what_they_say_of_pairs_are_the_same(order: tuple[int, ...]) -> None:
    texts = tuple(map(str, range(len(order))))
    assert Judged("p", texts, texts, {"who": signs_of(order)}).ranks == {"who": order}


@given(st.data(), st.lists(ranks.filter(lambda r: len(r) == 3), min_size=1, max_size=4))
def test_who_judged_the_same_responses_in_another_order_said_the_same(
    data: st.DataObject, orders: list[tuple[int, ...]]
) -> None:
    texts = ("a", "b", "c")
    split = []
    for n, order in enumerate(orders):
        place = data.draw(st.permutations(range(3)))
        mixed = tuple(texts[i] for i in place)
        split.append(Judged("p", mixed, mixed, {f"who {n}": signs_of([order[i] for i in place])}))
    (found,) = merged(split)
    by_text = [dict(zip(found.texts, r, strict=True)) for r in found.ranks.values()]
    assert sorted(tuple(r[t] for t in texts) for r in by_text) == sorted(orders)


def test_of_somebody_who_judged_twice_the_first_counts() -> None:
    twice = [Judged("p", ("a", "b"), ("", ""), {"ann": {(0, 1): s}}, line=s + 2) for s in (1, -1)]
    (found,) = merged(twice)
    assert found.ranks == {"ann": (1, 2)}
