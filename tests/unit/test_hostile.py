"""Nothing that a stranger wrote moves a cursor, opens a link, turns what is read, or makes a line of a log."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table

from service.hostile import SafeConsole, one_line, plain, visible
from service.logs import INDENT, TEXT, JsonLines, TextLines

NASTY = [
    "\x1b[2J\x1b[H", "\x1b]0;owned\x07", "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\", "\x9b31m",
    "\r$ rm -rf /",     "a\b\b\bb", "\u202egnp.exe", "\u2066x\u2069", "\u200bzero", "\u2028line", "[bold red]x[/]", "[link=http://evil]x[/]",
    "[/]", "\\[x]", "\x00", "\x7f", "\u061c", "[@click=app.quit]x[/]", "\x85next", "\U000e0041tag",
]  # fmt: skip
ROOT = Path(__file__).parents[2]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x1b\x9b\r\n\u202e\u2028[]\\/"))


def _is_safe(text: str) -> bool:
    return all(
        unicodedata.category(c) not in {"Cc", "Zl", "Zp", "Cs"}
        and unicodedata.bidirectional(c)[:2] not in {"LR", "RL", "PD"}
        for c in text.replace("\n", "").replace("\t", "")
    )


def _printed(what: object) -> str:
    console = SafeConsole(
        file=io.StringIO(), force_terminal=True, color_system="truecolor", width=100, highlight=False
    )
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined]


STYLES = re.compile(r"\x1b\[[0-9;]*m")
"""All that rich itself writes here: colours."""


@pytest.mark.parametrize("nasty", NASTY)
def test_a_text_in_a_panel_a_table_or_a_line_is_only_text(nasty: str) -> None:
    table = Table(title=plain(nasty))
    table.add_column("x")
    table.add_row(plain(nasty))
    for what in (f"[green]ok[/] {plain(nasty)}", Panel(plain(nasty), title=plain(nasty)), table):
        left = STYLES.sub("", _printed(what))
        assert "\x1b" not in left
        assert "\x07" not in left
        assert _is_safe(left), left


@pytest.mark.parametrize("nasty", NASTY)
def test_what_nobody_made_safe_still_moves_no_cursor(nasty: str) -> None:
    table = Table("x")
    table.add_row(nasty.replace("[", "("))
    assert "\x1b" not in STYLES.sub("", _printed(table))
    assert "\x07" not in _printed(table)


def test_markup_is_shown_and_not_obeyed() -> None:
    assert "[bold red]x[/]" in STYLES.sub("", _printed(plain("[bold red]x[/]")))
    assert "evil" in _printed(plain("[link=http://evil]x[/]"))


@given(TEXTS)
def test_a_visible_text_keeps_its_length_its_lines_and_what_is_harmless(text: str) -> None:
    found = visible(text)
    assert len(found) == len(text)
    assert _is_safe(found)
    assert found.count("\n") == text.count("\n")
    assert all(a in {b, "\ufffd"} for a, b in zip(found, text, strict=True))
    assert visible("Grüße, 漢字, 🦆 שלום") == "Grüße, 漢字, 🦆 שלום"


@given(TEXTS)
def test_one_line_is_one_line_and_stays_what_json_says(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert _is_safe(line)
    assert json.loads(one_line(json.dumps(text, ensure_ascii=False))) == text


def _record(message: str, error: Exception | None = None) -> logging.LogRecord:
    raised = None if error is None else (type(error), error, None)
    return logging.LogRecord("service.x", logging.ERROR, "x.py", 1, "said: %s", (message,), raised)


@pytest.mark.parametrize("nasty", [*NASTY, "x\n2026-01-01 00:00:00,000 INFO service.jobs epoch 3 is active"])
def test_a_message_forges_no_line_of_the_log(nasty: str) -> None:
    for formatter in (TextLines(TEXT), JsonLines()):
        assert len(formatter.format(_record(nasty)).splitlines()) == 1
        assert _is_safe(formatter.format(_record(nasty)))
    assert json.loads(JsonLines().format(_record(nasty)))["message"] == f"said: {nasty}"


@pytest.mark.parametrize("nasty", [*NASTY, "x\n2026-01-01 00:00:00,000 INFO service.jobs epoch 3 is active"])
def test_an_error_forges_no_line_of_the_log_either(nasty: str) -> None:
    first, *others = TextLines(TEXT).format(_record("x", ValueError(nasty))).split("\n")
    assert first.endswith("said: x")
    assert others
    assert all(line.startswith(INDENT) and _is_safe(line) for line in others)
    assert len(JsonLines().format(_record("x", ValueError(nasty))).splitlines()) == 1


def test_only_one_file_escapes_and_nothing_prints_past_it() -> None:
    for path in (ROOT / "service").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "hostile.py":
            assert "rich.markup" not in text, path
            assert "rich.text" not in text, path
            assert "rich.console" not in text, path
