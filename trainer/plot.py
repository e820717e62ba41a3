"""Small line charts as SVG, readable on light and on dark ground, safe whatever the names in them are."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP = 48, 12, 28
BOTTOM = HEIGHT - 34
GREY = "#777c85"
"""Of axes and words: about as far from white as from black."""
COLOURS = ("#3b82f6", "#e0701a", "#2f9e5b", "#c2418f", "#8b6cf0", "#a8862a")
HUGE = 1e30
"""What is as large, or no number, is left out: a diverged loss must not flatten all that was before it."""
DASHES = ("none", "6 3", "2 2", "8 3 2 3")
"""Lines differ by more than their colour."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    name: str
    """In the legend."""
    points: Sequence[tuple[float, float]]
    """x and y, in the order of the line; those that cannot be drawn are left out."""
    bars: Sequence[tuple[float, float]] = ()
    """Lower and upper end of the interval of each point, or none at all."""
    slot: int = 0
    """Which colour; lines of one run share it."""
    dash: int = 0
    """Which dash tells it from other lines of its colour."""


def chart(title: str, x_name: str, series: Sequence[Series], *, diagonal: bool = False) -> str:
    """Return an SVG of some lines; `diagonal` adds the line y = x."""
    lines = [Series(s.name, *_numbers(s), s.slot, s.dash) for s in series]
    xs = [x for s in lines for x, _ in s.points]
    ys = [y for s in lines for _, y in s.points] + [end for s in lines for bar in s.bars for end in bar]
    if diagonal:
        ys += xs
    x_low, x_high = _range(xs)
    y_low, y_high = _range(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return across, BOTTOM - (y - y_low) / (y_high - y_low) * (BOTTOM - TOP)

    found = [_words(WIDTH / 2, 16, title, "middle", 12), _words(WIDTH - RIGHT, HEIGHT - 6, x_name, "end")]
    for y in ticks(y_low, y_high):
        at = place(x_low, y)[1]
        found += [_line(LEFT, at, WIDTH - RIGHT, at, GREY, 0.25), _words(LEFT - 5, at + 3, f"{y:g}", "end")]
    for x in ticks(x_low, x_high):
        at = place(x, y_low)[0]
        found += [_line(at, BOTTOM, at, BOTTOM + 4, GREY, 1), _words(at, BOTTOM + 15, f"{x:g}", "middle")]
    if diagonal:
        low, high = max(x_low, y_low), min(x_high, y_high)
        found.append(_line(*place(low, low), *place(high, high), GREY, 0.8))
    for s in lines:
        colour = COLOURS[s.slot % len(COLOURS)]
        dots = [place(*point) for point in s.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        found.append(f'<polyline points="{path}" {_stroke(s)}/>')
        for (x, _), (low, high) in zip(s.points, s.bars, strict=False):
            found.append(_line(*place(x, low), *place(x, high), colour, 0.7))
        if len(dots) <= 12:
            found += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"/>' for x, y in dots]
    legend = {s.name: _stroke(s) for s in lines}
    height = HEIGHT + 15 * len(legend)
    for number, (name, stroke) in enumerate(legend.items()):
        at = HEIGHT + 8 + 15 * number
        found.append(f'<path d="M{LEFT} {at - 4}h22" {stroke}/>')
        found.append(_words(LEFT + 28, at, name, "start"))
    label = html.escape(_clean(title))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{label}" font-family="system-ui, sans-serif">{"".join(found)}</svg>\n'
    )


def ticks(low: float, high: float) -> list[float]:
    """Return three to seven round numbers within a range."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step *= next(factor for factor in (0.2, 0.5, 1.0, 2.0) if (high - low) / (step * factor) <= 6)
    return [
        round(n * step, 12) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _numbers(s: Series) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Return the points that can be drawn, and their bars."""
    kept = [n for n, point in enumerate(s.points) if all(abs(number) < HUGE for number in point)]
    return [s.points[n] for n in kept], [s.bars[n] for n in kept] if s.bars else []


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return ends that hold all values, apart even where these are one or none."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    flat = high - low < 1e-9 * max(abs(low), 1.0)
    spare = max(abs(low), 1.0) * 0.5 if flat else (high - low) * 0.04
    return low - spare, high + spare


def _stroke(s: Series) -> str:
    colour = COLOURS[s.slot % len(COLOURS)]
    dash = DASHES[(s.dash + s.slot // len(COLOURS)) % len(DASHES)]
    return f'fill="none" stroke="{colour}" stroke-dasharray="{dash}" stroke-width="1.6"'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, opacity: float, width: float = 1) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-opacity="{opacity}" stroke-width="{width}"/>'


def _words(x: float, y: float, text: str, anchor: str, size: int = 10) -> str:
    said = html.escape(_clean(text))
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{GREY}">{said}</text>'
    )


def _clean(text: str) -> str:
    """Return a text without what XML has no place for, not longer than a legend."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:60]
