"""A file that a command writes is there whole or not at all, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import ConflictError
from service.outfile import write_whole


def _breaking() -> Iterator[bytes]:
    yield b"half"
    raise OSError("the disk is full")


def test_a_file_is_written_whole_into_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    assert write_whole(path, iter([b"a", b"bc"])) == 3
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode & 0o400
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, b"old"])
def test_what_breaks_on_the_way_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(OSError, match="disk is full"):
        write_whole(path, _breaking(), force=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_file_is_replaced_only_when_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ConflictError, match="--force"):
        write_whole(path, [b"new"])
    assert path.read_bytes() == b"old"
    write_whole(path, [b"new"], force=True)
    assert path.read_bytes() == b"new"


def test_a_file_that_somebody_makes_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def slow() -> Iterator[bytes]:
        yield b"mine"
        path.write_bytes(b"theirs")

    with pytest.raises(ConflictError, match="somebody else"):
        write_whole(path, slow())
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"theirs"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="is a folder"):
        write_whole(tmp_path, [b""], force=True)
