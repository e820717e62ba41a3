"""What a published bundle holds for those who train models elsewhere: rows of plain values, read line by line.

preference  prompt, chosen, rejected: a row per labelled pair, the columns of TRL's preference type
unpaired    prompt, completion, label: a row per response that is good or bad beside its task's others (KTO)
rankings    what was signed, as it was signed: a row per accepted ranking, with its signature and its place
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations, groupby
from math import ceil
from sys import intern
from typing import IO, Any, Final, Literal, NamedTuple, TypeAlias, get_args

from chain.canonical import text_hash
from chain.errors import BundleError, HapticError
from chain.lines import MAX_LINE_BYTES, Line, raw_lines, read_line
from chain.messages import Domain, Ranking, parse_address
from chain.types import NOBODY, ONE
from service.errors import BadRequestError

Kind: TypeAlias = Literal["preference", "unpaired", "rankings"]
Row: TypeAlias = dict[str, Any]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
COLUMNS: Final[Mapping[Kind, Mapping[str, str]]] = {
    "preference": {
        "prompt": "string", "chosen": "string", "rejected": "string", "margin": "double",
        "confidence": "double", "n": "int64", "epoch": "int64", "task": "string",
    },
    "unpaired": {
        "prompt": "string", "completion": "string", "label": "bool", "epoch": "int64", "task": "string",
    },
    "rankings": {
        "wallet": "string", "epoch": "int64", "task": "string", "method": "string", "summary": "string",
        "shown": "list<string>", "ranks": "list<int64>", "likert": "list<int64>", "flag": "string",
        "commentHash": "string", "revision": "int64", "signedAt": "int64", "signature": "string",
        "position": "int64", "receivedAt": "int64", "block": "int64", "digest": "string",
    },
}  # fmt: skip
"""The columns of each kind in their order, and the type of each; they never change with what is in them."""


class _Numbered(NamedTuple):
    number: int
    line: Line


class _Pair(NamedTuple):
    """A pair of a task as its people and their reliability decided it."""

    task: str
    a: str
    b: str
    label: int
    confidence: int
    """Millionths."""
    log_odds: int
    """Millionths of a nat, positive where `a` is the better one."""


_NO_PAIR: Final = _Pair("", "", "", 0, 0, 0)


class _Labelled(NamedTuple):
    """A task whose pairs were judged."""

    epoch: int
    name: str
    prompt: str
    texts: Mapping[str, str]
    """By hash."""
    pairs: tuple[_Pair, ...]
    judged: Mapping[tuple[str, str], int]
    """How many people put one response of a pair before the other."""


def rows(kind: Kind, bundle: IO[bytes], confidence: float = 0.5) -> Iterator[Row]:
    """Yield an epoch's rows of a kind, in the order of its bundle; BundleError names the line that is wrong.

    Labels of less than this confidence (0.5 to 1) are as good as none; the raw log has no labels, so it is whole.
    What is right about a bundle besides its form is what `haptic verify` says.
    """
    if not 0.5 <= confidence <= 1:
        raise BadRequestError(f"confidence {confidence} is not from 0.5 (a coin) to 1 (certain)")
    # Upwards: what is a hair below what was asked for is below it.
    return _READERS[kind](bundle, ceil(round(confidence * ONE, 3)))


def preferences(bundle: IO[bytes], least: int) -> Iterator[Row]:
    """Yield a row per labelled pair: the better response as `chosen`, the other as `rejected`.

    `margin` is by how many nats of log-odds the better one leads, `confidence` the chance that this is right, `n`
    how many people ordered the pair. They are the rows that the retrainings learn from.
    """
    for task in _Judged(bundle).tasks():
        for pair in task.pairs:
            if not pair.label or pair.confidence < least:
                continue
            better, worse = (pair.a, pair.b) if pair.label > 0 else (pair.b, pair.a)
            yield {
                "prompt": task.prompt, "chosen": task.texts[better], "rejected": task.texts[worse],
                "margin": abs(pair.log_odds) / ONE, "confidence": pair.confidence / ONE,
                "n": task.judged.get((pair.a, pair.b), 0), "epoch": task.epoch, "task": task.name,
            }  # fmt: skip


def unpaired(bundle: IO[bytes], least: int) -> Iterator[Row]:
    """Yield a row per response that stands out in its task.

    True is one that is labelled better than more than half of the task's other responses, False one that is
    labelled worse than more than half of them, each of these labels with at least the confidence asked for. What
    stands in the middle, and what too little is known of, has no row.
    """
    for task in _Judged(bundle).tasks():
        points: dict[str, list[int]] = {name: [0, 0] for name in task.texts}
        for pair in task.pairs:
            if pair.label and pair.confidence >= least:
                points[pair.a][pair.label < 0] += 1
                points[pair.b][pair.label > 0] += 1
        others = len(task.texts) - 1
        for name, (won, lost) in points.items():
            if 2 * max(won, lost) > others:
                yield {
                    "prompt": task.prompt, "completion": task.texts[name], "label": won > lost,
                    "epoch": task.epoch, "task": task.name,
                }  # fmt: skip


def rankings(bundle: IO[bytes], _least: int) -> Iterator[Row]:
    """Yield every accepted ranking, each revision, in the order of the log; fields are named as they were signed.

    `digest` is what the signature is of (EIP-712). `block` is where a contract wallet's signature was checked, 0
    for one that any key made. Who let a session key sign for a wallet stands in the bundle's `session` lines.
    """
    domain = Domain(0, NOBODY)
    for number, line in _lines(bundle):
        with _blamed(number, line):
            if line["kind"] == "epoch":
                domain = Domain(_whole(line["chainId"]), parse_address(line["vault"], "vault"))
            if line["kind"] != "ranking":
                continue
            found = Ranking.parse(line["ranking"])
            row = found.to_json() | {
                "signature": str(line["signature"]), "position": _whole(line["position"]),
                "receivedAt": _whole(line["receivedAt"]), "block": _whole(line["block"]),
                "digest": found.digest(domain),
            }  # fmt: skip
        yield row


_READERS: Final[Mapping[Kind, Callable[[IO[bytes], int], Iterator[Row]]]] = {
    "preference": preferences, "unpaired": unpaired, "rankings": rankings,
}  # fmt: skip


def _lines(bundle: IO[bytes]) -> Iterator[_Numbered]:
    """Yield a bundle's lines with their numbers, of an epoch's line first."""
    line: Line = {}
    for number, raw in enumerate(raw_lines(bundle), start=1):
        line = read_line(number, raw)
        if number == 1 and line["kind"] != "epoch":
            line = {}
            break
        yield _Numbered(number, line)
    if not line:
        raise BundleError("a bundle begins with its epoch line; this file does not")


@contextmanager
def _blamed(number: int, line: Line) -> Iterator[None]:
    """Say which line it is whose fields are missing or of another type."""
    try:
        yield
    except (HapticError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BundleError(f"line {number} ({line['kind']}): {error}") from error


def _whole(value: object) -> int:
    if type(value) is not int:
        raise BundleError(f"{value!r} is not a whole number")
    return value


class _Votes:
    """How many people ordered each pair, by their last ranking of its task; texts are not needed for it."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, tuple[int, tuple[str, ...], tuple[int, ...]]]] = defaultdict(dict)
        self._same: dict[object, Any] = {}

    def add(self, line: Line) -> None:
        """Add a ranking as its bundle line."""
        said = line["ranking"]
        by, revision = self._last[intern(said["task"])], _whole(said["revision"])
        wallet = intern(said["wallet"])
        if wallet in by and by[wallet][0] >= revision:
            return
        placed = sorted(zip(map(intern, said["shown"]), said["ranks"], strict=True))
        # Millions of rankings give few different orders: each is kept once.
        kept = revision, tuple(h for h, _ in placed), tuple(r for _, r in placed)
        by[wallet] = self._same.setdefault(kept, kept)

    def of(self, task: str) -> Mapping[tuple[str, str], int]:
        """Return the people per pair of a task, which is forgotten by that; `a < b`."""
        found: dict[tuple[str, str], int] = defaultdict(int)
        for _, names, ranks in self._last.pop(task, {}).values():
            for (a, x), (b, y) in combinations(zip(names, ranks, strict=True), 2):
                found[a, b] += x != y
        return found


class _Judged:
    """A bundle from which the judged tasks are read, with the texts of one of them in memory at a time.

    Their lines come first in a bundle and their pairs last: it is noted where each lies, and read again there.
    """

    def __init__(self, bundle: IO[bytes]) -> None:
        self._bundle, self._epoch, self._votes = bundle, 0, _Votes()
        self._places: dict[str, int] = {}

    def tasks(self) -> Iterator[_Labelled]:
        """Yield the tasks with judged pairs, in order."""
        for name, group in groupby(self._pairs(), key=lambda pair: pair.task):
            prompt, texts = self._texts(name)
            pairs = tuple(group)
            for pair in pairs:
                if not {pair.a, pair.b} <= texts.keys():
                    raise BundleError(f"task {name} has no two responses {pair.a} and {pair.b}")
            yield _Labelled(self._epoch, name, prompt, texts, pairs, self._votes.of(name))

    def _pairs(self) -> Iterator[_Pair]:
        last, start = _NO_PAIR, 0
        for number, line in _lines(self._bundle):
            with _blamed(number, line):
                if line["kind"] == "pair":
                    pair = _pair(line)
                    if pair[:3] <= last[:3]:
                        raise BundleError("it repeats a pair, or is out of order")
                    last = pair
                    yield pair
                else:
                    self._note(line, start)
            start = self._bundle.tell()

    def _note(self, line: Line, start: int) -> None:
        if line["kind"] == "epoch":
            self._epoch = _whole(line["epoch"])
        elif line["kind"] == "task":
            self._places[str(line["task"])] = start
        elif line["kind"] == "ranking":
            self._votes.add(line)

    def _texts(self, task: str) -> tuple[str, dict[str, str]]:
        """Return a task's prompt and its responses by hash; the file is left where it was."""
        if task not in self._places:
            raise BundleError(f"a pair is of task {task}, which the bundle does not have")
        here = self._bundle.tell()
        self._bundle.seek(self._places[task])
        line = read_line(1, self._bundle.readline(MAX_LINE_BYTES + 1))
        self._bundle.seek(here)
        return str(line["prompt"]), {text_hash(text): text for text in line["responses"]}


def _pair(line: Line) -> _Pair:
    label, confidence, log_odds = _whole(line["label"]), _whole(line["confidence"]), int(line["logOdds"])
    return _Pair(str(line["task"]), str(line["a"]), str(line["b"]), label, confidence, log_odds)
