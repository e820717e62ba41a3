"""The file beside a wallet in which a service's promises are kept: a line each, none twice, none spoiled by a torn one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chain.receipts import REFUSED
from service.answers import BrokenPromiseError


class PromiseFile:
    """Lines as `chain.receipts` reads them; only ever added to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def keep(self, promise: Mapping[str, Any], *, unless: str = "") -> None:
        """Keep a promise, once: a task that one comes back to is promised again. Not where `unless` stands there."""
        line = json.dumps(promise).encode() + b"\n"
        with self.path.open("ab+") as kept:
            kept.seek(0)
            there = kept.read()
            if b"\n" + line in b"\n" + there or (unless and unless.encode() in there):
                return
            # A line that was torn, by a crash or a full disk, must not take this one with it.
            torn = bool(there) and not there.endswith(b"\n")
            kept.write(b"\n" * torn + line)
            kept.flush()
            os.fsync(kept.fileno())

    def keep_refused(self, error: BrokenPromiseError, **beside: Any) -> None:
        """Keep an answer that was no promise of what was asked, as evidence, with what it should have been of."""
        self.keep({**beside, REFUSED: error.answer, "why": str(error)})
