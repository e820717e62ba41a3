"""What a person types is read exactly, or said to be wrong; a service that is none is said to be none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import HapticError
from chain.feedback import dense_ranks, summary_of
from service.answers import ApiError, Proof
from service.api import Api
from service.cli.typed import parse_marks, parse_order

sizes = st.sampled_from([2, 3, 4, 6])
rankings = sizes.flatmap(lambda k: st.lists(st.integers(1, k), min_size=k, max_size=k)).map(dense_ranks)


@given(rankings)
def test_an_order_that_is_written_out_is_read_back(ranks: tuple[int, ...]) -> None:
    assert parse_order(summary_of(ranks), len(ranks)) == ranks


@given(rankings, st.sampled_from(["", " ", "  "]))
def test_spaces_and_small_letters_make_no_difference(ranks: tuple[int, ...], space: str) -> None:
    text = summary_of(ranks).replace(" ", space).lower()
    assert parse_order(text, len(ranks)) == ranks


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is not one of A, B, C"),
        ("A > B", "C is missing"),
        ("A > B > A = C", "A stands twice"),
        ("A > D > B > C", "'D' is not one of A, B, C"),
        ("A > > B = C", "write for example: B > A > C"),
        ("A < B < C", "is not one of"),
        ("1 > 2 > 3", "is not one of"),
        ("ß > B > C", "is not one of"),
    ],
)
def test_an_order_that_is_none_is_said_to_be_wrong(text: str, words: str) -> None:
    with pytest.raises(HapticError) as caught:
        parse_order(text, 3)
    assert words in str(caught.value)


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_the_example_of_an_order_is_one_of_what_is_shown(count: int) -> None:
    with pytest.raises(HapticError) as caught:
        parse_order("nonsense", count)
    example = str(caught.value).partition("write for example: ")[2]
    assert len(parse_order(example, count)) == count


@given(
    sizes.flatmap(lambda k: st.lists(st.integers(1, 7), min_size=k, max_size=k)),
    st.sampled_from([" ", ",", ", "]),
)
def test_marks_are_read_and_the_ranks_follow_them(marks: list[int], between: str) -> None:
    assert parse_marks(between.join(map(str, marks)), len(marks)) == (tuple(marks), dense_ranks(marks))


@pytest.mark.parametrize("text", ["", "5", "5 2 7", "0 1", "8 1", "-1 2", "1.5 2", "a b"])
def test_marks_that_are_none_are_said_to_be_wrong_with_an_example(text: str) -> None:
    with pytest.raises(HapticError, match="such as: 4 4"):
        parse_marks(text, 2)


@pytest.mark.parametrize("url", ["http://[::1", "http://a:port", "nonsense", "ftp://host", ""])
def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    with pytest.raises(ApiError, match=r"http://127\.0\.0\.1:8000|--service"), Api(url) as api:
        api.get("/info")


GOOD = {
    "account": "0x" + "ab" * 20,
    "epoch": 1,
    "cumulative": "7",
    "index": 0,
    "proof": [["0x" + "11" * 32, "5"]],
}


def test_a_proof_is_read_with_its_numbers() -> None:
    found = Proof.parse(GOOD)
    assert (found.cumulative, found.index, found.nodes) == (7, 0, (("0x" + "11" * 32, 5),))


@pytest.mark.parametrize(
    "change",
    [
        {"account": "0x12"},
        {"cumulative": "seven"},
        {"proof": [["0x11", "5"]]},
        {"proof": [5]},
        {"proof": None},
    ],
)
def test_a_proof_that_cannot_be_read_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(HapticError, match="proof cannot be read"):
        Proof.parse(GOOD | change)
    with pytest.raises(HapticError, match="proof cannot be read"):
        Proof.parse({k: v for k, v in GOOD.items() if k not in change})
