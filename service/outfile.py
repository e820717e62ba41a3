"""A file that a command writes: it appears whole or not at all, and takes no other's place unasked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from service.errors import ConflictError


def check_absent(path: Path, *, force: bool) -> None:
    """Raise a ConflictError where something lies at `path`, unless it may be replaced."""
    if path.is_dir():
        raise ConflictError(f"{path} is a folder: name a file in it")
    if path.exists() and not force:
        raise ConflictError(f"{path} exists already: choose another name, or replace it with --force")


def write_whole(path: Path, parts: Iterable[bytes], *, force: bool = False) -> int:
    """Write a file part by part under another name, give it its own when it is complete, and return its size.

    Whatever goes wrong on the way leaves the file that was there before, or none.
    """
    check_absent(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        # mkstemp lets nobody else read; what is written here is meant to be passed on.
        Path(partial).chmod(0o666 & ~_umask())
        if force:
            Path(partial).replace(path)
        else:
            _name(Path(partial), path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return size


def _name(partial: Path, path: Path) -> None:
    """Give a complete file its name, unless somebody else took it meanwhile."""
    try:
        os.link(partial, path)
    except FileExistsError as error:
        raise ConflictError(f"{path} was made by somebody else meanwhile: choose another name") from error
    except OSError:  # a file system without hard links
        check_absent(path, force=False)
        partial.replace(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
