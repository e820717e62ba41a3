"""The model card: what an entry is, what it was measured at and what it cost, as Markdown that model hubs read."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import yaml

from trainer import figures, measured
from trainer.diary import Cost
from trainer.limits import writing
from trainer.measured import Measured
from trainer.progress import unfinished
from trainer.registry import Entry

CARD = "card.md"
_MARKUP = re.compile(r"([\\`*_\[\]#|~$@]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What Markdown reads anything into, links that nobody marked as such included."""

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "win_rate_sft": "won against SFT, by gold",
        "win_rate_sft_position_bias": "verdicts against SFT that name the same place in both orders (always 0 by gold)",
        "win_rate_parent": "won against the parent, by gold",
        "win_rate_parent_position_bias": "the same against the parent",
        "gold_policy": "mean gold",
        "gold_parent": "mean gold, parent",
        "gold_sft": "mean gold, SFT",
        "kl": "KL from SFT, nats per answer",
        "reward_policy": "reward, deviations of SFT's",
        "reward_sft": "reward, SFT (0 on the answers that it was normalised on)",
        "reward_accuracy": "reward model's accuracy on held-out labels",
        "reward_calibration_error": "reward model's calibration error: mean gap between its confidence and agreement",
        "labels_prefer_longer": "labels that prefer the longer answer, of pairs of different length",
        "reward_prefers_longer": "the reward model's preference for the longer one",
        "reward_accuracy_longer": "reward model's accuracy where the longer was chosen",
        "reward_accuracy_shorter": "reward model's accuracy where the shorter was chosen",
        "reward_length_correlation": "correlation of reward and words",
        "length_words": "words per answer",
        "length_words_sft": "words per answer, SFT",
        "repetition": "share of word pairs that repeat in an answer",
        "distinct": "share of different answers",
        "distinct_1_policy": "different words of all words of all answers",
        "distinct_1_sft": "different words, SFT",
        "distinct_2_policy": "different word pairs of all of all answers",
        "distinct_2_sft": "different word pairs, SFT",
        "text_loss_policy": "loss on plain text, nats per token",
        "text_loss_sft": "loss on plain text, SFT",
        "comparisons": "comparisons in the snapshot",
        "repeated": "share of comparisons that are repeats",
        "truncated": "share of answers cut to the limit",
        "ppo_steps": "PPO: steps whose policy this is",
        "ppo_stopped_by_kl": "PPO: stopped early by the KL budget (1 yes, 0 no)",
        "ppo_kl": "PPO's last answers: KL from SFT, nats per answer",
        "ppo_kl_anchor": "PPO's last answers: KL from the anchor, nats per answer",
        "ppo_length": "PPO's last answers: tokens",
        "ppo_reward": "PPO's last answers: reward, deviations of SFT's",
        **{
            f"{method}_finished": f"{method.upper()}'s last answers: share that ends within the limit"
            for method in ("ppo", "grpo", "rloo")
        },
    }
)
"""Metrics in the order of card and report, and what they are; what a method adds of its own follows by its name."""

SOURCE = "source"
"""Setting that only an imported model has."""
LIMITS = """\
- Measured on the devnet's prompts, which a grammar makes: nothing here says what the model does on others.
- Gold is a lexicon that stands in for people; win rates by it say how well the method follows a known taste, and
  nothing of people's. No stage is trained on it.
- The judge of the win rates is asked in both orders; intervals are of the prompts drawn, not of another seed.
- The reward model's labels are noisy: its accuracy is bounded by how often labels agree with themselves.
- Calibration is of the reward model's own odds against labels, not against gold.
- Closed-set tasks, safety and honesty are no part of a run: the command tasks puts them to any entry.
"""


@dataclass(frozen=True, slots=True)
class Value:
    """A metric with its interval, if it is a share."""

    name: str
    """As in the entry."""
    says: str
    """For people."""
    text: str
    """The number, and its interval."""


def write(folder: Path, entry: Entry) -> None:
    """Leave `card.md` and its plots in the folder that is to be an entry.

    Raises:
        DiskError: there is no room.
    """
    found = measured.of(entry, folder)
    drawn = figures.figures([found])
    files = {CARD: card(found, list(drawn))} | {f"plots/{name}.svg": svg for name, svg in drawn.items()}
    (folder / "plots").mkdir()
    for name, text in files.items():
        with writing(folder / name, len(text)):
            (folder / name).write_text(text, encoding="utf-8")


def card(found: Measured, plots: Sequence[str]) -> str:
    """Return the card of an entry, with links to plots of these names."""
    return "\n".join(_sections(found, plots)) + "\n"


def values(metrics: Mapping[str, float]) -> list[Value]:
    """Return metrics for people: known ones first, each share once, with its interval."""
    ends = {f"{name}{end}" for name in metrics for end in ("_low", "_high", "_n") if f"{name}_low" in metrics}
    names = [*(name for name in METRICS if name in metrics), *sorted(set(metrics) - set(METRICS))]
    found = []
    for name in names:
        if name not in ends:
            text = f"{metrics[name]:.4g}"
            if f"{name}_low" in metrics:
                low, high, n = (metrics.get(f"{name}_{end}", 0.0) for end in ("low", "high", "n"))
                text = f"{metrics[name]:.3f} ({low:.3f} to {high:.3f}, n = {n:.0f})"
            found.append(Value(name, METRICS.get(name, name.replace("_", " ")), text))
    return found


def costs(found: Mapping[str, Cost]) -> list[tuple[str, ...]]:
    """Return rows of stage, CPU seconds, wall seconds, MiB and attempts, the sum last."""
    rows = [*found.items(), ("all", sum_of(found.values()))]
    return [
        (name, f"{c.cpu_s:.1f}", f"{c.wall_s:.1f}", f"{c.peak_memory_bytes / 2**20:.0f}", str(c.attempts))
        for name, c in rows
    ]


def sum_of(found: Iterable[Cost]) -> Cost:
    """Return what stages cost together; a run has as many attempts as its stage of most."""
    total, most = Cost(), 0
    for cost in found:
        total, most = total.plus(cost), max(most, cost.attempts)
    return Cost(total.cpu_s, total.wall_s, total.peak_memory_bytes, most)


def _sections(found: Measured, plots: Sequence[str]) -> Iterator[str]:
    entry = found.entry
    yield _front(entry)
    yield f"# {escape(entry.name)}\n"
    about = {
        "kind": entry.kind,
        "parent": parent(entry),
        "reference (SFT)": str(entry.config.get("reference", "itself")),
        "method": method(entry),
        "seed": str(entry.seed),
        "data, sha256": entry.data_sha256,
        "weights, sha256": entry.weights_sha256,
        "code, sha256": entry.code_version,
        "begun": f"{datetime.fromtimestamp(entry.created_at, UTC):%Y-%m-%d %H:%M:%S} UTC ({entry.created_at})",
    }
    yield _table(("", ""), about.items())
    yield "## What was measured\n"
    measured_rows = [(value.says, value.text) for value in values(entry.metrics)]
    yield (
        _table(("", "with 95 % interval"), measured_rows)
        if measured_rows
        else (
            "Nothing: it was made elsewhere.\n" if SOURCE in entry.config else "Losses only; see the plots.\n"
        )
    )
    if note := unfinished(entry.metrics.get(f"{entry.config.get('method')}_finished", 1.0)):
        yield f"**{note}.**\n"
    for name in plots:
        yield f"![{escape(name)}](plots/{name}.svg)"
    if found.costs:
        yield "\n## What it cost\n"
        yield _table(("stage", "CPU s", "wall s", "peak MiB", "attempts"), costs(found.costs))
        yield "Of all attempts; what a killed one did after its last checkpoint is not counted. "
        yield "Peaks are of the process.\n"
    if entry.metrics:
        yield "## Limits\n"
        yield LIMITS
    yield "## Settings\n"
    yield f"```json\n{json.dumps(dict(entry.config), indent=1, sort_keys=True)}\n```"


def parent(entry: Entry) -> str:
    """Return what an entry was made from, for people."""
    if SOURCE in entry.config:
        return f"none: imported from {entry.config[SOURCE]}"
    return entry.parent or "none: made from scratch"


def method(entry: Entry) -> str:
    """Return how an entry was made, for people."""
    made = (
        "imported, not trained here" if SOURCE in entry.config else "pretraining and supervised fine-tuning"
    )
    return str(entry.config.get("method", made))


def _front(entry: Entry) -> str:
    """Return the YAML that a hub reads."""
    about: dict[str, object] = {
        "model_name": entry.name,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["haptic", *(["rlhf", str(entry.config["method"])] if "method" in entry.config else ["sft"])],
    }
    if entry.parent:
        about |= {"base_model": entry.parent, "base_model_relation": "finetune"}
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([escape(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape(text: str) -> str:
    """Return a text that Markdown and the HTML in it show as it stands, on one line."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return _MARKUP.sub(r"\\\1", html.escape(line, quote=False))
