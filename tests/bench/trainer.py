"""Methods of making a policy from comparisons, on one toy.

`python -m tests.bench.trainer [--seeds 0 1 2] [--variants ppo …] [--set grpo.beta=0 …]`

For each seed a model is made from scratch, simulated judges compare its answers, and every method starts from the
same model, comparisons, reward model and prompts (`trainer.compare`). Win rates are by the gold reward, which nothing
was trained on, against the supervised model, on 640 prompts that nothing was trained on. CPU seconds are of one
thread. It ends with an error where a bar does not hold; bars of variants that were not asked for are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Final

from tests.bench.bars import hold
from trainer import compare, model, run, simulate
from trainer.config import Config, EvaluateConfig
from trainer.overrides import read_config
from trainer.preferences import write_snapshot
from trainer.progress import Progress, silent
from trainer.registry import Registry

VARIANTS: Final = (
    "ppo", "ppo-adaptive", "ppo-ptx", "ppo-pessimistic", "ppo-no-kl-guarded", "ppo-no-kl", "dpo", "raft", "grpo",
    "rloo", "best-of-4", "best-of-16",
)  # fmt: skip
COMPARISONS, PROMPTS, CPU_S = 800, 640, 90.0
Rows = dict[str, list[compare.Row]]
"""Rows of each variant, by seed."""


def _win(row: compare.Row) -> float:
    return row.metrics["win_rate_sft"]


def _hacked(rows: Rows) -> bool:
    """Tell whether PPO without KL pleased its reward model more than PPO did, and gold less than SFT, on each seed."""
    return all(
        free.metrics["reward_policy"] > held.metrics["reward_policy"]
        and free.metrics["gold_policy"] < free.metrics["gold_sft"]
        for free, held in zip(rows["ppo-no-kl"], rows["ppo"], strict=True)
    )


BARS: Final[dict[str, Callable[[Rows], bool]]] = {
    "grpo wins at least .70 on every seed": lambda r: min(map(_win, r["grpo"])) >= 0.70,
    "rloo wins at least .70 on every seed": lambda r: min(map(_win, r["rloo"])) >= 0.70,
    "ppo wins at least .70 on every seed": lambda r: min(map(_win, r["ppo"])) >= 0.70,
    "ppo wins at least .77 on the mean": lambda r: mean(map(_win, r["ppo"])) >= 0.77,
    "ppo-ptx wins at least .70 on every seed": lambda r: min(map(_win, r["ppo-ptx"])) >= 0.70,
    "ppo-ptx wins at least .77 on the mean": lambda r: mean(map(_win, r["ppo-ptx"])) >= 0.77,
    "ppo-ptx keeps the text loss within 2 % of SFT's": lambda r: all(
        x.metrics["text_loss_policy"] <= 1.02 * x.metrics["text_loss_sft"] for x in r["ppo-ptx"]
    ),
    "dpo wins at least .68 on every seed": lambda r: min(map(_win, r["dpo"])) >= 0.68,
    "best of 16 wins at least .72 on every seed": lambda r: min(map(_win, r["best-of-16"])) >= 0.72,
    "guarded, ppo without KL wins at least .60 on every seed": lambda r: (
        min(map(_win, r["ppo-no-kl-guarded"])) >= 0.60
    ),
    "unguarded, it hacks the reward on every seed": _hacked,
    f"no method takes more than {CPU_S:.0f} CPU seconds": lambda r: all(
        x.cpu_s <= CPU_S for rows in r.values() for x in rows
    ),
}


def rows_of(seed: int, folder: Path, variants: Sequence[str], config: Config) -> list[compare.Row]:
    """Make a model, let judges compare its answers, and train it by every method."""
    config = replace(config, evaluate=EvaluateConfig(prompts=PROMPTS))
    registry = Registry(folder / "models")
    run.bootstrap(run.Run(registry, "sft-0", seed, config, 0, silent))
    language = model.load(registry.path("sft-0") / "model")
    judged = simulate.comparisons([language], COMPARISONS, per_prompt=4, epoch=1, seed=seed)
    sha256 = write_snapshot(folder / "snapshot.jsonl", judged)

    def told(progress: Progress) -> None:
        if progress.stage == "compare":
            print(f"seed {seed}: {progress.step} of {progress.of} methods", flush=True)

    return compare.compare(
        registry, config, variants,
        parent="sft-0", snapshot=folder / "snapshot.jsonl", sha256=sha256, seed=seed,
        out=folder / "rows.jsonl", report=told,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings, such as grpo.beta=0"
    )
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    found: Rows = defaultdict(list)
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory(prefix="haptic-bench-") as folder:
            for row in rows_of(seed, Path(folder), asked.variants, read_config(None, asked.set)):
                found[row.variant].append(row)
    rows = [row for rows in found.values() for row in rows]
    print(compare.table(rows))
    for name, mine in found.items():
        wins = [_win(row) for row in mine]
        print(f"{name:<18} won {mean(wins):.3f} on the mean, {min(wins):.3f} at worst")
    held = {}
    for bar, holds in BARS.items():
        with suppress(KeyError):  # of a variant that was not asked for
            held[bar] = holds(dict(found))
    hold(held)


if __name__ == "__main__":
    main()
