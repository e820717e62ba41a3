"""A page that compares runs: one HTML file without scripts, that loads nothing and works from a disk."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from trainer import card, figures, scores
from trainer.card import Value
from trainer.measured import Measured
from trainer.scores import Score, Scores

_STYLE = """\
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5d6470; --ground: #fbfbfa; --line: #dcdee2; --head: #f0f1f3 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #a0a7b3; --ground: #14161a; --line: #33373f; --head: #1d2026 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1240px; padding: 24px 20px 60px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 26px; margin: 0 0 4px } h2 { font-size: 18px; margin: 36px 0 10px }
p { color: var(--soft); max-width: 75ch; margin: 4px 0 12px }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 5px 14px 5px 8px; border-bottom: 1px solid var(--line); vertical-align: top }
thead th { background: var(--head) } tbody th { font-weight: 500 }
td small { color: var(--soft); display: block; font-size: 12px } code { font-size: 12px; overflow-wrap: anywhere }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 18px }
.charts svg { width: 100%; height: auto } svg text { fill: var(--ink) }
"""
_ABOUT: tuple[tuple[str, Callable[[Measured], str]], ...] = (
    ("kind", lambda run: run.entry.kind),
    ("parent", lambda run: card.parent(run.entry)),
    ("method", lambda run: card.method(run.entry)),
    ("seed", lambda run: str(run.entry.seed)),
    ("data", lambda run: run.entry.data_sha256[:16]),
    ("weights", lambda run: run.entry.weights_sha256[:16]),
    ("code", lambda run: run.entry.code_version[:16]),
)


def page(runs: Sequence[Measured], tasks: Sequence[Scores] = ()) -> str:
    """Return the page; runs stand beside each other in the order given, and so do models that were put to tasks."""
    return "".join(_parts(runs, tasks))


def _parts(runs: Sequence[Measured], tasks: Sequence[Scores]) -> Iterator[str]:
    names = [run.entry.name for run in runs]
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width"><title>Haptic: runs compared</title>'
    yield f"<style>{_STYLE}</style></head><body>\n<h1>Runs compared</h1>\n"
    yield f"<p>{_safe(', '.join(names))}</p>\n"
    yield _table(["", *names], [[_safe(what), *(_safe(of(run)) for run in runs)] for what, of in _ABOUT])
    yield "<h2>What was measured</h2>\n<p>Shares with their 95 % Wilson intervals; win rates by a judge asked in both "
    yield "orders. Gold is a lexicon that stands in for people on the devnet; nothing is trained on it.</p>\n"
    yield _table(["", *names], _metrics(runs))
    if tasks:
        yield from _tasks(tasks)
    yield "<h2>How it went</h2>\n<p>By step of each stage. On the charts by KL, best of n shows what the reward model "
    yield "alone can reach: where gold no longer follows reward, the reward is over-optimised.</p>\n"
    charts = figures.figures(runs)
    yield f'<div class="charts">\n{"".join(f"<figure>{svg}</figure>" for svg in charts.values())}</div>\n'
    yield "<h2>What it cost</h2>\n<p>CPU and wall seconds of all attempts; what a killed one did after its last "
    yield "checkpoint is not counted. The peak is of the process, from its start to the end of the stage.</p>\n"
    heads = ["run", "stage", "CPU s", "wall s", "peak MiB", "attempts"]
    yield _table(
        heads, [[_safe(c) for c in (n, *row)] for n, r in _named(runs) for row in card.costs(r.costs)]
    )
    yield "<h2>Settings that differ</h2>\n"
    differ = _settings(runs)
    yield (
        _table(["", *names], differ)
        if differ
        else "<p>None of those that several runs have; each run's card has all.</p>\n"
    )
    yield "</body></html>\n"


def _named(runs: Sequence[Measured]) -> Iterator[tuple[str, Measured]]:
    return ((run.entry.name, run) for run in runs)


def _metrics(runs: Sequence[Measured]) -> list[list[str]]:
    """Return a row of cells for each metric that some run has."""
    by_run = [{value.name: value for value in card.values(run.entry.metrics)} for run in runs]
    every: dict[str, Value] = {name: value for found in by_run for name, value in found.items()}
    order = [*(n for n in card.METRICS if n in every), *(n for n in every if n not in card.METRICS)]
    return [
        [
            f"{_safe(every[name].says)}<br><code>{_safe(name)}</code>",
            *(_value(found.get(name)) for found in by_run),
        ]
        for name in order
    ]


def _tasks(found: Sequence[Scores]) -> Iterator[str]:
    yield "<h2>Tasks</h2>\n<p>By lm-evaluation-harness, with 95 % intervals: Wilson's of shares, 1.96 standard errors of "
    yield "anything else. Where models were given other items or another layout, the task has a row for each. Safety and "
    yield "honesty are judged by a few lexical rules: a smoke detector, no benchmark.</p>\n"
    heads = ["", *(f"{one.model} ({one.weights_sha256[:8]}, {one.layout})" for one in found)]
    yield _table(heads, [_task_row(row) for row in scores.side_by_side(found)])


def _task_row(row: Sequence[Score | None]) -> list[str]:
    about = next(score for score in row if score)
    cells = ["-" if score is None else _number(f"{scores.text(score)}, n = {score.n}") for score in row]
    return [f"{_safe(about.task)}<br><code>{_safe(about.metric)}</code>", *cells]


def _value(value: Value | None) -> str:
    return "-" if value is None else _number(value.text)


def _number(text: str) -> str:
    """Return a number as HTML, what follows it small."""
    number, _, interval = text.partition(" ")
    return _safe(number) + (f"<small>{_safe(interval)}</small>" if interval else "")


def _settings(runs: Sequence[Measured]) -> list[list[str]]:
    """Return a row of cells for each setting that is not the same in all runs that have it."""
    flat = [dict(_flat(run.entry.config)) for run in runs]
    every = dict.fromkeys(name for found in flat for name in found)
    return [
        [f"<code>{_safe(name)}</code>", *(_safe(found.get(name, "-")) for found in flat)]
        for name in every
        if len({found[name] for found in flat if name in found}) > 1
    ]


def _flat(config: Mapping[str, object], where: str = "") -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", str(value)


def _table(heads: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain heads and of cells that are HTML already."""
    head = "".join(f'<th scope="col">{_safe(cell)}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n'
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def _safe(text: str) -> str:
    """Return a text as HTML that shows it as it stands."""
    return html.escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
