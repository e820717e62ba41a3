"""Retraining in rounds behind a gate: what people do not like better than what is published never takes its place.

A round: fresh comparisons between answers of the published policy, a candidate trained from it on those, and a meeting
of both on prompts that it did not learn from, by which the gate decides. The people are simulated, noisy as ever; gold
stands in the table and decides nothing. Each round's candidate is an entry of the registry, each decision a small file,
so that a command that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from trainer import corpus, model, simulate
from trainer.errors import ConfigError
from trainer.gate import Decision, decide, luck
from trainer.limits import writing
from trainer.preferences import write_snapshot
from trainer.progress import Progress
from trainer.registry import Registry, alone, code_version, sync
from trainer.run import Run, prepare, retrain

PER_PROMPT = 4
"""Comparisons on each prompt that a round learns from."""
ASKED = 320
"""Prompts that all rounds together ask; the grammar's others are left to measure on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the rounds are, beside the run that each of them makes."""

    parent: str
    """Entry that is published at the beginning."""
    rounds: int
    """How many candidates are made, one after the other."""
    learned: int
    """Comparisons that a candidate learns from, PER_PROMPT on a prompt."""
    judged: int
    """Comparisons with the incumbent that decide about it."""
    folder: Path
    """Where snapshots and decisions go."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one round."""

    round: int
    """From 1."""
    candidate: str
    """Entry that was trained."""
    incumbent: str
    """Entry that it was trained from, and met."""
    won: int
    """Comparisons in which the candidate's answer was judged better."""
    lost: int
    """Comparisons in which the incumbent's was."""
    decision: Decision
    """What the gate said."""
    published: str
    """Entry that is published after it."""
    causes: str
    """Hash of all that the decision follows from."""


def prompts_of_round(seed: int, number: int, learned: int) -> tuple[list[str], list[str]]:
    """Return the prompts that a round learns from and those on which its candidate meets the incumbent.

    Raises:
        ConfigError: too many comparisons are wanted for any prompt to be left.
    """
    asked, wanted = corpus.prompts(seed, ASKED), -(-learned // PER_PROMPT)
    if wanted >= ASKED:
        raise ConfigError(
            f"{learned} comparisons take {wanted} of the {ASKED} prompts, and none is left for the gate: use at most "
            f"{(ASKED - 1) * PER_PROMPT}"
        )
    random.Random(f"round {seed} {number}").shuffle(asked)  # noqa: S311 - text, not a secret
    return asked[:wanted], asked[wanted:]


def rounds(run: Run, plan: Plan) -> list[Verdict]:
    """Run all rounds, those that are decided already from their files.

    Args:
        run: what each round is given; its name is that of the candidates, to which the round's number is added.
        plan: what the rounds are.

    Raises:
        ConfigError: too many comparisons to learn from.
        RegistryError: an entry is missing, a candidate's name is taken by another run, or another process is at the same
            rounds.
    """
    prepare(run.config, improving=True)
    verdicts: list[Verdict] = []
    with alone(plan.folder, run.name, "--name or --out"):
        for number in range(1, plan.rounds + 1):
            published = verdicts[-1].published if verdicts else plan.parent
            verdicts.append(_round(run, plan, number, published))
            found = {"won": float(verdicts[-1].won), "lost": float(verdicts[-1].lost)}
            report = Progress(
                "rounds", number, plan.rounds, found, f"{run.name}-{number} {verdicts[-1].decision}"
            )
            run.report(report)
    return verdicts


def _round(run: Run, plan: Plan, number: int, published: str) -> Verdict:
    """Make one candidate and decide about it."""
    name, seed = f"{run.name}-{number}", run.seed * 1009 + 10 * number
    learning, meeting = prompts_of_round(run.seed, number, plan.learned)
    incumbent = model.load(run.registry.path(published) / "model")
    judged = simulate.comparisons(
        [incumbent], plan.learned, per_prompt=PER_PROMPT, epoch=number, seed=seed, prompts=learning
    )
    snapshot = plan.folder / f"{name}.snapshot.jsonl"
    sha256 = write_snapshot(snapshot, judged)
    entry = retrain(
        replace(run, name=name, seed=seed), parent=published, reference=None, snapshot=snapshot, sha256=sha256
    )
    causes = _hash(entry.weights_sha256, published, plan.judged, meeting, code_version(), torch.__version__)
    file = plan.folder / f"{name}.verdict.json"
    if file.exists() and (known := Verdict(**json.loads(file.read_text(encoding="utf-8")))).causes == causes:
        return known
    candidate = model.load(run.registry.path(name) / "model")
    won, lost = simulate.meet(candidate, incumbent, meeting, plan.judged, seed=seed + 5)
    decision = decide(won, lost, plan.judged)
    now = name if decision == "promoted" else published
    verdict = Verdict(number, name, published, won, lost, decision, now, causes)
    _write(file, verdict)
    return verdict


def _hash(*causes: object) -> str:
    return hashlib.sha256(json.dumps(causes).encode()).hexdigest()[:16]


def _write(path: Path, verdict: Verdict) -> None:
    """Write a decision; the file appears complete or not at all."""
    partial, text = path.with_name(f".{path.name}.partial"), json.dumps(asdict(verdict)) + "\n"
    with writing(partial, len(text)):
        partial.write_text(text, encoding="utf-8")
        sync(partial)
        partial.replace(path)


def table(verdicts: Sequence[Verdict], registry: Registry) -> str:
    """Return the rounds as a Markdown table; the last two columns are by gold, which decided nothing."""
    heads = "candidate | against | won | lost | a coin does | decision | published | gold: against SFT | against parent"
    lines = [heads, " | ".join("---" for _ in heads.split(" | "))]
    for v in verdicts:
        gold = registry.get(v.candidate).metrics
        shown = [f"{luck(v.won, v.lost):.4f}", v.decision, v.published]
        shown += [f"{gold['win_rate_sft']:.3f}", f"{gold['win_rate_parent']:.3f}"]
        lines.append(" | ".join([v.candidate, v.incumbent, str(v.won), str(v.lost), *shown]))
    return "\n".join(f"| {line} |" for line in lines)
