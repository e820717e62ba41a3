"""One table of methods on the same comparisons, the same reward model, the same prompts and seed.

Each row is written when it is done, so a comparison that was killed goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trainer import devices, model, reward, run, sampler
from trainer.checkpoint import Keep, Scratch
from trainer.config import Config, RewardConfig
from trainer.diary import cpu_s
from trainer.evaluate import Models, evaluate
from trainer.method import Given, Outcome
from trainer.overrides import best_of, variant
from trainer.preferences import Comparison, prompts_of, read_snapshot, split
from trainer.progress import Progress, Report
from trainer.registry import Registry, alone, code_version, file_sha256

COLUMNS = MappingProxyType(
    {
        "win_rate_sft": "won against SFT (95 %)",
        "gold_policy": "gold",
        "gold_sft": "gold of SFT",
        "reward_policy": "its reward model's score",
        "kl": "KL from SFT, nats",
        "text_loss_policy": "text loss",
        "text_loss_sft": "text loss of SFT",
        "repetition": "word pairs said again",
        "length_words": "words",
    }
)
"""Metrics that the table shows, and their headings."""


@dataclass(frozen=True, slots=True)
class Row:
    """One method's result."""

    variant: str
    """Its name."""
    seed: int
    """Of all randomness."""
    data_sha256: str
    """Of the snapshot."""
    settings: Mapping[str, Any]
    """The whole configuration that it ran under."""
    code_version: str
    """Of the trainer."""
    metrics: Mapping[str, float]
    """As `evaluate` gives them."""
    cpu_s: float
    """CPU seconds that the method took, without the reward model's training and the evaluation."""
    reward_cpu_s: float
    """CPU seconds that the reward model took; rows of one reward configuration share it."""


def compare(
    registry: Registry,
    config: Config,
    variants: Sequence[str],
    *,
    parent: str,
    snapshot: Path,
    sha256: str,
    seed: int,
    out: Path,
    report: Report,
) -> list[Row]:
    """Train the parent by each variant and measure it; what `out` holds already is taken from there.

    Args:
        registry: where the parent is; nothing is added to it.
        config: what the variants override.
        variants: of `overrides.VARIANTS`, or `best-of-N`.
        parent: entry of kind sft that all start from, and are measured against.
        snapshot: comparisons, as `preferences.read_snapshot` reads them.
        sha256: hex hash of the snapshot's bytes.
        seed: of all randomness.
        out: JSON lines, one row each.
        report: where progress goes.

    Raises:
        ConfigError: a variant is not known.
        SnapshotError: the snapshot is not what the hash says, or malformed.
        RegistryError: there is no such parent, or another process writes `out`.
    """
    config = replace(config, hardware=devices.resolved(config.hardware))  # a row says what it ran on
    configs = {name: variant(name, config) for name in variants}
    for settings in configs.values():
        run.prepare(settings, improving=True)
    comparisons = read_snapshot(snapshot, sha256)
    data = file_sha256(snapshot)
    sides = split(comparisons, held_out=config.reward.held_out, salt=config.reward.split_salt)
    prompts = prompts_of(sides.train)
    language = model.load(registry.path(parent) / "model")
    sampler.ready(language)
    texts = run.pretraining_texts(registry.get(parent))
    judges: dict[RewardConfig, tuple[model.Judge, float]] = {}
    with alone(out.parent, out.name, "--out"):
        rows, keep = _read(out), Scratch(out.with_name(f".scratch-{out.name}"))
        for number, (name, settings) in enumerate(configs.items(), start=1):
            of = (name, seed, data, json.dumps(asdict(settings), sort_keys=True), code_version())
            if of not in rows:
                if settings.reward not in judges:
                    judges[settings.reward] = _judge(
                        settings.reward, language, sides.train, prompts, seed, report
                    )
                judge, reward_cpu_s = judges[settings.reward]
                given = Given(language, language, judge, prompts, sides.train, texts)
                metrics, taken = _measured(name, settings, given, sides.held_out, seed, report, keep)
                row = Row(name, seed, data, asdict(settings), code_version(), metrics, taken, reward_cpu_s)
                rows[of] = row
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
            shown = {"win_rate_sft": rows[of].metrics["win_rate_sft"], "cpu_s": rows[of].cpu_s}
            report(Progress("compare", number, len(configs), shown))
    return list(rows.values())


def _measured(
    name: str,
    config: Config,
    given: Given,
    held_out: Sequence[Comparison],
    seed: int,
    report: Report,
    keep: Keep,
) -> tuple[dict[str, float], float]:
    """Train by one variant; return what was measured of the policy, and the CPU seconds that the method took."""
    language, began = given.reference, cpu_s()
    outcome = Outcome(language, {})
    if best_of(name) == 1:
        outcome = run.improve(config, given, seed + 2, report, keep)
    taken = cpu_s() - began
    models = Models(outcome.policy, language, language, given.reward, best_of(name))
    metrics = evaluate(config.evaluate, models, held_out, given.prompts, seed + 3, report).metrics
    return metrics | {f"method_{key}": value for key, value in outcome.metrics.items()}, taken


def _judge(
    config: RewardConfig,
    language: model.LanguageModel,
    learned: Sequence[Comparison],
    prompts: Sequence[str],
    seed: int,
    report: Report,
) -> tuple[model.Judge, float]:
    """Return a normalised reward model and the CPU seconds that it took."""
    began = cpu_s()
    judge = reward.judge(config, language, learned, seed, report)
    reward.normalise(judge, language, prompts, config.normalising_samples, seed + 1)
    return judge, cpu_s() - began


def _read(out: Path) -> dict[tuple[str, int, str, str, str], Row]:
    """Return the rows that are done, by what they are of; a last line that a kill cut short is taken away."""
    if not out.exists():
        return {}
    whole, newline, _cut = out.read_bytes().rpartition(b"\n")
    out.write_bytes(whole + newline)
    rows = [Row(**json.loads(line)) for line in whole.decode("utf-8").splitlines()]
    return {
        (r.variant, r.seed, r.data_sha256, json.dumps(r.settings, sort_keys=True), r.code_version): r
        for r in rows
    }


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, by variant and seed; shares with the intervals that they were given."""
    heads = ["method", "seed", *COLUMNS.values(), "CPU s"]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    order = list(dict.fromkeys(row.variant for row in rows))
    for row in sorted(rows, key=lambda r: (order.index(r.variant), r.seed)):
        numbers = [_shown(row.metrics, name) for name in COLUMNS]
        lines.append(" | ".join([row.variant, str(row.seed), *numbers, f"{row.cpu_s:.1f}"]))
    return "\n".join(f"| {line} |" for line in lines)


def _shown(metrics: Mapping[str, float], name: str) -> str:
    """Return a metric in three digits, with its interval where it has one."""
    if f"{name}_low" not in metrics:
        return f"{metrics[name]:.3f}"
    return f"{metrics[name]:.3f} ({metrics[f'{name}_low']:.3f} to {metrics[f'{name}_high']:.3f})"
