"""The leaves of a bundle as a watcher reads them: in their order, past everything that is no leaf."""

from __future__ import annotations

from io import BytesIO

import pytest

from chain.served import published_leaves

A, B = "0x" + 40 * "a", "0x" + 40 * "b"
GOOD = b'{"account":"%s","cumulative":"7","kind":"leaf"}' % A.encode()


def test_leaves_keep_the_order_in_which_they_were_published_and_their_repetitions() -> None:
    lines = [b'{"account":"%s","cumulative":"1","kind":"leaf"}' % B.encode(), GOOD, GOOD]
    found = published_leaves(BytesIO(b"\n".join(lines) + b"\n"))
    assert [(x.account, x.cumulative) for x in found] == [(B, 1), (A, 7), (A, 7)]


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\xff\x00 leaf", b'"leaf"', b'["leaf"]', b'{"kind":"leaf"', b'{"kind":"leaf"}', b"[" * 100_000 + b'"leaf"',
        GOOD.replace(b'"leaf"', b'"wallet","x":"leaf"'), GOOD.replace(b"0xaa", b"0x"), GOOD.replace(b"0xaa", b"0xAa"),
        GOOD.replace(b'"7"', b"null"), GOOD.replace(b'"7"', b"1e999"), GOOD.replace(b'"7"', b'"-1"'),
        GOOD.replace(b'"7"', b'"%s"' % (b"9" * 5000)), GOOD.replace(b'"7"', b'"79228162514264337593543950336"'),
    ],
)  # fmt: skip
def test_what_is_no_leaf_is_passed_over(line: bytes) -> None:
    assert [x.cumulative for x in published_leaves(BytesIO(b"\n".join([line, GOOD, line])))] == [7]


def test_the_largest_amount_there_can_be_is_read() -> None:
    most = 2**96 - 1
    assert published_leaves(BytesIO(GOOD.replace(b'"7"', b'"%d"' % most)))[0].cumulative == most


def test_a_line_that_is_longer_than_any_that_is_read_is_passed_over_with_all_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chain.served.MAX_LINE_BYTES", len(GOOD) + 1)
    lines = [b"x" * (len(GOOD) + 1) + GOOD, b" " + GOOD + b" ", GOOD]
    assert [x.cumulative for x in published_leaves(BytesIO(b"\n".join(lines) + b"\n"))] == [7]
    assert [x.cumulative for x in published_leaves(BytesIO(b"\n".join(lines)))] == [7]
