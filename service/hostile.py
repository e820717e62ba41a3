"""Text that strangers wrote, made safe to show: on a terminal, in rich's markup, and in one line of a log.

Control characters move the cursor, rename the window and forge lines; marks of writing direction make a text read as
what it is not. None of them reaches a terminal or a log but through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.segment import Segment

_CONTROL: Final = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_DIRECTION: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE: Final = "\u200b\u2028\u2029\u2060\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_UNSAFE: Final = re.compile(f"[{_CONTROL}{_DIRECTION}{_INVISIBLE}\ud800-\udfff]")
_UNSAFE_IN_A_LINE: Final = re.compile(f"[\t\n{_CONTROL}{_DIRECTION}{_INVISIBLE}\ud800-\udfff]")
_SHORT: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def visible(text: str) -> str:
    """Return a text whose unsafe characters are U+FFFD each, so that one sees that there was one; lines stay lines."""
    return _UNSAFE.sub("\ufffd", text)


def plain(text: object) -> str:
    """Return a text as rich prints it between our own markup: nothing in it is a style, a link or a control."""
    return escape(visible(str(text)))


def one_line(text: str) -> str:
    """Return a text as it stands in one line of a log, its unsafe characters written out as JSON writes them."""
    return _UNSAFE_IN_A_LINE.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    number = ord(character)
    if number > 0xFFFF:
        number -= 0x10000
        return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
    return f"\\u{number:04x}"


class SafeConsole(Console):
    """A console on which a text is only ever text: what moves the cursor is rich's own, not that of what is printed."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        safe = (s if s.control else Segment(visible(s.text), s.style) for s in buffer)
        return super()._render_buffer(safe)
