"""Every HAPTIC_* variable that the program reads stands in a table of the README, and none there is read by nobody."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import typer

from service.cli import app
from service.settings import Settings

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"HAPTIC_[A-Z_]*[A-Z]")


def _of_commands(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        named = parameter.envvar or ()
        yield from (named,) if isinstance(named, str) else named
    for inner in getattr(command, "commands", {}).values():
        yield from _of_commands(inner)


def _named_alone() -> Iterator[str]:
    """Yield the names that stand alone in a string of the sources, as whoever asks the environment writes them."""
    for package in ("chain", "service", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and VARIABLE.fullmatch(node.value)
                ):
                    yield node.value


def _read() -> set[str]:
    settings = {f"HAPTIC_{name.upper()}" for name in Settings.model_fields}
    return settings | set(_of_commands(typer.main.get_command(app))) | set(_named_alone())


def _in_tables() -> list[str]:
    """Return the variables that a row of a table of the README is about."""
    rows = [
        line.strip()
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.strip().startswith("| `HAPTIC_")
    ]
    return [name for row in rows for name in VARIABLE.findall(row.split("|")[1])]


def test_every_variable_that_is_read_stands_in_a_table_of_the_readme() -> None:
    assert len(_read()) > 25
    assert sorted(_read() - set(_in_tables())) == []


def test_no_variable_stands_there_twice_or_is_read_by_nobody() -> None:
    assert sorted(set(_in_tables()) - _read()) == []
    assert sorted(set(_in_tables())) == sorted(_in_tables())
