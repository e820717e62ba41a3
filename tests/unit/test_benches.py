"""A bench that nobody ran for a while still runs as far as its first line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.bars import hold

BENCH = Path(__file__).parents[1] / "bench"
ROOT = BENCH.parents[1]


def test_every_bench_finds_what_it_imports() -> None:
    """Together, as what takes the time is torch, pandas and the like."""
    names = [file.relative_to(ROOT).with_suffix("") for file in sorted(BENCH.rglob("*.py"))]
    code = "\n".join(f"import {'.'.join(name.parts)}" for name in names if name.stem != "__main__")
    assert "tests.bench.rounds" in code
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_bench_ends_with_an_error_only_where_a_bar_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    hold({"a": True, "b": True})
    assert capsys.readouterr().out == "holds   a\nholds   b\n"
    with pytest.raises(SystemExit, match=r"^2 of 3 bars are missed$"):
        hold({"a": False, "b": True, "c": False})
    assert capsys.readouterr().out == "missed  a\nholds   b\nmissed  c\n"
