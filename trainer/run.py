"""Whole runs: stages in their order, ending in one registry entry; the same run again returns the same entry."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainer import (
    by_trl,
    card,
    corpus,
    devices,
    dpo,
    grpo,
    imported,
    measured,
    model,
    overoptimisation,
    ppo,
    pretrain,
    processes,
    raft,
    reward,
    rloo,
    sampler,
    sft,
)
from trainer.checkpoint import NOTHING, Checkpoints, Keep
from trainer.config import Config
from trainer.evaluate import Models, evaluate
from trainer.method import Given, Outcome
from trainer.preferences import Comparison, prompts_of, read_snapshot, repeated, split
from trainer.progress import Report
from trainer.registry import WEIGHTS, Entry, Kind, Registry, code_version, file_sha256, same
from trainer.sequences import truncated


@dataclass(frozen=True, slots=True)
class Run:
    """What every run is given."""

    registry: Registry
    """Where models are found and left."""
    name: str
    """Of the entry to make."""
    seed: int
    """Of all randomness; each stage derives its own."""
    config: Config
    """Of all stages; an entry records those that took part."""
    created_at: int
    """Unix seconds to record."""
    report: Report
    """Where progress goes."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a run comes to, before it is an entry."""

    metrics: dict[str, float]
    """What was measured."""
    leave: Callable[[Path], None]
    """Writes the models into a folder."""


def bootstrap(run: Run) -> Entry:
    """Make the devnet's text, pretrain a model on it from scratch, fine-tune it on demonstrations.

    Raises:
        ConfigError: what is asked for is not here, or cannot be together.
    """
    sft.check(run.config.sft, run.config.hardware)
    prepare(run.config)
    texts = corpus.documents(run.seed, run.config.pretrain.documents)
    demonstrations = corpus.demonstrations(run.seed, run.config.sft.demonstrations)
    data = corpus.text_sha256(
        texts + [text for item in demonstrations for text in (item.prompt, item.answer)]
    )
    wanted = _wanted(run, "sft", None, data, _settings(run.config, "model", "pretrain", "sft"))

    def make(kept: Checkpoints) -> Made:
        config = run.config
        with kept.costing("pretrain") as keep:
            base = pretrain.train(config.pretrain, config.model, texts, run.seed, kept.report, keep)
        with kept.costing("sft") as keep, devices.aside(base.network):
            tuned = sft.train(config.sft, base, demonstrations, run.seed + 1, kept.report, keep)

        def leave(folder: Path) -> None:
            model.save(base, folder / "base")
            model.save(tuned, folder / "model")

        return Made({}, leave)

    return _made(run, wanted, make)


def take(run: Run, source: str) -> Entry:
    """Put a model that was made elsewhere into the registry, as one that was fine-tuned already.

    Args:
        run: what to make.
        source: `smollm2`, a folder, a GGUF file, or a name on a hub.

    Raises:
        SourceError: it cannot be had or used.
        RegistryError: the name is taken by another run.
    """
    prepare(run.config)
    found = imported.find(source)
    wanted = _wanted(run, "sft", None, found.sha256(), _settings(run.config, "imported") | {"source": source})

    def make(_kept: Checkpoints) -> Made:
        language = imported.read(found, run.config.imported)
        return Made({}, lambda folder: model.save(language, folder / "model"))

    return _made(run, wanted, make)


def retrain(run: Run, *, parent: str, reference: str | None, snapshot: Path, sha256: str) -> Entry:
    """Train a reward model on a snapshot and improve the parent with it, by PPO or what the configuration names.

    Args:
        run: what to make.
        parent: entry that the policy starts from.
        reference: entry of kind sft: trunk of the reward model, and where KL is measured from; the one that the
            parent descends from if None.
        snapshot: comparisons, as `preferences.read_snapshot` reads them.
        sha256: hex hash of the snapshot's bytes.

    Raises:
        SnapshotError: the snapshot is not what the hash says, or malformed.
        RegistryError: an entry is missing, the name is taken by another run, or parent and reference make other tokens.
    """
    prepare(run.config, improving=True)
    comparisons = read_snapshot(snapshot, sha256)
    reference = reference or _root(run.registry, parent)
    method = run.config.method
    settings = _settings(run.config, "reward", "method", method, "evaluate") | {"reference": reference}
    wanted = _wanted(run, "policy", parent, file_sha256(snapshot), settings)
    folders = {name: run.registry.path(name) / "model" for name in (parent, reference)}
    text = run.registry.get(reference)

    def make(kept: Checkpoints) -> Made:
        loaded = {name: model.load(path) for name, path in folders.items()}  # once, where both are the same
        model.check_alike(loaded[parent], loaded[text.name], f"{parent} and {text.name}")
        texts = pretraining_texts(text) if run.config.ppo.ptx_coefficient else []
        return _retrain(run, loaded[parent], loaded[text.name], comparisons, texts, kept)

    def ready() -> None:
        if devices.used().generation == "vllm":
            sampler.ready(model.load(folders[parent]))

    return _made(run, wanted, make, bases=(parent, reference), ready=ready)


def _retrain(
    run: Run,
    parent: model.LanguageModel,
    reference: model.LanguageModel,
    comparisons: list[Comparison],
    texts: list[str],
    kept: Checkpoints,
) -> Made:
    """Run the three stages."""
    config = run.config
    sides = split(comparisons, held_out=config.reward.held_out, salt=config.reward.split_salt)
    prompts = prompts_of(sides.train)
    with kept.costing("reward") as keep:
        with devices.aside(parent.network, reference.network):
            judge = reward.judge(config.reward, reference, sides.train, run.seed, kept.report, keep)
        reward.normalise(judge, reference, prompts, config.reward.normalising_samples, run.seed + 1)
    given = Given(parent, reference, judge, prompts, sides.train, texts)
    with kept.costing(config.method) as keep:
        outcome = improve(config, given, run.seed + 2, kept.report, keep)
    with kept.costing("evaluate"):
        models = Models(outcome.policy, parent, reference, judge)
        found = evaluate(config.evaluate, models, sides.held_out, prompts, run.seed + 3, kept.report)
        points = overoptimisation.curve(config.evaluate, reference, judge, found.prompts, run.seed + 4)

    def leave(folder: Path) -> None:
        model.save(outcome.policy, folder / "model")
        model.save_judge(judge, folder / "reward")
        measured.write(folder, found.reliability, [asdict(point) for point in points])

    answers = [text for row in comparisons for text in (row.chosen, row.rejected)]
    metrics = {
        "comparisons": float(len(comparisons)),
        "repeated": repeated(comparisons),
        "truncated": truncated(reference, answers),
        **{f"{config.method}_{name}": value for name, value in outcome.metrics.items()},
    }
    return Made(found.metrics | metrics, leave)


def improve(config: Config, given: Given, seed: int, report: Report, keep: Keep = NOTHING) -> Outcome:
    """Train a policy by the method that the configuration names."""
    match config.method:
        case "ppo":
            outcome = ppo.train(config.ppo, given, seed, report, keep)
        case "dpo":
            outcome = dpo.train(config.dpo, given, seed, report, keep)
        case "raft":
            outcome = raft.train(config.raft, given, seed, report, keep)
        case "grpo":
            outcome = grpo.train(config.grpo, given, seed, report, keep)
        case "rloo":
            outcome = rloo.train(config.rloo, given, seed, report, keep)
    return replace(outcome, policy=model.merged(outcome.policy))


def pretraining_texts(reference: Entry) -> list[str]:
    """Return the text that a model was pretrained on, made again from its seed; none of an imported one."""
    if "pretrain" not in reference.config:
        return []
    return corpus.documents(reference.seed, int(reference.config["pretrain"]["documents"]))


def prepare(config: Config, *, improving: bool = False) -> None:
    """Settle where and how is computed, and make PyTorch repeat itself: a fixed number of threads, one kernel for each.

    Raises:
        ConfigError: the hardware is not here, or, where a policy is to be improved, the method's trl is not or could not
            cut a rollout.
    """
    if improving:
        by_trl.check(config)
    torch.set_num_threads(config.threads)
    devices.use(config.hardware)
    # On a GPU some kernels have no deterministic twin.
    torch.use_deterministic_algorithms(mode=True, warn_only=devices.device().type == "cuda")


def _settings(config: Config, *stages: str) -> dict[str, Any]:
    """Return the settings of some stages as plain JSON, with the threads and the hardware that all share."""
    everything = asdict(config) | {"hardware": devices.recorded()}
    return {name: everything[name] for name in (*stages, "hardware", "threads")}


def _wanted(run: Run, kind: Kind, parent: str | None, data: str, settings: Mapping[str, Any]) -> Entry:
    """Return the entry that a run is to end in, still without weights and metrics."""
    return Entry(
        name=run.name,
        kind=kind,
        parent=parent,
        data_sha256=data,
        config=settings,
        seed=run.seed,
        metrics={},
        code_version=code_version(),
        weights_sha256="",
        created_at=run.created_at,
    )


def _made(
    run: Run,
    wanted: Entry,
    make: Callable[[Checkpoints], Made],
    bases: Sequence[str] = (),
    ready: Callable[[], None] = lambda: None,
) -> Entry:
    """Return the wanted entry: the one there is, or else what is made now, on from where a killed run was.

    `bases` are the entries that it is made from: one of the same name may be another by then. Of several processes
    the first alone writes; the others take part in what is made.
    """
    folder = run.registry.checkpoints(run.name)
    weights = [run.registry.get(name).weights_sha256 for name in bases]
    kept = partial(Checkpoints, folder, _identity(wanted, weights), run.config.checkpoint_s, run.report)
    if processes.place():
        heard = processes.hear()
        if heard is None:
            make(kept())
            heard = processes.hear()
        return same(heard, wanted)
    with run.registry.staging(run.name) as staged:
        found = processes.told(run.registry.find(run.name))
        if found is None:
            ready()  # what cannot run removes nobody's checkpoints
            checkpoints = kept()
            made = make(checkpoints)
            made.leave(staged)
            checkpoints.diary.write(staged)
            entry = replace(wanted, metrics=made.metrics, weights_sha256=file_sha256(staged / WEIGHTS))
            card.write(staged, entry)
            found = processes.told(run.registry.add(entry, staged))
        found = same(found, wanted)
        shutil.rmtree(folder, ignore_errors=True)
        return found


def _identity(wanted: Entry, weights: Sequence[str]) -> str:
    """Return a name for all that the trained weights follow from, PyTorch's version included.

    How they are measured is left out: who lowers that, for want of memory, keeps what was trained.
    """
    config = {name: value for name, value in wanted.config.items() if name != "evaluate"}
    causes = [asdict(replace(wanted, config=config, created_at=0)), weights, torch.__version__]
    return hashlib.sha256(json.dumps(causes, sort_keys=True).encode()).hexdigest()[:16]


def _root(registry: Registry, name: str) -> str:
    """Return the supervised model that an entry descends from."""
    entry = registry.get(name)
    while entry.kind != "sft":
        entry = registry.get(entry.parent or name)
    return entry.name
