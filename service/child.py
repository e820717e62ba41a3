"""A command under way as the worker sees it, wherever it runs; here, as a child process that dies with its worker.

The child's standard input is a pipe that nobody writes to: when the worker dies, even by kill -9, the pipe closes and
the child ends, so that a job never runs twice at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol


class Run(Protocol):
    """A command that was started."""

    def lines(self) -> Iterator[str]:
        """Yield what it prints, errors among it, line by line, until it has ended or was let go."""

    def outcome(self) -> str | None:
        """Return nothing where it ended well, else what went wrong; None where it goes on without this worker."""

    def lose(self) -> None:
        """Let go of it, its job being another worker's by now; another thread says so."""

    def stop(self) -> bool:
        """End it, unless it was let go; tell whether it has ended for sure."""


class Child:
    """A child process, told to end with its parent."""

    def __init__(self, command: Sequence[str]) -> None:
        # Both of its streams come through one pipe: two writers to one log would cut each other's lines.
        self._process = subprocess.Popen(
            [*command, "--exit-with-parent"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace", env=_environment(os.environ),
        )  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Yield what it prints."""
        yield from self._process.stdout or ()

    def outcome(self) -> str:
        """Return what went wrong, nothing where all went well."""
        return cause(self._process.wait())

    def lose(self) -> None:
        """End it: another worker starts one of its own."""
        self._process.kill()

    def stop(self) -> bool:
        """End it and wait for that."""
        self._process.kill()
        with self._process:
            return True


def cause(status: int) -> str:
    """Return in words why a process failed, by its exit status, below 0 the signal; nothing where it did not."""
    if status == 0:
        return ""
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without this service's variables: training needs no key, password, database or cluster.

    Unbuffered, because what a child had printed when it was killed is what its operator will want to read.
    """
    hidden = ("HAPTIC_", "RAY_AUTH_TOKEN")
    return {k: v for k, v in environ.items() if not k.startswith(hidden)} | {"PYTHONUNBUFFERED": "1"}
