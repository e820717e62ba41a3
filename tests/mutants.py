"""Breaks each law on purpose, in a copy of the tree, and expects the test that holds it to fail.

    python tests/mutants.py [--list] [PART]

PART keeps the mutants whose file or test contains it. They stand in tests/mutants.toml: `file`, `find` (text
that occurs in it once), `replace`, and `test` (a pytest node id) or `forge` (arguments of `forge test`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).parents[1]
LINKED = (".venv", "contracts/node_modules")
BUILT = ("contracts/out", "contracts/cache")
"""What forge built: with it, only what changed is compiled."""
LIMIT_S = 300
"""A test that a mutant keeps busy for so long has noticed it."""
TESTS_FAILED = 1
"""Exit code of pytest and forge; anything else says that no test ran."""
NOT_COMPILED = -1
"""forge ends with 1 too where nothing could be compiled: no test has noticed anything then."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One thing that must not go unnoticed."""

    file: str
    find: str
    replace: str
    test: str = ""
    forge: str = ""

    def occurrences(self, root: Path) -> int:
        """Return how often the text to be replaced stands in its file."""
        file = root / self.file
        return file.read_text(encoding="utf-8").count(self.find) if file.exists() else 0


def read_mutants(part: str = "") -> list[Mutant]:
    """Return the mutants whose file or test contains `part`."""
    entries = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
    return [m for m in (Mutant(**e) for e in entries) if part in m.file or part in m.test + m.forge]


def copy_tree(to: Path) -> None:
    """Copy what git tracks or would track, and what forge built; link what was installed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    for name in LINKED:
        (to / name).symlink_to(ROOT / name)
    for name in BUILT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name)


def run(tests: Sequence[str], forge: str, root: Path) -> int:
    """Return the exit code of pytest's or forge's tests in a tree; TESTS_FAILED where they never end."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    if forge:
        command = [str(root / "contracts/node_modules/.bin/forge"), "test", "--offline", *forge.split()]
    where = root / "contracts" if forge else root
    # The copy goes before the installed package; no stale bytecode; the same examples each time.
    environ = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
    environ["FOUNDRY_PROFILE"] = "quick"
    try:
        done = subprocess.run(
            command, cwd=where, env=environ, timeout=LIMIT_S, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return TESTS_FAILED
    if forge and done.returncode == TESTS_FAILED and "[FAIL" not in done.stdout:
        return NOT_COMPILED
    return done.returncode


def is_sound(mutants: Sequence[Mutant], root: Path) -> bool:
    """Tell whether all their tests pass where nothing is broken; else their failing would mean nothing."""
    tests = sorted({m.test for m in mutants if m.test})
    forges = sorted({m.forge for m in mutants if m.forge})
    return (not tests or run(tests, "", root) == 0) and all(run([], forge, root) == 0 for forge in forges)


def judge(mutant: Mutant, root: Path) -> str:
    """Return what becomes of a mutant: killed, or why it was not."""
    if (count := mutant.occurrences(root)) != 1:
        return f"its text occurs {count} times"
    file = root / mutant.file
    sound = file.read_text(encoding="utf-8")
    file.write_text(sound.replace(mutant.find, mutant.replace), encoding="utf-8")
    try:
        code = run([mutant.test], mutant.forge, root)
    finally:
        file.write_text(sound, encoding="utf-8")
    if code == TESTS_FAILED:
        return "killed"
    return "SURVIVED" if code == 0 else f"its test did not run (exit code {code})"


def main(argv: Sequence[str]) -> int:
    """Try the mutants one after the other; return 1 if any was not killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", default="", help="only mutants whose file or test contains this")
    parser.add_argument("--list", action="store_true", help="show them, run nothing")
    wanted = parser.parse_args(argv)
    console, table = Console(), Table("file", "instead of", "test", "result", "seconds")
    mutants, alive = read_mutants(wanted.part), 0
    with tempfile.TemporaryDirectory(prefix="haptic-mutants-") as folder:
        root = Path(folder)
        if not wanted.list:
            copy_tree(root)
            if not is_sound(mutants, root):
                console.print("Some tests fail where nothing is broken: run them with pytest or forge first")
                return 1
        for number, mutant in enumerate(mutants, start=1):
            began = time.monotonic()
            result = "" if wanted.list else judge(mutant, root)
            alive += result not in {"", "killed"}
            find, test = mutant.find.strip().splitlines()[0], (mutant.test or mutant.forge).split("::")[-1]
            table.add_row(mutant.file, escape(find), test, result, f"{time.monotonic() - began:.0f}")
            if result:
                console.print(f"{number}/{len(mutants)} {mutant.file}: {escape(find)}: {result}")
    console.print(table)
    console.print(f"{len(mutants)} mutants" + ("" if wanted.list else f", {alive} not killed"))
    return min(alive, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
