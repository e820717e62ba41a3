"""A devnet clears only a folder that a devnet made, and keeps the first model, which took a minute to make."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain.devnet import DevnetError
from service.devnet import clear


def test_a_folder_with_files_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DevnetError, match="name another --folder"):
        clear(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_an_earlier_devnet_left_goes_but_its_first_model_stays(tmp_path: Path) -> None:
    folder = tmp_path / "devnet"
    assert not clear(folder)
    for name in (
        "models/sft-0/entry.json",
        "models/policy-1/entry.json",
        "bundles/epoch-0.jsonl",
        "haptic.db",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert clear(folder)
    left = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {x for x in left if not x.startswith(".")} == {"models/sft-0/entry.json"}
