"""Figures of several seeds as tables, and the bars that must hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.bench.score import attacks
from tests.bench.score import crowd as c
from tests.bench.score.attacks import Figure
from tests.bench.score.tally import mean_and_spread

HOSTILE = (c.CLICKER, c.ADVERSARY, c.PICKS_LONGER, c.COPYCAT, c.STALE, c.LAZY_WHALE)


@dataclass
class Tables:
    """Figures by table, row and column; one value per seed."""

    found: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, figures: Iterable[Figure]) -> None:
        """Add the figures of a seed."""
        for f in figures:
            self.found.setdefault(f.table, {}).setdefault(f.row, {}).setdefault(f.column, []).append(f.value)

    def of(self, table: str, row: str, column: str = "") -> list[float]:
        """Return a figure, one value per seed."""
        return self.found[table][row][column]

    def show(self) -> None:
        """Print every table: mean ± standard deviation over the seeds."""
        for title, rows in self.found.items():
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            show(
                title,
                columns,
                [(name, [_said(row.get(column)) for column in columns]) for name, row in rows.items()],
            )


def _said(values: list[float] | None) -> str:
    if not values:
        return "-"
    mean, spread = mean_and_spread(values)
    if math.isinf(mean):
        return "takes all"
    digits = 3 if abs(mean) < 10 else 0
    return f"{mean:.{digits}f}" + (f" ±{spread:.{digits}f}" if len(values) > 1 else "")


def show(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print one table."""
    print(f"\n{title}")
    first = max(len(name) for name, _ in rows)
    widths = [max(len(column), *(len(cells[i]) for _, cells in rows)) for i, column in enumerate(columns)]
    if any(columns):
        print(
            " " * (first + 2) + "  ".join(column.rjust(w) for column, w in zip(columns, widths, strict=True))
        )
    for name, cells in rows:
        print(
            f"  {name:<{first}}"
            + "".join("  " + cell.rjust(w) for cell, w in zip(cells, widths, strict=True)),
            flush=True,
        )


@dataclass(frozen=True, slots=True)
class Bar:
    """What has to hold, what was found in the worst seed, and whether it holds."""

    law: str
    bar: str
    found: str
    held: bool


def _most(law: str, values: Iterable[float], bar: float) -> Bar:
    worst = max(values)
    return Bar(law, f"<= {bar:g}", f"{worst:.3f}", worst <= bar)


def _least(law: str, values: Iterable[float], bar: float) -> Bar:
    worst = min(values)
    return Bar(law, f">= {bar:g}", f"{worst:.3f}", worst >= bar)


def bars(t: Tables) -> list[Bar]:
    """Return the bars, each by its worst seed."""
    ours = "HapticScore"
    rates = [t.of(attacks.PAY, kind, ours) for kind in ("expert", "average", "poor")]
    hostile = [v for kind in HOSTILE for v in t.of(attacks.PAY, kind.name, ours)]
    steps = [min(a - b for a, b in zip(*pair, strict=True)) for pair in pairwise(rates)]
    split = [
        v
        for kind in ("expert", "average")
        for values in t.found[attacks.SPLITS][kind].values()
        for v in values
    ]
    gain = {row: t.of(attacks.LABELS, row, "over majority") for row in t.found[attacks.LABELS]}
    whales = [v for row in attacks.IDLE_WHALES for v in t.of(attacks.WHALES, row, ours)]
    return [
        Bar("expert > average > poor, per unit of work", "> 0", f"{min(steps):.3f} apart", min(steps) > 0),
        _least("poor, per unit of work, above everything hostile", [p - max(hostile) for p in rates[2]], 0),
        _most("clicker, adversary, longer-picker, copycats, lazy whale: per unit of work", hostile, 0.05),
        _most("every split of a skilled wallet loses: of what one wallet earns", split, 1.0),
        _most("whales with 80 % of stake and 0.7 % of work, idle or of little work each: of the pool", whales, 0.03),
        _most("a ring of 20 % at 2 % gold: per unit of work", t.of(attacks.RING_PAY, "ring of 20%", "gold 2%"), 0.1),
        _least("labels over majority, benign", gain["benign"], 0.03),
        _least("labels over majority, 10 % adversaries", gain["10 % adversaries"], 0.08),
    ]  # fmt: skip


def show_bars(found: Sequence[Bar]) -> None:
    """Print the bars."""
    rows = [(b.law, (b.bar, b.found, "yes" if b.held else "NO")) for b in found]
    show("Bars: what must hold in every seed", ("bar", "found", "held"), rows)
