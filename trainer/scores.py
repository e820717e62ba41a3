"""What a model reached on closed-set tasks: a file of scores, the table of it, and several models side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.errors import TaskError
from trainer.limits import writing

Layout = Literal["chat", "plain"]
"""What a task's text is to the model: a prompt within its template, or the beginning of a text."""


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one task."""

    task: str
    """Name of the task."""
    metric: str
    """Name of the metric."""
    value: float
    """Over all items."""
    stderr: float | None
    """Standard error as lm_eval gives it; None where it gives none."""
    low: float | None
    """Lower end of the 95 % interval: Wilson's of a share, 1.96 standard errors of anything else."""
    high: float | None
    """Upper end."""
    n: int
    """Items."""
    items: str
    """Hex sha256 of all that was put to the model and what was right; scores compare only where it is the same."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What one model reached."""

    model: str
    """Entry of the registry."""
    weights_sha256: str
    """Of its weights file."""
    layout: Layout
    """How the tasks were put to it."""
    harness: str
    """Version of lm_eval."""
    scores: Sequence[Score]
    """Task by task."""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    """Where and how it computed, which changes the last bits."""


def write(path: Path, scores: Scores) -> None:
    """Write scores as JSON; the file appears complete or not at all.

    Raises:
        DiskError: there is no room.
    """
    text = json.dumps(asdict(scores), indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path, len(text)):
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def read(path: Path) -> Scores:
    """Read what `write` wrote.

    Raises:
        TaskError: the file is missing, or no file of scores.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Scores(**{**found, "scores": [Score(**score) for score in found["scores"]]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(
            f"{path} is no file of scores ({error!r}): give one that `tasks --model NAME --out NEW.json` wrote"
        ) from error


def text(score: Score) -> str:
    """Return a score and its interval for people."""
    return f"{score.value:.3f}" + ("" if score.low is None else f" ({score.low:.3f} to {score.high:.3f})")


def table(scores: Sequence[Score]) -> str:
    """Return scores as a Markdown table."""
    lines = [("task", "metric", "value (95 %)", "stderr", "n"), ("---",) * 5]
    lines += [
        (s.task, s.metric, text(s), "-" if s.stderr is None else f"{s.stderr:.3f}", str(s.n)) for s in scores
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def side_by_side(found: Sequence[Scores]) -> list[list[Score | None]]:
    """Return a row for each task, metric and set of items, with a place for each model; None where it has none.

    What was put to the models otherwise, be it other items or another layout, is a row of its own.
    """
    by_model = [{(s.task, s.metric, s.items): s for s in scores.scores} for scores in found]
    every = sorted({key for scores in by_model for key in scores})
    return [[scores.get(key) for scores in by_model] for key in every]
