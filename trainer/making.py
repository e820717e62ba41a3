"""The commands that make an entry: bootstrap, import, retrain."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.flags import add_common, add_created, run_of

if TYPE_CHECKING:
    from trainer.flags import Commands

SNAPSHOT = """\
A snapshot is a file of JSON lines {"prompt", "chosen", "rejected", "confidence_ppm": 500000..1000000,
"judgements": 1.., "epoch": 0..}; its sha256 must be given, so that nobody trains on something else.
"""


def add(commands: Commands) -> None:
    """Add the commands to a parser."""
    _add_bootstrap(commands)
    _add_import(commands)
    _add_retrain(commands)


def _add_bootstrap(commands: Commands) -> None:
    words = "make text, a tokenizer, a pretrained base and a supervised model"
    command = commands.add_parser("bootstrap", help=words, description=words)
    command.set_defaults(command=bootstrap)
    command.add_argument("--name", required=True, help="entry to make, such as sft-0")
    add_common(command)
    add_created(command)


def _add_import(commands: Commands) -> None:
    words = "put a language model that was made elsewhere into the registry"
    command = commands.add_parser("import", help=words, description=words)
    command.set_defaults(command=take)
    command.add_argument("--name", required=True, help="entry to make, such as smollm2")
    command.add_argument(
        "--source", required=True,
        help="smollm2 (needs no network), a folder, a GGUF file, or a name on the Hugging Face hub",
    )  # fmt: skip
    add_common(command)
    add_created(command)


def _add_retrain(commands: Commands) -> None:
    words = "train a reward model on a snapshot, improve a policy by `method` (ppo, dpo, raft, grpo, rloo), evaluate it"
    command = commands.add_parser(
        "retrain",
        help=words,
        description=words,
        epilog=SNAPSHOT,
    )
    command.set_defaults(command=retrain)
    command.add_argument("--name", required=True, help="entry to make, such as policy-1")
    command.add_argument("--parent", required=True, help="entry that the policy starts from")
    command.add_argument(
        "--reference",
        help="sft entry that it must stay near (default: the one that the parent descends from)",
    )
    command.add_argument("--snapshot", required=True, type=Path, help="file of comparisons")
    command.add_argument("--sha256", required=True, help="hex hash of the snapshot's bytes")
    add_common(command)
    add_created(command)


def bootstrap(options: argparse.Namespace) -> dict[str, object]:
    """Make the devnet's first models."""
    from trainer import run

    entry = run.bootstrap(run_of(options, "model", "pretrain", "sft"))
    return {"entry": entry.name, "weights_sha256": entry.weights_sha256}


def take(options: argparse.Namespace) -> dict[str, object]:
    """Take a model that was made elsewhere."""
    from trainer import run

    entry = run.take(run_of(options, "imported"), options.source)
    return {"entry": entry.name, "weights_sha256": entry.weights_sha256, "source_sha256": entry.data_sha256}


def retrain(options: argparse.Namespace) -> dict[str, object]:
    """Improve a policy by a snapshot."""
    from trainer import run

    entry = run.retrain(
        run_of(options, "reward", "method", "evaluate"),
        parent=options.parent,
        reference=options.reference,
        snapshot=options.snapshot,
        sha256=options.sha256,
    )
    return {"entry": entry.name, "weights_sha256": entry.weights_sha256, "metrics": dict(entry.metrics)}
