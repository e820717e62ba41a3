"""A bundle held against what is recomputed: the first difference is named, whatever the bundle says there."""

from __future__ import annotations

from io import BytesIO

import pytest

from chain.bundle import Run
from chain.canonical import text_hash
from chain.confirmed import Learned
from chain.difference import Comparison
from chain.errors import BundleError, VerifyError
from chain.lines import line_bytes
from chain.types import Epoch

A, B = "0x" + 40 * "a", "0x" + 40 * "b"
FIRST = line_bytes({"kind": "leaf", "account": A, "cumulative": "1"})
LAST = line_bytes({"kind": "leaf", "account": B, "cumulative": "2"})


def _held(bundle: bytes, *expected: bytes) -> None:
    given = Comparison(3, BytesIO(bundle))
    for line in expected:
        given.expect(line)
    given.expect_end()


def test_the_same_lines_are_no_difference() -> None:
    _held(b"")
    _held(FIRST + LAST, FIRST, LAST)


@pytest.mark.parametrize(
    ("bundle", "expected", "match"),
    [
        (FIRST, (FIRST, LAST), f"epoch 3: the row 'leaf account {B}' is missing"),
        (b"", (FIRST,), f"epoch 3: the row 'leaf account {A}' is missing"),
        (FIRST + LAST, (FIRST,), f"epoch 3: the row 'leaf account {B}' is too many"),
        (LAST, (FIRST,), f"epoch 3: found the row 'leaf account {B}' where 'leaf account {A}' belongs"),
        (FIRST.replace(b'"1"', b'"7"'), (FIRST,), f"epoch 3, leaf account {A}: cumulative is 7, recomputed 1"),
        (FIRST.replace(b'"kind"', b'"fee":1,"kind"'), (FIRST,), f"epoch 3, leaf account {A}: fee is 1, recomputed None"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(bundle: bytes, expected: tuple[bytes, ...], match: str) -> None:
    with pytest.raises(VerifyError, match=match):
        _held(bundle, *expected)


def test_nothing_is_asked_of_a_bundle_beyond_the_line_that_differs() -> None:
    file = BytesIO(LAST + b"not a line")
    given = Comparison(3, file)
    with pytest.raises(VerifyError):
        given.expect(FIRST)
    assert file.tell() == len(LAST)


@pytest.mark.parametrize("nested", [7, [], "x", {"account": B}])
def test_a_row_may_hold_anything_and_is_named_all_the_same(nested: object) -> None:
    strange = line_bytes(
        {"kind": "leaf", "account": A, "cumulative": "1", "ranking": nested, "session": nested}
    )
    with pytest.raises(
        VerifyError, match=f"epoch 3, leaf account {A}: ranking is .*; session is .*, recomputed None"
    ):
        _held(strange, FIRST)


def test_a_line_that_became_none_since_it_was_read_is_refused() -> None:
    with pytest.raises(BundleError, match="line 2 is not JSON"):
        _held(FIRST + b"{\n", FIRST, LAST)


def test_a_run_may_learn_late_from_epochs_that_no_run_has_learned_from() -> None:
    learned = Learned()
    for epoch in range(4):
        learned.add(epoch, [b"%d\n" % epoch, b"x\n"])

    def hashed(first: int, last: int) -> str:
        return learned.hash(Run(1, Epoch(first), Epoch(last), text_hash("?")))

    whole, late = hashed(0, 1), hashed(2, 3)
    assert whole == "0xd2f00df20b087b023b98a7ef422443d43852e57ab5bfceab2c5b5a93cf0137ac"
    learned.forget(1)
    assert hashed(2, 3) == late == "0x6e98e730e750baad1acabc5fb0629c7fab5b76c977d43376a662e29d2d572fa7"
    with pytest.raises(KeyError):
        hashed(1, 1)
    learned.close()
    learned.close()
