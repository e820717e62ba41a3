"""The trainer's commands, `python -m trainer bootstrap | import | retrain | …`, safe to kill at any time."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import making, showing, tasking
from trainer.config import Config
from trainer.errors import ConfigError, TrainerError
from trainer.flags import above_zero, add_common, add_created, add_settings, config_of, positive, run_of
from trainer.overrides import VARIANTS, best_of, described, read_config, variant
from trainer.progress import emit, launched, leave, rank, to_stdout
from trainer.registry import Registry

if TYPE_CHECKING:
    from trainer.flags import Commands

PARENT_DIED = 75
"""Exit status when stdin ended under --exit-with-parent (EX_TEMPFAIL: try again)."""

ALIKE_S = 10.0
"""Seconds for which all processes but the first keep an error: where that fails alike, the launcher ends them before."""

DESCRIPTION = """\
Trains Haptic's language models from people's comparisons.

  python -m trainer bootstrap --registry models --name sft-0
  python -m trainer import    --registry models --name smollm2 --source smollm2
  python -m trainer retrain   --registry models --parent sft-0 --name policy-1 \\
                              --snapshot snapshot.jsonl --sha256 "$(sha256sum < snapshot.jsonl | cut -c-64)"
  python -m trainer answer    --registry models --model policy-1 --prompts prompts.jsonl --out answers.jsonl \\
                              --samples 4 --seed 1
  python -m trainer simulate  --registry models --models sft-0 --out snapshot.jsonl    (simulated judges)
  python -m trainer rounds    --registry models --parent sft-0 --rounds 4 --out rounds    (the same, behind a gate)
  python -m trainer tasks     --registry models --model policy-1    (closed-set tasks, safety and honesty prompts)
  python -m trainer report    --registry models --out report.html    (a page that compares what there is)
  python -m trainer config    --set ppo.steps=10    (all settings with what they mean, as YAML for --config)

Stdout has one JSON object per line: {"stage", "step", "of", "metrics"} while it works, {"stage": "done", ...} at
the end; logs go to stderr. Results appear complete or not at all. Killed, the same command again goes
on where it was and ends in the same result; done, it returns that. Exit status: 0 done, 1 refused (the reason is on
stderr), 2 wrong usage, 75 the parent process died.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    if options.exit_with_parent:
        threading.Thread(target=_exit_at_eof, daemon=True).start()
    # Nothing here but an import, and tasks that others published, may reach for a network; and libraries' advice must
    # not mix with progress.
    if options.command not in {making.take, tasking.run}:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1")
    warnings.simplefilter("ignore")
    try:
        if launched() > 1 and options.command not in {making.bootstrap, making.retrain}:
            raise ConfigError(
                f"{launched()} processes were launched for a command that runs in one: call it without them"
            )
        done = options.command(options)
        if done is not None:
            emit({"stage": "done", **done})
    except TrainerError as error:
        who = f"process {rank()}: " if rank() else ""
        if who:
            time.sleep(ALIKE_S)
        sys.stderr.write(f"{who}{type(error).__name__}: {error}\n")
        return 1
    return 0


def _answer(options: argparse.Namespace) -> dict[str, object]:
    from trainer import answer, model, run

    prompts = answer.read_prompts(options.prompts)
    run.prepare(config_of(options))
    language = model.load(Registry(options.registry).path(options.model) / "model")
    texts = answer.answer(
        language, prompts, samples=options.samples, temperature=options.temperature, seed=options.seed
    )
    lines = answer.write_answers(options.out, options.model, prompts, texts)
    return {"entry": options.model, "out": str(options.out), "lines": lines}


def _compare(options: argparse.Namespace) -> dict[str, object]:
    from trainer import compare

    methods = {variant(name, Config()).method for name in options.variants if best_of(name) == 1}
    rows = compare.compare(
        Registry(options.registry), config_of(options, "reward", *sorted(methods), "evaluate"), options.variants,
        parent=options.parent, snapshot=options.snapshot, sha256=options.sha256,
        seed=options.seed, out=options.out, report=to_stdout,
    )  # fmt: skip
    sys.stderr.write(compare.table(rows) + "\n")
    return {"out": str(options.out), "rows": len(rows)}


def _rounds(options: argparse.Namespace) -> dict[str, object]:
    from trainer import rounds

    run = run_of(options, "reward", "method", "evaluate")
    plan = rounds.Plan(options.parent, options.rounds, options.count, options.judged, options.out)
    verdicts = rounds.rounds(run, plan)
    sys.stderr.write(rounds.table(verdicts, run.registry) + "\n")
    return {"published": verdicts[-1].published, "out": str(options.out)}


def _simulate(options: argparse.Namespace) -> dict[str, object]:
    from trainer import model, preferences, run, simulate

    run.prepare(config_of(options))
    models = [model.load(Registry(options.registry).path(name) / "model") for name in options.models]
    rows = simulate.comparisons(models, options.count, per_prompt=4, epoch=options.epoch, seed=options.seed)
    sha256 = preferences.write_snapshot(options.out, rows)
    return {"out": str(options.out), "sha256": sha256, "comparisons": len(rows)}


def _show(options: argparse.Namespace) -> None:
    sys.stdout.write(described(read_config(options.config, options.set)))


def _exit_at_eof() -> None:
    """Leave at once when stdin ends: whoever started this process is gone, and would start it again."""
    while os.read(0, 4096):
        pass
    os._exit(PARENT_DIED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    making.add(commands)
    _add_answer(commands)
    _add_compare(commands)
    _add_rounds(commands)
    _add_simulate(commands)
    _add_config(commands)
    showing.add(commands)
    tasking.add(commands)
    return parser


def _add_answer(commands: Commands) -> None:
    words = "answer prompts with a model of the registry"
    command = commands.add_parser("answer", help=words, description=words)
    command.set_defaults(command=_answer)
    command.add_argument("--model", required=True, help="entry that answers")
    command.add_argument("--prompts", required=True, type=Path, help='JSON lines {"prompt": text}')
    command.add_argument(
        "--out", required=True, type=Path, help='JSON lines {"prompt", "model", "text", "sample"}'
    )
    command.add_argument("--samples", type=positive, default=1, help="answers to each prompt (default 1)")
    command.add_argument("--temperature", type=above_zero, default=1.0, help="of the sampling (default 1)")
    add_common(command)


def _add_compare(commands: Commands) -> None:
    words = "train one model by several methods on the same comparisons, and print one table of them"
    command = commands.add_parser(
        "compare", help=words, description=words,
        epilog=f"{making.SNAPSHOT}\nVariants: {', '.join(VARIANTS)}, best-of-N.",
    )  # fmt: skip
    command.set_defaults(command=_compare)
    command.add_argument(
        "--parent", required=True, help="sft entry that all start from and are measured against"
    )
    command.add_argument("--snapshot", required=True, type=Path, help="file of comparisons")
    command.add_argument("--sha256", required=True, help="hex hash of the snapshot's bytes")
    command.add_argument(
        "--variants", nargs="+", default=["ppo", "ppo-ptx", "dpo", "raft", "best-of-16"],
        help="what to compare (default: ppo ppo-ptx dpo raft best-of-16)",
    )  # fmt: skip
    command.add_argument(
        "--out", required=True, type=Path, help="JSON lines, a row per method; rows that are there are kept"
    )
    add_common(command)


def _add_rounds(commands: Commands) -> None:
    words = "retrain again and again by simulated judges, behind a gate that rolls back what they do not like better"
    command = commands.add_parser("rounds", help=words, description=words)
    command.set_defaults(command=_rounds)
    command.add_argument("--parent", required=True, help="entry that is published at the beginning")
    command.add_argument(
        "--name", default="round", help="of the candidates: NAME-1, NAME-2, … (default round)"
    )
    command.add_argument("--rounds", type=positive, default=4, help="how many (default 4)")
    command.add_argument(
        "--count", type=positive, default=800, help="comparisons that each learns from (default 800)"
    )
    command.add_argument(
        "--judged", type=positive, default=800, help="comparisons by which the gate decides (default 800)"
    )
    command.add_argument("--out", required=True, type=Path, help="folder of the snapshots and decisions")
    add_common(command)
    add_created(command)


def _add_simulate(commands: Commands) -> None:
    words = "write a snapshot by simulated judges, to try the trainer without people"
    command = commands.add_parser("simulate", help=words, description=words)
    command.set_defaults(command=_simulate)
    command.add_argument("--models", required=True, nargs="+", help="entries whose answers are compared")
    command.add_argument("--count", type=positive, default=800, help="comparisons (default 800)")
    command.add_argument("--epoch", type=int, default=0, help="another epoch has other prompts (default 0)")
    command.add_argument("--out", required=True, type=Path, help="snapshot to write")
    add_common(command)


def _add_config(commands: Commands) -> None:
    words = "print all settings as YAML, what each is for above it"
    command = commands.add_parser("config", help=words, description=words)
    command.set_defaults(command=_show, exit_with_parent=False)
    add_settings(command)


if __name__ == "__main__":
    leave(main())
