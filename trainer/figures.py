"""The charts of one run or of several side by side: what changed by step, calibration, over-optimisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from trainer.measured import Measured
from trainer.plot import Series, chart

CURVES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("pretrain", "loss"): "Pretraining: loss, nats per token",
        ("sft", "loss"): "Fine-tuning: loss, nats per token",
        ("reward", "loss"): "Reward model: loss",
        ("reward", "accuracy"): "Reward model: accuracy in the batch",
        ("ppo", "reward"): "PPO: reward (deviations)",
        ("ppo", "kl"): "PPO: KL, nats per answer",
        ("ppo", "policy_loss"): "PPO: policy loss",
        ("ppo", "value_loss"): "PPO: value loss",
        ("ppo", "clipped"): "PPO: share clipped",
        ("ppo", "length"): "PPO: answer, tokens",
        ("dpo", "loss"): "DPO: loss",
        ("dpo", "margin"): "DPO: margin, nats",
        ("grpo", "reward"): "GRPO: reward (deviations)",
        ("rloo", "reward"): "RLOO: reward (deviations)",
        ("raft", "loss"): "RAFT: loss",
        ("raft", "reward_kept"): "RAFT: reward kept (deviations)",
    }
)
"""What is drawn by step, and its title; everything else is in `metrics.jsonl`."""


def figures(runs: Sequence[Measured]) -> dict[str, str]:
    """Return SVGs by the name of their file without ending; a chart that would be empty is left out."""
    drawn = {
        f"{stage}-{metric}": (
            title,
            "step",
            [s for n, run in enumerate(runs) for s in _steps(run, n, stage, metric)],
        )
        for (stage, metric), title in CURVES.items()
    }
    drawn["reward-by-kl"] = ("Reward by KL (deviations)", "KL, nats", _by_kl(runs, "reward"))
    drawn["gold-by-kl"] = ("Gold by KL", "KL, nats", _by_kl(runs, "gold"))
    found = {name: chart(*about) for name, about in drawn.items() if any(s.points for s in about[2])}
    bins = [s for n, run in enumerate(runs) for s in _calibration(run, n)]
    if bins:
        found["calibration"] = chart("Label agrees, by confidence", "confidence", bins, diagonal=True)
    return found


def _steps(run: Measured, slot: int, stage: str, metric: str) -> Iterator[Series]:
    """Yield a metric by step; a line of its own for each time that the steps begin anew, as members of a reward do."""
    points: list[tuple[float, float]] = []
    for line in run.lines:
        value = line["metrics"].get(metric)
        if line["stage"] == stage and value is not None:
            if points and line["step"] <= points[-1][0]:
                yield Series(run.entry.name, points, slot=slot)
                points = []
            points.append((float(line["step"]), float(value)))
    if points:
        yield Series(run.entry.name, points, slot=slot)


def _calibration(run: Measured, slot: int) -> Iterator[Series]:
    if run.reliability:
        points = [(float(row["predicted"]), float(row["agreed"])) for row in run.reliability]
        bars = [(float(row["agreed_low"]), float(row["agreed_high"])) for row in run.reliability]
        yield Series(run.entry.name, points, bars, slot)


def _by_kl(runs: Sequence[Measured], what: str) -> list[Series]:
    """Return what best of n reaches by its KL, and where the policy ended, each from the supervised model on.

    The policy's rollouts have a reward at every step; gold is measured at both ends only, as training never sees it.
    """
    found = []
    for n, run in enumerate(runs):
        name, metrics = run.entry.name, run.entry.metrics
        best = [(float(point["kl"]), float(point[what])) for point in run.curve]
        if best:
            found.append(Series(f"{name}: best of n of its reference", best, slot=n))
        steps = [line["metrics"] for line in run.lines if line["stage"] == "ppo"]
        pairs = [(step.get("kl"), step.get(what)) for step in steps]
        rollouts = [(float(x), float(y)) for x, y in pairs if x is not None and y is not None]
        if rollouts:
            found.append(Series(f"{name}: PPO's rollouts", rollouts, slot=n, dash=2))
        if {"kl", f"{what}_sft", f"{what}_policy"} <= set(metrics):
            ends = [(0.0, metrics[f"{what}_sft"]), (metrics["kl"], metrics[f"{what}_policy"])]
            found.append(Series(f"{name}: SFT and policy, as evaluated", ends, slot=n, dash=1))
    return found
