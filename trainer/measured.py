"""What the folder of an entry says of its run: lines, costs, calibration, over-optimisation; read for card and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.diary import COST, METRICS, Cost
from trainer.errors import RegistryError
from trainer.limits import writing
from trainer.registry import Entry, Registry

EVALUATION = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Measured:
    """An entry and what its run left; all empty where an older trainer made it."""

    entry: Entry
    """The entry itself."""
    lines: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Progress lines, in their order: stage, step, of, metrics, at (Unix seconds)."""
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """What each stage cost."""
    reliability: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Bins of the reward model's calibration, as `reward_report.Bin`."""
    curve: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Best of n answers of the reference, as `overoptimisation.Point`."""


def write(folder: Path, reliability: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, Any]]) -> None:
    """Leave what is no single number in an entry's folder, as `evaluation.json`.

    Raises:
        DiskError: there is no room.
    """
    text = json.dumps({"reliability": reliability, "curve": curve}, indent=1) + "\n"
    with writing(folder / EVALUATION, len(text)):
        (folder / EVALUATION).write_text(text, encoding="utf-8")


def read(registry: Registry, name: str) -> Measured:
    """Return what an entry's folder says.

    Raises:
        RegistryError: there is no such entry, or a file of it is damaged.
    """
    return of(registry.get(name), registry.path(name))


def of(entry: Entry, folder: Path) -> Measured:
    """Return what a folder says of the entry that it is, or is to be."""
    try:
        lines = [json.loads(line) for line in _text(folder / METRICS).splitlines()]
        costs = {name: Cost(**cost) for name, cost in json.loads(_text(folder / COST) or "{}").items()}
        evaluation = json.loads(_text(folder / EVALUATION) or "{}")
        return Measured(entry, lines, costs, evaluation.get("reliability", []), evaluation.get("curve", []))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RegistryError(f"what {folder} says of its run is damaged: {error!r}") from error


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
