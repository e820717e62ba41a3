"""The registry of models: a folder per entry, complete or absent, never changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from trainer.errors import RegistryError
from trainer.limits import writing

Kind = Literal["sft", "policy"]
"""What an entry holds: a supervised model, or one that PPO improved."""

RECORD = "entry.json"
WEIGHTS = Path("model") / "model.safetensors"
"""The weights that answer prompts, within an entry's folder."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CAUSES = ("kind", "parent", "data_sha256", "config", "seed")
"""What a result follows from; two entries that share these are the same entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model and everything its result follows from."""

    name: str
    """Name of its folder: letters, digits, dot, dash and underscore."""
    kind: Kind
    """What it is."""
    parent: str | None
    """Entry it started from."""
    data_sha256: str
    """Hex sha256 of the text or the snapshot it was trained on."""
    config: Mapping[str, Any]
    """Settings of its stages, and the names of other entries it needed."""
    seed: int
    """Seed of all randomness."""
    metrics: Mapping[str, float]
    """What was measured of it, by name."""
    code_version: str
    """Hex sha256 over the source of this package."""
    weights_sha256: str
    """Hex sha256 of its weights file."""
    created_at: int
    """Unix seconds (UTC) at which its training began."""


_ENTRY = TypeAdapter(Entry)
"""Checks what a record holds."""


class Registry:
    """Entries below one folder; several processes may read and write it."""

    def __init__(self, path: Path) -> None:
        self._root = path

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first; a RegistryError where a record is damaged, or a model's is missing."""
        if not self._root.is_dir():
            return []
        folders = [
            item
            for item in self._root.iterdir()
            # What is being built has no name of an entry, and one that lost its record may not just vanish.
            if _NAME.fullmatch(item.name) and ((item / RECORD).is_file() or (item / WEIGHTS.parent).is_dir())
        ]
        return sorted((_read(folder) for folder in folders), key=lambda entry: (entry.created_at, entry.name))

    def find(self, name: str) -> Entry | None:
        """Return an entry, or None where there is none."""
        folder = self._folder(name)
        return _read(folder) if folder.is_dir() else None

    def get(self, name: str) -> Entry:
        """Return an entry that must exist."""
        entry = self.find(name)
        if entry is None:
            known = ", ".join(item.name for item in self.entries()) or "none yet"
            raise RegistryError(f"{self._root} has no entry {name!r}; it has: {known}")
        return entry

    def path(self, name: str) -> Path:
        """Return the folder of an entry that must exist."""
        return self._root / self.get(name).name

    def checkpoints(self, name: str) -> Path:
        """Return the folder in which whoever builds `name` may keep what a next try goes on from."""
        return self._root / f".checkpoints-{self._folder(name).name}"

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """Lend an empty folder beside the entries, in which to build `name`; a second builder waits.

        What a crashed builder left is removed at the start, what this one leaves at the end.
        """
        self._folder(name)
        self._root.mkdir(parents=True, exist_ok=True)
        folder = self._root / f".staging-{name}"
        with FileLock(self._root / f".lock-{name}"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def add(self, entry: Entry, folder: Path) -> Entry:
        """Move a finished folder into place as `entry`, all at once; the same entry twice is no error.

        Args:
            entry: its `weights_sha256` must be that of the folder's weights.
            folder: on the registry's file system, as `staging` gives it.

        Raises:
            RegistryError: the weights differ from the record, or another entry has the name.
            DiskError: there is no room.
        """
        weights = file_sha256(folder / WEIGHTS)
        if weights != entry.weights_sha256:
            raise RegistryError(f"{entry.name}: weights have sha256 {weights}, not {entry.weights_sha256}")
        record = json.dumps(asdict(entry), indent=1, sort_keys=True) + "\n"
        with writing(folder / RECORD, len(record)):
            (folder / RECORD).write_text(record, encoding="utf-8")
            _flush(folder)
        with FileLock(self._root / ".lock"):
            existing = self.find(entry.name)
            if existing is not None:
                return same(existing, entry)
            folder.rename(self._folder(entry.name))
            sync(self._root)
        return entry

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise RegistryError(
                f"{name!r} is no name of an entry: use letters, digits, dot, dash, underscore"
            )
        return self._root / name


@contextmanager
def alone(folder: Path, name: str, flags: str) -> Iterator[None]:
    """Be the only process that works on what `name` stands for in a folder, which is made.

    Raises:
        RegistryError: another is at it; the message says which flags to change for both to work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".lock-{name}")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RegistryError(
            f"another process works on {name} in {folder}: wait until it ends, or choose another {flags}"
        ) from error
    try:
        yield
    finally:
        lock.release()


def same(existing: Entry, wanted: Entry) -> Entry:
    """Return the existing entry when it follows from the same causes as the wanted one.

    Raises:
        RegistryError: it does not; the message names what differs.
    """
    causes = [_differences(name, getattr(existing, name), getattr(wanted, name)) for name in _CAUSES]
    if differences := "; ".join(said for cause in causes for said in cause):
        raise RegistryError(f"{existing.name} exists with {differences}: choose another name")
    return existing


def _differences(name: str, old: object, new: object) -> list[str]:
    """Return what differs, setting by setting: a whole configuration is too long to be read."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            said
            for key in sorted({*old, *new})
            for said in _differences(f"{name}.{key}", old.get(key, "unknown"), new.get(key, "unknown"))
        ]
    return [] if old == new else [f"{name} {old!r}, not {new!r}"]


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_version() -> str:
    """Return the hex sha256 over the names and bytes of this package's source files, sorted by name."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Push a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(folder: Path) -> Entry:
    try:
        return _ENTRY.validate_json((folder / RECORD).read_bytes(), strict=True)
    except (OSError, ValueError) as error:
        why = repr(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RegistryError(
            f"{folder / RECORD} is damaged ({why}): remove {folder} and train again"
        ) from error


def _flush(folder: Path) -> None:
    """Push every file to the disk, so that a rename that survives a power cut has its content."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)
