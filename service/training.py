"""Retraining as the service sees it: when a run is due, what it learns from, and which models answer next."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path

from sqlmodel import Session as Db

from chain.served import parts_of
from service.arena import Answer
from service.database import alone
from service.epochs import EPOCHS, Place
from service.errors import ConfigError, ConflictError
from service.files import write_file
from service.ledger import queries, results, work
from service.ledger.tables import JobRow, RunRow
from service.promotion import Candidate, Gate, Meeting, Standing, publish
from service.settings import Settings
from trainer.errors import RegistryError
from trainer.registry import Registry, file_sha256

JOBS = "jobs"
"""Under this name one transaction at a time asks for work: a run's number and its data file are made once."""
ANSWERS_PER_MODEL = 4
"""Samples that each model gives to each prompt."""


def registry(settings: Settings) -> Registry:
    """Return the registry of models."""
    return Registry(settings.folder("models"))


def standing(db: Db, settings: Settings) -> Standing | None:
    """Return which model is published and what people said of each retrained one; None where there is no model.

    The first is the newest that has no parent, then come the runs' in the order in which people were first asked about
    them: one that comes late, by a failed run that was tried again, takes nothing back. With the arena off nobody
    compares them here, and the newest is published.
    """
    entries = {e.name: e for e in registry(settings).entries()}
    if not entries:
        return None
    if not settings.arena:
        newest = list(entries.values())[-1]
        return Standing(newest.name, newest.parent, None, {})
    roots = [e.name for e in entries.values() if not e.parent]
    if not roots:
        raise ConfigError(
            f"{registry_path(settings)} has no model without a parent, which all others came from: put it back"
        )
    votes = {(m.epoch, m.winner, m.loser): m.count for m in results.matches(db)}
    asked = work.answered(db)

    def candidate(model: str, parent: str) -> Candidate:
        sides = (model, parent), (parent, model)
        met = (e for e in sorted(asked.get(model, ())) if any((e, *s) in votes for s in sides))
        return Candidate(
            model, parent, tuple(Meeting(e, *(votes.get((e, *s), 0) for s in sides)) for e in met)
        )

    # Beside a database that was begun anew, a model of that name may have learned from something else.
    learned = {(e.name, e.data_sha256) for e in entries.values()}
    runs = (r for r in work.runs(db) if (r.model, r.snapshot.removeprefix("0x")) in learned)
    made = (entries[r.model] for r in runs)
    by_turn = sorted(made, key=lambda e: min(asked.get(e.name, ()), default=math.inf))
    gate = Gate(settings.gate_comparisons, settings.gate_epochs)
    return publish(roots[-1], (candidate(e.name, e.parent or "") for e in by_turn), gate)


def contenders(db: Db, settings: Settings) -> list[str]:
    """Return the models of the next arena, oldest first; none where there is no model."""
    found = standing(db, settings)
    return found.contenders if found else []


def told(db: Db, settings: Settings) -> tuple[Standing | None, str]:
    """Return what `standing` does; where that cannot be told, None, and why in words."""
    try:
        return standing(db, settings), ""
    except (ConfigError, RegistryError) as error:
        return None, str(error)


def published(db: Db, settings: Settings) -> str | None:
    """Return which model is published; None where there is none, or where that cannot be told (`said` says why)."""
    found, _ = told(db, settings)
    return found.published if found else None


def said(db: Db, settings: Settings) -> str:
    """Return which model is published and who waits, in words; where that cannot be told, why."""
    found, why = told(db, settings)
    if why:
        return f"FAILED: {why}"
    return found.said + _silent(db, found) if found else "none yet"


def metrics(settings: Settings, model: str) -> tuple[Mapping[str, float], str]:
    """Return what was measured of a model, nothing before it is in the registry; and why its entry cannot be read."""
    try:
        found = registry(settings).find(model)
    except RegistryError as error:
        return {}, f"{error}, or put its entry back from a copy"
    return (found.metrics if found else {}), ""


def undecided(db: Db, settings: Settings) -> str:
    """Return in words what has to be decided, or trained, before a retraining may start; nothing where one may."""
    found = standing(db, settings)
    if found is None or not settings.arena:
        return ""
    if found.waits:
        return f"{found.waits} is {found.verdicts[found.waits].said}{_silent(db, found)}"
    runs = work.runs(db)
    jobs = work.jobs_by_number(db, [r.job for r in runs])
    going = (r for r in runs if r.job in jobs and jobs[r.job].state in {"queued", "running"})
    return next((f"run {r.run} is being trained{_silent(db, found)}" for r in going), "")


def _silent(db: Db, models: Standing) -> str:
    """Return in words which of those who meet gave no answers when they were last asked, and why; nothing if all did."""
    asked, said = work.answered(db), ""
    for model in models.contenders:
        last = work.job(db, f"answer/{max(asked[model])}/{model}") if model in asked else None
        if last is not None and last.state == "failed":
            said += f"; {model} gave NO ANSWERS when it was last asked ({last.name}: {last.error})"
    return said


def ask(db: Db, name: str, arguments: Sequence[str]) -> JobRow:
    """Return the job of this name, queued if it is new; the caller commits."""
    alone(db.connection(), JOBS)
    found = work.job(db, name)
    if found is None:
        found = JobRow(name=name, arguments=list(arguments))
        queries.add(db, found)
    return found


def requeue(db: Db, settings: Settings, name: str, left: Collection[str] = ()) -> str:
    """Put a job that failed for good into the queue again, with all its attempts; return how, in words.

    One that failed is given the trainer's present settings, if there are any: those it had may be what was wrong. Where
    they are others, a training drops what it had kept under the old ones and begins anew. One that a cluster may still
    have keeps its own, for it is followed as it was submitted. Jobs that are `left` to a cluster which is gone are
    forgotten there, whether they failed or not; one that did not goes on as it was. The caller commits.
    """
    found = work.job(db, name, lock=True)
    if found is None or (found.state != "failed" and name not in left):
        state = "there is none of that name" if found is None else f"it is {found.state}"
        raise ConflictError(f"job {name!r} cannot be tried again: {state}; /v1/jobs lists the jobs")
    if found.state == "failed" and found.arguments[:1] == ["answer"]:
        _check_awaited(db, name)
    if name in left:
        found.worker = ""
    said, submitted = "as it was", work.submission(found.worker)
    if submitted:
        said = f"{submitted} is followed as it was submitted, if the cluster still has it"
    elif found.state == "failed":
        rest = list(takewhile(lambda each: each != "--config", found.arguments))
        had = found.arguments[len(rest) :]
        found.arguments = [*rest, *(_config(settings) or had)]
        has = " ".join(found.arguments[len(rest) :])
        said = f"with {has or 'no --config'} (before: {' '.join(had) or 'none'})"
    found.state, found.attempts, found.error = "queued", 0, ""
    return said


def _check_awaited(db: Db, name: str) -> None:
    """Raise a ConflictError where nobody would read a model's answers any more: their epoch was opened."""
    epoch = int(name.split("/")[1])
    if queries.epoch_row(db, epoch):
        raise ConflictError(
            f"job {name!r} cannot be tried again: epoch {epoch} was opened without it, and no answers are added to "
            "its tasks; mend what is wrong, and the model is asked again for the next"
        )


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
    """Return the last of a job's arguments."""
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
    """Return the closed epochs that no run has learned from, if a run may start and they have enough comparisons."""
    if undecided(db, settings):
        return None
    fresh, came = unlearned(db, place)
    return fresh if came >= settings.retrain_after else None


def due_run(db: Db, place: Place, settings: Settings) -> RunRow | None:
    """Queue and return a run of the published model if enough labelled comparisons came in; None otherwise.

    The data file is the preference lines of those epochs, one after the other; its sha256 goes into the next
    bundle, so that a stranger can make the same file.
    """
    # Or two would make one run, and one that is taken back meanwhile would be learned from all the same.
    alone(db.connection(), EPOCHS)
    fresh = due(db, place, settings)
    if fresh is None:
        return None
    models = standing(db, settings)
    if models is None:
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
        models.published,
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
        arguments += ["--out", str(answers), "--samples", str(ANSWERS_PER_MODEL)]
        arguments += ["--seed", str(epoch), *_config(settings)]  # on what hardware
        jobs.append(ask(db, f"answer/{epoch}/{model}", arguments))
    return jobs


def read_answers(path: Path) -> list[Answer]:
    """Return the answers in a file of the trainer."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [Answer(r["prompt"], r["model"], r["text"]) for r in rows]
