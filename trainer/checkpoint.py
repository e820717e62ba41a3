"""Checkpoints: what a killed run goes on from, to end in the very bits of a run that nobody killed.

A stage keeps all that its next step follows from: weights, optimizer, random states, position. Keeping reads and never
changes, so how often it is done has no influence on the result.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import nn
from torch.utils import _pytree as pytree

from trainer import processes
from trainer.diary import Diary
from trainer.errors import CheckpointError
from trainer.limits import within_memory, writing
from trainer.progress import Progress, Report
from trainer.registry import sync


class Stateful(Protocol):
    """A network, an optimizer: what gives its state and takes it back."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Go back to a state."""


Parts = Mapping[str, Stateful | torch.Generator]
"""What a stage changes, by name."""


class Keep:
    """Where a stage keeps its state; this one keeps nothing."""

    def part(self, _name: str, /) -> Keep:
        """Return where a part of the stage keeps its own."""
        return self

    def load(self, _parts: Parts, /, **values: Any) -> dict[str, Any]:
        """Put the parts back where they were last kept and return the values kept with them, or those given."""
        return values

    def due(self) -> bool:
        """Tell whether what is to be saved now would be kept before the last step."""
        return False

    def save(self, parts: Parts, step: int, of: int, **values: Any) -> None:
        """Keep the parts and values after a step, if the last time is long ago; after the last step always.

        The step is reported before, so that a run that goes on from here has told of all steps until here.
        """

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend an empty folder for files that nobody needs afterwards; here one of the system's."""
        with tempfile.TemporaryDirectory(prefix="haptic-") as folder:
            yield Path(folder)


NOTHING = Keep()
DIGEST = hashlib.sha256().digest_size
"""Bytes at a file's beginning that are the hash of the others."""


class Scratch(Keep):
    """Keeps nothing; files that nobody needs afterwards lie in a folder of its own, where the next try finds them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend the folder, empty; what a killed run left in it is removed."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        try:
            yield self._folder
        finally:
            shutil.rmtree(self._folder)


class Checkpoints:
    """The checkpoints of one run: a folder of its own, so that no other run takes them."""

    def __init__(
        self,
        folder: Path,
        run: str,
        every_s: float,
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Find what a run of this identity left; what others of its name left is removed, and said.

        Args:
            folder: of the entry's name, on the registry's file system.
            run: what the result follows from, as a name of a folder.
            every_s: least seconds between two checkpoints; at 0 there is one after each step.
            report: where is said what was gone on from, and what was removed.
            clock: seconds that only grow.
        """
        self.folder, self.diary = folder / run, Diary(report)
        self.report = self.diary.report
        self._every_s, self._clock = every_s, clock
        self._due = clock() + every_s
        for other in folder.iterdir() if folder.is_dir() and not processes.place() else ():
            if other != self.folder:
                shutil.rmtree(other)
                self.say("checkpoint", 0, 0, f"removed {other}: it was of other data, settings or code")

    @contextmanager
    def costing(self, stage: str) -> Iterator[Keep]:
        """Lend where a stage keeps its state; what it costs is counted, and where memory runs out, said what to lower."""
        with within_memory(stage), self.diary.measured(stage):
            yield self.stage(stage)

    def stage(self, name: str) -> Keep:
        """Return where a stage keeps its state."""
        return _Stage(self, name)

    def due(self) -> bool:
        """Tell whether the last checkpoint is long enough ago, by the first process's clock."""
        return processes.told(self._clock() >= self._due)

    def kept(self) -> None:
        """Count the time from now on."""
        self._due = self._clock() + self._every_s

    def say(self, stage: str, step: int, of: int, note: str) -> None:
        """Tell a person about a checkpoint."""
        self.report(Progress(stage, step, of, note=note))


class _Stage(Keep):
    """Two files: the last checkpoint and the one before. Each is the sha256 of what follows, then that."""

    def __init__(self, run: Checkpoints, name: str) -> None:
        self._run, self._name = run, name
        self._files = run.folder / f"{name}.pt", run.folder / f"{name}.before.pt"

    def part(self, name: str, /) -> Keep:
        return _Stage(self._run, f"{self._name}-{name}")

    def load(self, parts: Parts, /, **values: Any) -> dict[str, Any]:
        file, state = (None, None) if processes.place() else self._last()
        file = processes.told(file)
        if file is None:
            return values
        state = self._read(file) if state is None else state
        if state is None:
            raise CheckpointError(
                f"{file} cannot be read by all processes: the registry must be one folder to them"
            )
        self._restore(file, state, parts)
        self._run.diary.go_on(state["diary"])
        step, of = state["step"], state["of"]
        self._run.say(self._name, step, of, f"resumed at step {step} of stage {self._name}")
        return {"step": step, **state["values"]}

    def due(self) -> bool:
        return self._run.due()

    def save(self, parts: Parts, step: int, of: int, **values: Any) -> None:
        if step < of and not self._run.due():
            return
        state = {"step": step, "of": of, "values": values, "chance": torch.get_rng_state()}
        state["parts"] = {name: processes.whole(_state(part)) for name, part in parts.items()}
        if processes.place():
            return
        state["diary"] = self._run.diary.state()
        last, before = self._files
        partial = last.with_suffix(".partial")
        with writing(last, _size(state)):
            self._run.folder.mkdir(parents=True, exist_ok=True)
            try:
                _write(partial, state)
                sync(partial)
            except OSError:
                partial.unlink(missing_ok=True)  # the room that is told is what there is without it
                raise
            if last.exists():
                last.replace(before)
            partial.replace(last)
            sync(self._run.folder)
        self._run.kept()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with Scratch(self._run.folder / f"{self._name}.scratch").scratch() as folder:
            yield folder

    def _last(self) -> tuple[Path | None, dict[str, Any] | None]:
        """Return the last file that can be read, and what it keeps."""
        for file in self._files:
            state = self._read(file)
            if state is not None:
                return file, state
        return None, None

    def _read(self, file: Path) -> dict[str, Any] | None:
        """Return what a file keeps; None where it is not there or is damaged, of which is told."""
        if not file.exists():
            return None
        with file.open("rb") as content:
            wanted = content.read(DIGEST)
            if hashlib.file_digest(content, "sha256").digest() != wanted:
                file.unlink()
                self._run.say(
                    self._name, 0, 0, f"{file} is damaged and removed: training goes on from earlier"
                )
                return None
            content.seek(DIGEST)
            try:
                found: dict[str, Any] = torch.load(content, weights_only=True, map_location="cpu")
            except (RuntimeError, pickle.UnpicklingError) as error:
                raise CheckpointError(
                    f"{file} is no checkpoint ({error}): delete it and start again"
                ) from error
        return found

    @staticmethod
    def _restore(file: Path, state: Mapping[str, Any], parts: Parts) -> None:
        try:
            for name, part in parts.items():
                _put_back(part, state["parts"][name])
            torch.set_rng_state(state["chance"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise CheckpointError(
                f"{file} is of another model ({cause}): delete it and start again"
            ) from error


class _Hashed:
    """A file that is written from its beginning to its end, hashed on the way, so that nobody holds all of it.

    After an error nothing is written: PyTorch would hide it behind one of its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write bytes, and return how many."""
        self.digest.update(data)
        try:
            if self.error is None:
                self._file.write(data)
        except OSError as error:
            self.error = error
        return len(data)

    def flush(self) -> None:
        """Leave it to the file when it is closed."""


def _write(path: Path, state: Mapping[str, Any]) -> None:
    """Write the hash of a state, then the state, a tensor at a time."""
    with path.open("wb") as file:
        file.seek(DIGEST)
        content = _Hashed(file)
        torch.save(state, content)  # type: ignore[arg-type]  # no more is asked of a file than this one can
        if content.error:
            raise content.error
        file.seek(0)
        file.write(content.digest.digest())


def _size(state: Any) -> int:
    """Return the bytes of a state's tensors: what else there is in a file of it is little."""
    return sum(leaf.nbytes for leaf in pytree.tree_leaves(state) if isinstance(leaf, torch.Tensor))


def _state(part: Stateful | torch.Generator) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _put_back(part: Stateful | torch.Generator, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, nn.Module | torch.optim.Optimizer):
        processes.put_back(part, state)
    else:
        part.load_state_dict(state)
