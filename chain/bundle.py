"""An epoch's bundle: canonical lines (RFC 8785) from which a stranger recomputes all scores and payouts.

The first kinds are evidence (what people signed and what the operator committed to); the rest follows from
them and from the chain, and is written down so that a difference can be named row by row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chain.canonical import canonical
from chain.errors import BundleError, HapticError
from chain.feedback import Task
from chain.messages import Ranking, Session, parse_address, parse_hash
from chain.rules import Rules
from chain.types import Address, Epoch, Hash32, Ratio

KINDS = ("epoch", "task", "gold", "session", "ranking", "run", "pair", "wallet", "pool", "share", "leaf")
"""Line kinds in the order in which they stand in the file."""
ZERO_HASH = Hash32("0x" + 64 * "0")


@dataclass(frozen=True, slots=True)
class Gold:
    """The known answer to a task: dense ranks in the order of the task's response hashes, and its salt."""

    task: Hash32
    ranks: tuple[int, ...]
    salt: Hash32


@dataclass(frozen=True, slots=True)
class SignedSession:
    """A session with the wallet's signature."""

    session: Session
    signature: str


@dataclass(frozen=True, slots=True)
class SignedRanking:
    """A ranking as it was accepted: signature, place in the epoch's log, block time of arrival."""

    ranking: Ranking
    signature: str
    position: int
    received_at: int


@dataclass(frozen=True, slots=True)
class Run:
    """A retraining: the epochs whose feedback it learns from, and the sha256 of that snapshot file."""

    run: int
    """From 1; run 0 stands for revenue without a run."""
    first: Epoch
    last: Epoch
    snapshot: Hash32


@dataclass(frozen=True, slots=True)
class Header:
    """What an epoch is: where, when, under which rules and secrets."""

    epoch: Epoch
    chain_id: int
    vault: Address
    distributor: Address
    genesis: int
    length: int
    snapshot_block: int
    snapshot_hash: Hash32
    seed: Hash32
    """Revealed here; its keccak was published before the first task."""
    gold_root: Hash32
    """Merkle root of the salted gold answers, published before the first task."""
    lam: Ratio
    rules: Rules
    previous: Hash32
    """dataHash of the epoch before; zero for epoch 0."""

    @property
    def start(self) -> int:
        """First second of the epoch, Unix."""
        return self.genesis + self.epoch * self.length

    @property
    def end(self) -> int:
        """First second after the epoch, Unix."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Evidence:
    """The lines of a bundle that do not follow from anything else."""

    header: Header
    tasks: Mapping[Hash32, Task]
    gold: Mapping[Hash32, Gold]
    sessions: tuple[SignedSession, ...]
    rankings: tuple[SignedRanking, ...]
    runs: tuple[Run, ...]
    """Retrainings declared since the bundle before."""


Line = dict[str, Any]


def _header_line(h: Header) -> Line:
    return {
        "kind": "epoch", "epoch": h.epoch, "chainId": h.chain_id, "vault": h.vault,
        "distributor": h.distributor, "genesis": h.genesis, "length": h.length,
        "snapshotBlock": h.snapshot_block, "snapshotHash": h.snapshot_hash,
        "seed": h.seed, "goldRoot": h.gold_root, "lambda": [str(h.lam.num), str(h.lam.den)],
        "rules": h.rules.to_json(), "rulesHash": h.rules.hash(), "previous": h.previous,
    }  # fmt: skip


def _task_line(name: Hash32, t: Task) -> Line:
    texts, methods = list(t.responses), list(t.methods)
    return {"kind": "task", "task": name, "prompt": t.prompt, "responses": texts, "methods": methods}


def _gold_line(g: Gold) -> Line:
    return {"kind": "gold", "task": g.task, "ranks": list(g.ranks), "salt": g.salt}


def _ranking_line(r: SignedRanking) -> Line:
    signed = {"ranking": r.ranking.to_json(), "signature": r.signature}
    return {"kind": "ranking", **signed, "position": r.position, "receivedAt": r.received_at}


def _run_line(r: Run) -> Line:
    return {"kind": "run", "run": str(r.run), "first": r.first, "last": r.last, "snapshot": r.snapshot}


def evidence_lines(e: Evidence) -> list[Line]:
    """Return the evidence as lines in their canonical order."""
    sessions = sorted(e.sessions, key=lambda s: (s.session.wallet, s.session.key, s.signature))
    return [
        _header_line(e.header),
        *(_task_line(h, e.tasks[h]) for h in sorted(e.tasks)),
        *(_gold_line(e.gold[h]) for h in sorted(e.gold)),
        *({"kind": "session", "session": s.session.to_json(), "signature": s.signature} for s in sessions),
        *(_ranking_line(r) for r in sorted(e.rankings, key=lambda r: r.position)),
        *(_run_line(r) for r in sorted(e.runs, key=lambda r: r.run)),
    ]


def to_bytes(lines: Iterable[Line]) -> bytes:
    """Return the bundle's bytes: one canonical JSON object a line, each line ended by a newline."""
    return b"".join(canonical(line) + b"\n" for line in lines)


def _exact(line: Line, *names: str) -> list[Any]:
    if set(line) != {"kind", *names}:
        raise BundleError(
            f"a {line['kind']} line has the fields {sorted(line)}, expected {sorted(names)} and kind"
        )
    return [line[n] for n in names]


def _int(value: object, name: str) -> int:
    if type(value) is not int or value < 0:
        raise BundleError(f"{name} is {value!r}, expected a whole number from 0")
    return value


def _decimal(value: object, name: str) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0|[1-9][0-9]{0,4000}", value):
        raise BundleError(f"{name} is {value!r}, expected a whole number from 0 as decimal text")
    return int(value)


def _ratio(value: object, name: str) -> Ratio:
    if not isinstance(value, list) or len(value) != 2:
        raise BundleError(f"{name} is {value!r}, expected numerator and denominator")
    ratio = Ratio(_decimal(value[0], name), _decimal(value[1], name))
    if ratio.den == 0:
        raise BundleError(f"{name} has the denominator 0")
    return ratio


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BundleError(f"{name} is {value!r}, expected a text")
    return value


def _header(line: Line) -> Header:
    numbers = ("epoch", "chainId", "genesis", "length", "snapshotBlock")
    hashes = ("snapshotHash", "seed", "goldRoot", "previous")
    _exact(line, *numbers, *hashes, "vault", "distributor", "lambda", "rules", "rulesHash")
    rules = Rules.from_json(line["rules"])
    if rules.hash() != line["rulesHash"]:
        raise BundleError(f"rulesHash is {line['rulesHash']}, but the rules beside it hash to {rules.hash()}")
    epoch, chain_id, genesis, length, block = (_int(line[n], n) for n in numbers)
    block_hash, seed, root, previous = (parse_hash(line[n], n) for n in hashes)
    return Header(
        epoch=Epoch(epoch), chain_id=chain_id, genesis=genesis, length=length,
        vault=parse_address(line["vault"], "vault"),
        distributor=parse_address(line["distributor"], "distributor"),
        snapshot_block=block, snapshot_hash=block_hash, seed=seed, gold_root=root,
        lam=_ratio(line["lambda"], "lambda"), rules=rules, previous=previous,
    )  # fmt: skip


def _task(line: Line) -> tuple[Hash32, Task]:
    name, prompt, responses, methods = _exact(line, "task", "prompt", "responses", "methods")
    task = Task.of(_text(prompt, "prompt"), (_text(r, "response") for r in responses), methods)
    if task.hash() != name:
        raise BundleError(f"task {name}: its prompt, responses and methods hash to {task.hash()}")
    return task.hash(), task


def _gold(line: Line) -> tuple[Hash32, Gold]:
    task, ranks, salt = _exact(line, "task", "ranks", "salt")
    return task, Gold(
        parse_hash(task, "task"), tuple(_int(r, "rank") for r in ranks), parse_hash(salt, "salt")
    )


def _session(line: Line) -> SignedSession:
    session, signature = _exact(line, "session", "signature")
    return SignedSession(Session.parse(session), _text(signature, "signature"))


def _ranking(line: Line) -> SignedRanking:
    ranking, signature, position, received = _exact(line, "ranking", "signature", "position", "receivedAt")
    return SignedRanking(
        Ranking.parse(ranking),
        _text(signature, "signature"),
        _int(position, "position"),
        _int(received, "receivedAt"),
    )


def _run(line: Line) -> Run:
    run, first, last, snapshot = _exact(line, "run", "first", "last", "snapshot")
    return Run(
        _decimal(run, "run"),
        Epoch(_int(first, "first")),
        Epoch(_int(last, "last")),
        parse_hash(snapshot, "snapshot"),
    )


_PARSERS: Final[Mapping[str, Callable[[Line], Any]]] = {
    "epoch": _header,
    "task": _task,
    "gold": _gold,
    "session": _session,
    "ranking": _ranking,
    "run": _run,
}


def read_lines(data: bytes) -> list[Line]:
    """Return a bundle's lines; BundleError names the first that is no canonical object of a known kind."""
    lines: list[Line] = []
    *whole, rest = data.split(b"\n")
    for number, raw in enumerate(whole, start=1):
        try:
            line = json.loads(raw)
            same = canonical(line) == raw
        except (ValueError, RecursionError) as error:
            raise BundleError(f"line {number} is not JSON: {error}") from error
        if not isinstance(line, dict) or line.get("kind") not in KINDS:
            raise BundleError(f"line {number} is not an object of a known kind: {raw[:80]!r}")
        if not same:
            raise BundleError(f"line {number} ({line['kind']}) is not in canonical form (RFC 8785)")
        lines.append(line)
    if rest:
        raise BundleError(f"line {len(whole) + 1} is cut off: it does not end with a newline")
    if not lines or lines[0]["kind"] != "epoch":
        raise BundleError("a bundle begins with its epoch line; this file does not")
    return lines


def read_evidence(lines: list[Line]) -> Evidence:
    """Return the evidence in a bundle's lines, every field parsed; BundleError names the wrong line."""
    found: dict[str, list[Any]] = {kind: [] for kind in _PARSERS}
    for number, line in enumerate(lines, start=1):
        if parser := _PARSERS.get(line["kind"]):
            try:
                found[line["kind"]].append(parser(line))
            except (HapticError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                raise BundleError(f"line {number} ({line['kind']}): {error}") from error
    if len(found["epoch"]) != 1:
        raise BundleError(f"a bundle has one epoch line; this one has {len(found['epoch'])}")
    evidence = Evidence(
        header=found["epoch"][0], tasks=dict(found["task"]), gold=dict(found["gold"]),
        sessions=tuple(dict.fromkeys(found["session"])), rankings=tuple(found["ranking"]),
        runs=tuple({r.run: r for r in found["run"]}.values()),
    )  # fmt: skip
    _check_places(lines, evidence)
    return evidence


def _check_places(lines: Sequence[Line], evidence: Evidence) -> None:
    """Evidence is written in one way: refuse a line that repeats another or stands in another place."""
    given = [(number, line) for number, line in enumerate(lines, start=1) if line["kind"] in _PARSERS]
    expected = evidence_lines(evidence)
    for place, (number, line) in enumerate(given):
        if line not in expected[place : place + 1]:
            raise BundleError(f"line {number} ({line['kind']}) repeats another, or is out of order")
