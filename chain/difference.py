"""The first row in which a bundle differs from what was recomputed, in words; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Final

from chain.errors import VerifyError
from chain.lines import KINDS, Line, raw_lines, read_line

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "epoch": ("epoch",),
    "task": ("task",),
    "gold": ("task",),
    "session": ("wallet", "key"),
    "handout": ("number",),
    "skip": ("number",),
    "ranking": ("position", "wallet", "task"),
    "run": ("run",),
    "pair": ("task", "a", "b"),
    "wallet": ("wallet",),
    "pool": ("run",),
    "share": ("run", "wallet"),
    "leaf": ("account",),
}
"""The fields that name a row of each kind; no two rows have all of them in common."""


def _name(line: Line) -> str:
    """Return a line's kind and key in words."""
    kind, body = line["kind"], line
    if kind in {"ranking", "session"}:
        body = line | line[kind]
    return " ".join([kind, *(f"{k} {body.get(k)}".removeprefix(f"{kind} ") for k in _KEYS[kind])])


def _differ(epoch: int, found: Line | None, expected: Line | None) -> VerifyError:
    if found is None or expected is None:
        there = _name(found or expected or {"kind": "?"})
        return VerifyError(
            f"epoch {epoch}: the row '{there}' is {'too many' if expected is None else 'missing'}"
        )
    if _name(found) != _name(expected):
        earlier = min((found, expected), key=lambda x: (KINDS.index(x["kind"]), _name(x)))
        return VerifyError(
            f"epoch {epoch}: found the row '{_name(found)}' where '{_name(expected)}' belongs "
            f"(see {_name(earlier)})"
        )
    fields = [k for k in sorted(set(found) | set(expected)) if found.get(k) != expected.get(k)]
    said = "; ".join(f"{k} is {found.get(k)}, recomputed {expected.get(k)}" for k in fields)
    return VerifyError(f"epoch {epoch}, {_name(expected)}: {said or 'it is not in canonical form'}")


class Comparison:
    """A bundle held against what is recomputed, line by line as that is made."""

    def __init__(self, epoch: int, file: IO[bytes]) -> None:
        self._epoch = epoch
        self._given = enumerate(raw_lines(file), start=1)

    def expect(self, line: bytes) -> None:
        """Raise unless this is the bundle's next line."""
        number, found = next(self._given, (0, b""))
        if found != line:
            there = read_line(number, found) if found else None
            raise _differ(self._epoch, there, read_line(number, line))

    def expect_end(self) -> None:
        """Raise unless the bundle has no more lines."""
        for number, found in self._given:
            raise _differ(self._epoch, read_line(number, found), None)
