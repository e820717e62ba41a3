"""A run's diary: every line of progress and what each stage cost, kept with the checkpoints, so that no kill doubles it.

The lines go back with the weights to the last checkpoint and are written again as the steps are taken again. Costs
of all attempts are added; what a killed attempt did after its last checkpoint is lost, and so not counted.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.limits import writing
from trainer.progress import Progress, Report

METRICS = "metrics.jsonl"
COST = "cost.json"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage cost."""

    cpu_s: float = 0.0
    """CPU seconds of the process, all threads."""
    wall_s: float = 0.0
    """Seconds that passed."""
    peak_memory_bytes: int = 0
    """Most resident memory of the process from its start to the end of the stage."""
    attempts: int = 0
    """Attempts that are counted here; more than one where a run was killed and went on."""

    def plus(self, other: Cost) -> Cost:
        """Return what both cost, one after the other."""
        return Cost(
            self.cpu_s + other.cpu_s,
            self.wall_s + other.wall_s,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
            self.attempts + other.attempts,
        )

    def since(self, begun: Cost) -> Cost:
        """Return the cost of an attempt that went on from one reading of the meter to this one."""
        return Cost(self.cpu_s - begun.cpu_s, self.wall_s - begun.wall_s, self.peak_memory_bytes, 1)


_ELSEWHERE: list[float] = []
"""CPU seconds of processes that work for this one, by what they did."""


def worked(seconds: float) -> None:
    """Count what a process that works for this one has taken."""
    _ELSEWHERE.append(seconds)


def cpu_s() -> float:
    """Return the CPU seconds that this process, and those that work for it, have taken."""
    return time.process_time() + sum(_ELSEWHERE)


def meter() -> Cost:
    """Read this process's clocks and its peak of memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Cost(cpu_s(), time.monotonic(), peak if sys.platform == "darwin" else peak * 1024)


class Diary:
    """What one run says, kept until its entry is written."""

    def __init__(
        self, report: Report, clock: Callable[[], float] = time.time, meter: Callable[[], Cost] = meter
    ) -> None:
        """Begin an empty diary.

        Args:
            report: where each line of progress goes on to.
            clock: Unix seconds.
            meter: what the process has cost so far.
        """
        self._report, self._clock, self._meter = report, clock, meter
        self._lines: list[dict[str, Any]] = []
        self._before: dict[str, Cost] = {}
        self._now: dict[str, Cost] = {}
        self._open: tuple[str, Cost] | None = None

    def report(self, progress: Progress) -> None:
        """Keep a line of progress and pass it on; a note is for people and is not kept."""
        if not progress.note:
            numbers = {name: float(value) for name, value in progress.metrics.items()}
            metrics = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            line = {"stage": progress.stage, "step": progress.step, "of": progress.of, "metrics": metrics}
            self._lines.append(line | {"at": round(self._clock(), 3)})
        self._report(progress)

    @contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Count what is done here as the cost of a stage."""
        self._open = stage, self._meter()
        try:
            yield
        finally:
            self._now = self._mine()
            self._open = None

    def costs(self) -> dict[str, Cost]:
        """Return what each stage has cost so far, over all attempts, the stage that is under way included."""
        mine = self._mine()
        return {name: _of(self._before, name).plus(_of(mine, name)) for name in {**self._before, **mine}}

    def state(self) -> dict[str, Any]:
        """Return all of it, as a checkpoint keeps it."""
        return {"lines": list(self._lines), "costs": {name: asdict(c) for name, c in self.costs().items()}}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Go back to what was said until a checkpoint; what this attempt has cost is added to what is kept there."""
        self._lines = list(state["lines"])
        self._before = {name: Cost(**cost) for name, cost in state["costs"].items()}

    def write(self, folder: Path) -> None:
        """Leave `metrics.jsonl`, a line of progress each, and `cost.json`, the stages' costs, in a folder.

        Raises:
            DiskError: there is no room.
        """
        lines = "".join(json.dumps(line) + "\n" for line in self._lines)
        costs = json.dumps({name: asdict(cost) for name, cost in self.costs().items()}, indent=1) + "\n"
        for name, text in ((METRICS, lines), (COST, costs)):
            with writing(folder / name, len(text)):
                (folder / name).write_text(text, encoding="utf-8")

    def _mine(self) -> dict[str, Cost]:
        """Return what each stage has cost in this attempt."""
        if self._open is None:
            return self._now
        stage, begun = self._open
        return {**self._now, stage: _of(self._now, stage).plus(self._meter().since(begun))}


def _of(costs: Mapping[str, Cost], stage: str) -> Cost:
    return costs.get(stage, Cost())
