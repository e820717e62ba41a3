"""No key and no password is ever an argument, which everybody on a machine can read in its list of processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from service.cli import app

SECRET = re.compile(
    r"pass(word|phrase)?|secret|mnemonic|private|(^|_)key($|_)|token_?key|seed_?phrase", re.IGNORECASE
)
PUBLIC = frozenset({"password_file"})


def _parameters(command: Any, path: str = "haptic") -> Iterator[tuple[str, Any]]:
    yield from ((f"{path} {p.name}", p) for p in command.params)
    for name, sub in getattr(command, "commands", {}).items():
        yield from _parameters(sub, f"{path} {name}")


def test_no_command_takes_a_key_or_a_password_as_an_argument() -> None:
    every = list(_parameters(typer.main.get_command(app)))
    assert len(every) > 50
    found = [
        path
        for path, p in every
        if SECRET.search(f"{p.name} {' '.join(p.opts)}".replace("-", "_")) and p.name not in PUBLIC
    ]
    assert found == []


@pytest.mark.parametrize("text", ["--password", "--key", "private_key", "--secret", "mnemonic"])
def test_an_option_that_took_one_would_be_seen(text: str) -> None:
    assert SECRET.search(text.replace("-", "_"))
