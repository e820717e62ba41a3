"""The commands that show what was measured: card, report, tensorboard. They train nothing and need no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import measured, report, scores, tensorboard
from trainer.card import CARD
from trainer.errors import RegistryError
from trainer.limits import writing
from trainer.registry import Registry

if TYPE_CHECKING:
    from trainer.flags import Commands


def add(commands: Commands) -> None:
    """Add the commands to a parser."""
    words = "print the card of an entry: what it is, what it was measured at, what it cost"
    command = _command(commands, "card", words)
    command.set_defaults(command=_card)
    command.add_argument("--name", required=True, help="entry")
    words = "write one HTML page that compares entries: metrics, curves, calibration, cost"
    command = _command(commands, "report", words)
    command.set_defaults(command=_report)
    command.add_argument("--names", nargs="+", help="entries, in this order (default: all, oldest first)")
    command.add_argument("--tasks", nargs="+", type=Path, default=[], help="files that `tasks --out` wrote")
    command.add_argument("--out", required=True, type=Path, help="page to write")
    words = "write an entry's metrics as an event file for TensorBoard, which need not be installed"
    command = _command(commands, "tensorboard", words)
    command.set_defaults(command=_tensorboard)
    command.add_argument("--name", required=True, help="entry")
    command.add_argument(
        "--out", required=True, type=Path, help="folder that TensorBoard is given as --logdir"
    )


def _command(commands: Commands, name: str, words: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=words, description=words)
    command.add_argument("--registry", required=True, type=Path, help="folder of the models")
    command.set_defaults(exit_with_parent=False)
    return command


def _card(options: argparse.Namespace) -> None:
    registry = Registry(options.registry)
    file = registry.path(options.name) / CARD
    if not file.exists():
        raise RegistryError(f"{options.name} has no {CARD}: a trainer that wrote none yet made it")
    sys.stdout.write(file.read_text(encoding="utf-8"))


def _report(options: argparse.Namespace) -> dict[str, object]:
    registry = Registry(options.registry)
    names = options.names or [entry.name for entry in registry.entries()]
    if not names:
        raise RegistryError(f"{options.registry} has no entries to report of")
    tasks = [scores.read(file) for file in options.tasks]
    page = report.page([measured.read(registry, name) for name in names], tasks)
    with writing(options.out, len(page)):
        partial = options.out.with_name(f".{options.out.name}.partial")
        partial.write_text(page, encoding="utf-8")
        partial.replace(options.out)
    return {"out": str(options.out), "entries": names}


def _tensorboard(options: argparse.Namespace) -> dict[str, object]:
    found = measured.read(Registry(options.registry), options.name)
    if not found.lines:
        raise RegistryError(f"{options.name} has no metrics by step: a trainer that kept none yet made it")
    file = tensorboard.write(found.lines, found.entry.name, options.out)
    return {"out": str(file), "lines": len(found.lines)}
