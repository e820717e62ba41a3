"""Progress of a run: one JSON object per line on stdout, for the process that started it.

Of several processes that train together the first speaks for all.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import NoReturn


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished step of a stage."""

    stage: str
    step: int
    """Steps finished so far, from 1."""
    of: int
    """Steps planned; a stage that stops early ends below it."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the step measured, by name."""
    note: str = ""
    """What a person should know, such as where a killed run went on; a line without one has no such field."""


Report = Callable[[Progress], None]
"""Where a stage sends its progress."""


def to_stdout(progress: Progress) -> None:
    """Print one progress line; numbers keep six digits, as logs need no more."""
    record = asdict(progress)
    record["metrics"] = {name: round(float(value), 6) for name, value in progress.metrics.items()}
    if not progress.note:
        del record["note"]
    emit(record)


def emit(record: Mapping[str, object]) -> None:
    """Print one JSON object on a line of its own and flush it, since a pipe would hold it back."""
    if rank():
        return
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def unfinished(finished: float) -> str:
    """Return what a person should know of a method's last answers, by the share that ends; empty where most do."""
    if finished >= 0.5:
        return ""
    return (
        f"{1 - finished:.0%} of the last answers do not end within the limit, and the reward of all of these is the "
        "same: where none ends nothing is learned. Bootstrap a model with more model.answer_tokens, or import it with "
        "more imported.answer_tokens"
    )


def silent(_progress: Progress) -> None:
    """Report to nobody."""


def leave(status: int) -> NoReturn:
    """End this process with an exit status; of several that train together at once, when all is written.

    An interpreter that takes itself apart meets threads of gloo that are not over, and then now and then aborts.
    """
    if launched() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def launched() -> int:
    """Return how many processes a launcher (torchrun, accelerate) started together with this one, itself included."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Return this process's place among them, from 0."""
    return int(os.environ.get("RANK", "0")) if launched() > 1 else 0
