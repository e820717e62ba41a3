"""What a retraining learns from is counted and copied a part at a time, however large it has become."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain import served
from service import training
from service.files import write_file


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "_STEP", 3)


@pytest.mark.parametrize(
    "texts", [[], [b""], [b"a\n"], [b"a\n\nb\n", b"", b"\n" * 7], [b"long " * 9 + b"\n"] * 2]
)
def test_files_have_as_many_comparisons_as_lines_and_make_one_file_in_their_order(
    tmp_path: Path, texts: list[bytes]
) -> None:
    paths = [tmp_path / str(n) for n in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text)
    assert [training._count(path) for path in paths] == [text.count(b"\n") for text in texts]
    parts = list(training._parts(paths))
    assert b"".join(parts) == b"".join(texts)
    assert max(map(len, parts), default=0) <= 3


def test_an_epoch_that_is_closed_anew_is_counted_anew_though_its_file_is_as_long(tmp_path: Path) -> None:
    path = tmp_path / "epoch-0.preferences.jsonl"
    write_file(path, [b"one\ntwo\n"])
    assert training._count(path) == 2
    write_file(path, [b"one two\n"])
    assert training._count(path) == 1
