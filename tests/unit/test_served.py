"""Which bundles a place has: what is in a folder is seen, and what is asked for and missing is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain.errors import BundleError
from chain.served import bundles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("epoch-2", "epoch-3", "epoch-10", "epoch-3.preferences", "epoch-x"):
        (tmp_path / f"{name}.jsonl").write_text(name)
    return tmp_path


def _read(where: Path, first: int | None = None, last: int | None = None) -> list[tuple[int, str]]:
    found = []
    for epoch, served in bundles(str(where), first, last):
        with served as file:
            found.append((epoch, file.read().decode()))
    return found


def test_all_bundles_of_a_folder_come_in_the_order_of_their_epochs(folder: Path) -> None:
    assert _read(folder) == [(2, "epoch-2"), (3, "epoch-3"), (10, "epoch-10")]
    assert _read(folder, 3) == [(3, "epoch-3"), (10, "epoch-10")]
    assert _read(folder, 2, 3) == [(2, "epoch-2"), (3, "epoch-3")]


def test_a_file_is_its_own_epoch_and_no_other(folder: Path) -> None:
    assert _read(folder / "epoch-3.jsonl") == [(3, "epoch-3")]


@pytest.mark.parametrize(("first", "last"), [(2, 4), (4, 4), (11, None)])
def test_epochs_that_a_folder_does_not_have_are_refused(folder: Path, first: int, last: int | None) -> None:
    with pytest.raises(BundleError, match=r"\[2, 3, 10\], not all"):
        _read(folder, first, last)


def test_a_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none"):
        _read(tmp_path)
