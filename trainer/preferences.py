"""Comparisons as the trainer gets them: a snapshot file, its hash checked, split by prompt."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainer.errors import SnapshotError

ONE_PPM = 1_000_000
"""A confidence of 1 in parts per million."""

HALF = re.compile("[\ud800-\udfff]")
"""Half of a character: JSON can say it, but no text has it and no tokenizer takes it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, the better one named by people."""

    prompt: str
    """What was asked."""
    chosen: str
    """The answer that was preferred."""
    rejected: str
    """The other answer."""
    confidence_ppm: int
    """Probability that the label is right, 500,000 (a coin) to 1,000,000 (certain)."""
    judgements: int
    """How many people judged the pair."""
    epoch: int
    """When the pair was judged."""

    @property
    def weight(self) -> float:
        """Weight in the reward model's loss, 2·confidence - 1: a coin's word counts nothing."""
        return 2 * self.confidence_ppm / ONE_PPM - 1

    @property
    def log_odds(self) -> float:
        """Nats that the label's confidence stands for, 0 of a coin; what is certain counts as a millionth short of it."""
        sure = min(self.confidence_ppm, ONE_PPM - 1)
        return math.log(sure / (ONE_PPM - sure))


@dataclass(frozen=True, slots=True)
class Split:
    """Comparisons to learn from and to measure on; no prompt is on both sides."""

    train: list[Comparison]
    """What the reward model sees."""
    held_out: list[Comparison]
    """What its accuracy is measured on."""


def read_snapshot(path: Path, sha256: str) -> list[Comparison]:
    """Read a snapshot of JSON lines whose bytes hash to `sha256` (hex).

    Raises:
        SnapshotError: the file is missing, its hash differs, or a line is malformed (named with its value).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"cannot read the snapshot {path}: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256.lower().removeprefix("0x"):
        raise SnapshotError(f"{path} has sha256 {found}, not {sha256}: fetch the snapshot again")
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise SnapshotError(f"{path} is not UTF-8 at byte {error.start}") from error
    if lines == [""]:
        raise SnapshotError(f"{path} holds no comparisons: wait until some are ranked")
    return [_parse(line, f"{path} line {number}") for number, line in enumerate(lines, start=1)]


def write_snapshot(path: Path, comparisons: Iterable[Comparison]) -> str:
    """Write comparisons as a snapshot that appears at once; return the hex sha256 of its bytes."""
    data = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in comparisons).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
    return hashlib.sha256(data).hexdigest()


def split(comparisons: Iterable[Comparison], *, held_out: float, salt: str) -> Split:
    """Split by prompt, by the prompt's own hash, so that a prompt stays on its side in every snapshot.

    Args:
        comparisons: at least two different prompts.
        held_out: expected share of prompts, in (0, 1), on the held-out side; at least one is on each side.
        salt: another salt gives another split.

    Raises:
        SnapshotError: there is only one prompt, so nothing could be measured; or all to learn from are a coin's.
    """
    rows = list(comparisons)
    order = sorted({row.prompt for row in rows}, key=lambda prompt: _draw(prompt, salt))
    if len(order) < 2:
        raise SnapshotError(f"{len(order)} different prompts cannot be split: at least 2 are needed")
    below = sum(_draw(prompt, salt) < held_out for prompt in order)
    kept = set(order[: min(max(below, 1), len(order) - 1)])
    sides = Split(
        train=[row for row in rows if row.prompt not in kept],
        held_out=[row for row in rows if row.prompt in kept],
    )
    if not any(row.weight for row in sides.train):
        raise SnapshotError(
            f"all {len(sides.train)} comparisons to learn from have confidence_ppm {ONE_PPM // 2}, a coin's: nothing "
            f"follows from them, so wait until people agree on some"
        )
    return sides


def repeated(comparisons: Sequence[Comparison]) -> float:
    """Return the share of comparisons that are the same as an earlier one in all fields.

    They are counted like any other, as two tasks may ask the same and be judged alike: each is a label of its own, and
    by its prompt it is on the same side of a split.
    """
    return (len(comparisons) - len(set(comparisons))) / max(len(comparisons), 1)


def prompts_of(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the different prompts in the order of their first appearance."""
    return list(dict.fromkeys(row.prompt for row in comparisons))


def _draw(prompt: str, salt: str) -> float:
    """Map a prompt to a number in [0, 1) that nobody can steer without changing the prompt."""
    digest = hashlib.sha256(f"{salt}\0{prompt}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


_TYPES: dict[str, type] = {
    "prompt": str,
    "chosen": str,
    "rejected": str,
    "confidence_ppm": int,
    "judgements": int,
    "epoch": int,
}
_LEAST = {"confidence_ppm": ONE_PPM // 2, "judgements": 1, "epoch": 0}
_MOST = {"confidence_ppm": ONE_PPM}


def _parse(line: str, where: str) -> Comparison:
    """Parse one line strictly: every field once, of its type and in its range."""
    try:
        record: Any = json.loads(line, object_pairs_hook=_once)
    except ValueError as error:
        raise SnapshotError(f"{where} is not JSON ({error}): {line[:80]!r}") from error
    names = {entry.name for entry in fields(Comparison)}
    if not isinstance(record, dict) or set(record) != names:
        raise SnapshotError(f"{where} must have exactly the fields {', '.join(sorted(names))}: {line[:80]!r}")
    for name, kind in _TYPES.items():
        _check(record[name], name, kind, where)
    if record["chosen"] == record["rejected"]:
        raise SnapshotError(f"{where} compares an answer with itself: {record['chosen'][:80]!r}")
    return Comparison(**record)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's fields; one that stands there twice would hide the other."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field stands there twice")
    return dict(pairs)


def _check(value: object, name: str, kind: type, where: str) -> None:
    """Check one value of one line."""
    if type(value) is not kind:
        raise SnapshotError(f"{where}: {name} must be of type {kind.__name__}, not {value!r}")
    if isinstance(value, str) and not value.strip():
        raise SnapshotError(f"{where}: {name} is empty: {value!r}")
    if isinstance(value, str) and (half := HALF.search(value)):
        raise SnapshotError(
            f"{where}: {name} is no text: it has half a character, {half[0]!r}, at {half.start()}"
        )
    if isinstance(value, int) and not _LEAST[name] <= value <= _MOST.get(name, value):
        limits = f"at least {_LEAST[name]}" + (f" and at most {_MOST[name]}" if name in _MOST else "")
        raise SnapshotError(f"{where}: {name} must be {limits}, not {value}")
