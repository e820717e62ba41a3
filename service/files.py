"""Files that appear whole or not at all, and survive a power cut: bundles, and what is learned from them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file, part by part, so that a crash leaves the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    with part.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    _rename(part, path)


def link(kept: Path, path: Path) -> None:
    """Give a file that is never changed a second name, taking that from the file that had it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        os.link(kept, part)
    except OSError:  # a file system without links
        shutil.copyfile(kept, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
    _rename(part, path)


def _part(path: Path) -> Path:
    """Return a name for what is not whole yet: nobody else's, for another replica may be writing the same."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def _rename(part: Path, path: Path) -> None:
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or a power cut takes the name back
    finally:
        os.close(folder)
