"""Flags that several commands share, and the settings and the run that they stand for."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ConfigError
from trainer.overrides import read_config
from trainer.progress import to_stdout
from trainer.registry import Registry

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.run import Run

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names no public type


def add_settings(command: argparse.ArgumentParser) -> None:
    """Let a command take settings, as `--config` and `--set`."""
    command.add_argument("--config", type=Path, help="YAML or JSON file of overrides; `config` prints one")
    command.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SETTING=VALUE",
        help="overrides, such as ppo.steps=10 reward.members=3; they come after --config",
    )  # fmt: skip


def add_common(command: argparse.ArgumentParser) -> None:
    """Let a command be told where the models are, its seed, its settings, and to end with who started it."""
    command.add_argument("--registry", required=True, type=Path, help="folder of the models")
    command.add_argument("--seed", type=int, default=0, help="of all randomness (default 0)")
    add_settings(command)
    command.add_argument(
        "--exit-with-parent", action="store_true", help="exit with status 75 when stdin ends (give it a pipe)"
    )


def add_created(command: argparse.ArgumentParser) -> None:
    """Let a command be told when an entry's training began."""
    command.add_argument("--created-at", type=int, help="Unix seconds to record (default: now)")


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return number


def above_zero(text: str) -> float:
    """Return a finite number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def config_of(options: argparse.Namespace, *stages: str) -> Config:
    """Return the settings that a command was given.

    Args:
        options: of a command that takes settings.
        stages: sections that it reads beside what all read; `method` stands for the chosen method's too. A file may hold
            others, as commands share it; a flag may not.

    Raises:
        ConfigError: a setting or a value that cannot be, or a flag that would change nothing.
    """
    config = read_config(options.config, options.set)
    chosen = [config.method] if "method" in stages else []
    read = dict.fromkeys([*stages, *chosen, "hardware", "threads"])
    for setting in options.set:
        if re.split("[.=]", setting)[0] not in read:
            raise ConfigError(
                f"--set {setting} would change nothing: this command reads the settings of {', '.join(read)}"
            )
    return config


def run_of(options: argparse.Namespace, *stages: str) -> Run:
    """Return the run that a command was asked for, which keeps checkpoints of these stages."""
    from trainer.run import Run

    return Run(
        registry=Registry(options.registry),
        name=options.name,
        seed=options.seed,
        config=config_of(options, *stages, "checkpoint_s"),
        created_at=int(time.time()) if options.created_at is None else options.created_at,
        report=to_stdout,
    )
