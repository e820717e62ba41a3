"""The command that puts tasks to a model by lm-evaluation-harness: the devnet's, safety, honesty, or published ones."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import scores
from trainer.errors import TaskError
from trainer.flags import add_settings, config_of, positive
from trainer.limits import writing
from trainer.progress import to_stdout
from trainer.registry import Registry

if TYPE_CHECKING:
    from trainer.flags import Commands

EPILOG = """\
Our own tasks are town (which answer fits the devnet's prompt), safety and honesty; none needs a network. A task of
your own is a YAML file as lm-evaluation-harness reads it; it may name Python functions, so run no stranger's. What
lm_eval knows by name takes its data from the Hugging Face hub.
"""


def add(commands: Commands) -> None:
    """Add the command to a parser."""
    words = "put closed-set tasks, safety and honesty prompts to a model by lm-evaluation-harness"
    command = commands.add_parser("tasks", help=words, description=words, epilog=EPILOG)
    command.set_defaults(command=run, exit_with_parent=False)
    command.add_argument("--registry", required=True, type=Path, help="folder of the models")
    command.add_argument("--model", required=True, help="entry")
    command.add_argument(
        "--tasks", nargs="+", default=["town", "safety", "honesty"],
        help="folders of YAML files, or names (default: town safety honesty)",
    )  # fmt: skip
    command.add_argument(
        "--layout", choices=["chat", "plain"], default="chat",
        help="a task's text is a prompt in the model's own template (chat, the default), or a text's beginning (plain)",
    )  # fmt: skip
    command.add_argument("--limit", type=positive, help="the most items of each task (default: all)")
    command.add_argument("--seed", type=int, default=0, help="of what a task draws (default 0)")
    add_settings(command)
    command.add_argument("--out", type=Path, help="scores as JSON, for `report --tasks`")
    command.add_argument("--items", type=Path, help="JSON lines: each item, what came back, what it counted")


def run(options: argparse.Namespace) -> dict[str, object]:
    """Put the tasks to the model, print the table to stderr, and return what was reached."""
    if importlib.util.find_spec("lm_eval") is None:
        raise TaskError("lm-evaluation-harness is not installed: pip install -e '.[eval]' in the repository")
    from trainer import devices, harness, model
    from trainer.run import prepare

    registry = Registry(options.registry)
    entry = registry.get(options.model)
    prepare(config_of(options))
    if options.items:  # before the work, which may take hours
        options.items.parent.mkdir(parents=True, exist_ok=True)
    found, items = harness.measure(
        model.load(registry.path(entry.name) / "model"), options.tasks,
        layout=options.layout, limit=options.limit, seed=options.seed, report=to_stdout,
    )  # fmt: skip
    if options.out:
        scores.write(
            options.out,
            scores.Scores(
                entry.name, entry.weights_sha256, options.layout, harness.VERSION, found, devices.recorded()
            ),
        )
    if options.items:
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        with writing(options.items, len(text)):
            options.items.write_text(text, encoding="utf-8")
    sys.stderr.write(scores.table(found) + "\n")
    return {"model": entry.name, "tasks": len({score.task for score in found}), "out": str(options.out or "")}
