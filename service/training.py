"""Retraining as the service sees it: when a run is due, what it learns from, and which models answer next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path

from sqlmodel import Session as Db

from chain.served import parts_of
from service.arena import Answer
from service.database import alone
from service.epochs import Place
from service.errors import ConfigError, ConflictError
from service.files import write_file
from service.ledger import queries, work
from service.ledger.tables import JobRow, RunRow
from service.settings import Settings
from trainer.registry import Registry, file_sha256

JOBS = "jobs"
"""Under this name one transaction at a time asks for work: a run's number and its data file are made once."""
ANSWERS_PER_MODEL = 4
"""Samples that each model gives to each prompt."""


def registry(settings: Settings) -> Registry:
    """Return the registry of models."""
    return Registry(settings.folder("models"))


def contenders(found: Registry) -> list[str]:
    """Return the models of the next arena: the newest and the one it came from, oldest first."""
    entries = list(found.entries())
    if not entries:
        return []
    newest = max(entries, key=lambda e: (e.created_at, e.name))
    return [newest.parent, newest.name] if newest.parent else [newest.name]


def ask(db: Db, name: str, arguments: Sequence[str]) -> JobRow:
    """Return the job of this name, queued if it is new; the caller commits."""
    alone(db.connection(), JOBS)
    found = work.job(db, name)
    if found is None:
        found = JobRow(name=name, arguments=list(arguments))
        queries.add(db, found)
    return found


def requeue(db: Db, name: str) -> None:
    """Put a job that failed for good into the queue again, with all its attempts; the caller commits."""
    found = work.job(db, name, lock=True)
    if found is None or found.state != "failed":
        state = "there is none of that name" if found is None else f"it is {found.state}"
        raise ConflictError(f"job {name!r} cannot be tried again: {state}; /v1/jobs lists the jobs")
    found.state, found.attempts, found.error = "queued", 0, ""


def ask_bootstrap(db: Db, settings: Settings) -> JobRow:
    """Queue the making of the first model from scratch."""
    return ask(
        db,
        "bootstrap",
        ["bootstrap", "--registry", str(registry_path(settings)), "--name", "sft-0", *_config(settings)],
    )


def registry_path(settings: Settings) -> Path:
    """Return the folder of the registry, absolute, as the worker gets it."""
    return settings.folder("models").resolve()


def _config(settings: Settings) -> list[str]:
    return ["--config", str(settings.trainer_config.resolve())] if settings.trainer_config else []


def unlearned(db: Db, place: Place) -> tuple[range, int]:
    """Return the closed epochs that no run has learned from, and how many labelled comparisons they have."""
    runs = work.runs(db)
    fresh = range(runs[-1].last + 1 if runs else 0, queries.last_closed(db) + 1)
    return fresh, sum(_count(place.preferences_path(e)) for e in fresh)


def _count(path: Path) -> int:
    """Return how many lines a file has; it is read once, and again only where it was written anew."""
    known = path.stat()
    return _counted(path, known.st_ino, known.st_mtime_ns, known.st_size)


@lru_cache(maxsize=4096)
def _counted(path: Path, *_version: int) -> int:
    return sum(part.count(b"\n") for part in _parts([path]))


def _parts(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield files one after the other, a part at a time: together they may be larger than the memory."""
    for path in paths:
        with path.open("rb") as file:
            yield from parts_of(file)


def due(db: Db, place: Place, settings: Settings) -> range | None:
    """Return the closed epochs that no run has learned from, if their labelled comparisons are enough for a run."""
    fresh, came = unlearned(db, place)
    return fresh if came >= settings.retrain_after else None


def due_run(db: Db, place: Place, settings: Settings) -> RunRow | None:
    """Queue and return a run if enough labelled comparisons came in since the last; None otherwise.

    The data file is the preference lines of those epochs, one after the other; its sha256 goes into the next
    bundle, so that a stranger can make the same file.
    """
    alone(db.connection(), JOBS)
    fresh = due(db, place, settings)
    if fresh is None:
        return None
    parent = contenders(registry(settings))[-1:]
    if not parent:
        raise ConfigError("no model in the registry to retrain: make one with `haptic worker --bootstrap`")
    number = len(work.runs(db)) + 1
    # A run that learned from epochs which were reopened is made again, and its first try has its name already.
    tried = {j.name for j in work.jobs(db)}
    tag = next(t for t in _tags(number) if f"retrain/{t}" not in tried)
    path = settings.folder("snapshots").resolve() / f"run-{tag}.jsonl"
    write_file(path, _parts(map(place.preferences_path, fresh)))
    digest = file_sha256(path)
    model = f"policy-{tag}"
    arguments = [
        "retrain",
        "--registry",
        str(registry_path(settings)),
        "--parent",
        parent[0],
        "--name",
        model,
    ]
    arguments += ["--snapshot", str(path), "--sha256", digest, "--seed", str(number), *_config(settings)]
    job = ask(db, f"retrain/{tag}", arguments)
    run = RunRow(
        run=number, first=fresh[0], last=fresh[-1], snapshot="0x" + digest, model=model, job=job.id or 0
    )
    queries.add(db, run)
    return run


def _tags(number: int) -> Iterator[str]:
    yield str(number)
    for again in count(2):
        yield f"{number}-{again}"


def answer_files(settings: Settings, epoch: int, model: str) -> tuple[Path, Path]:
    """Return the paths of the prompts and of one model's answers for an epoch."""
    folder = settings.folder("arena").resolve()
    return folder / f"epoch-{epoch}.prompts.jsonl", folder / f"epoch-{epoch}.{model}.jsonl"


def ask_answers(
    db: Db, settings: Settings, epoch: int, prompts: Sequence[str], models: Sequence[str]
) -> list[JobRow]:
    """Queue one answering job per model for the prompts of an epoch and return the jobs."""
    jobs = []
    for model in models:
        asked, answers = answer_files(settings, epoch, model)
        if not asked.exists():
            write_file(asked, (json.dumps({"prompt": p}).encode() + b"\n" for p in prompts))
        arguments = [
            "answer",
            "--registry",
            str(registry_path(settings)),
            "--model",
            model,
            "--prompts",
            str(asked),
        ]
        arguments += ["--out", str(answers), "--samples", str(ANSWERS_PER_MODEL), "--seed", str(epoch)]
        jobs.append(ask(db, f"answer/{epoch}/{model}", arguments))
    return jobs


def read_answers(path: Path) -> list[Answer]:
    """Return the answers in a file of the trainer."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [Answer(r["prompt"], r["model"], r["text"]) for r in rows]
