"""What `make` says on a machine that lacks what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "make", "sh", "touch", "sed", "test", "echo")


def _make(folder: Path, target: str, *tools: str) -> subprocess.CompletedProcess[str]:
    """Run make in a folder that holds only what decides about set-up, with nothing but `tools` on the PATH."""
    path = folder / "bin"
    path.mkdir()
    for tool in (*TOOLS, *tools):
        if found := shutil.which(tool):
            (path / tool).symlink_to(found)
    (folder / "contracts").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-models.lock"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "contracts" / name, folder / "contracts" / name)
    environ = {**{k: v for k, v in os.environ.items() if not k.startswith("MAKE")}, "PATH": str(path)}
    command = [str(path / "make"), target]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("contracts/node_modules/.installed", "Node 20 with npm is missing"),
        (".venv/.installed", "Python 3.11 or newer is missing"),
    ],
)
def test_a_missing_node_or_python_is_named_with_what_to_do(tmp_path: Path, target: str, words: str) -> None:
    done = _make(tmp_path, target)
    assert done.returncode != 0
    assert words in done.stdout
    assert "apt-get install" in done.stdout
    assert not (tmp_path / target).exists()
