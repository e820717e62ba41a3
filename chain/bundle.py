"""An epoch's evidence, what people signed and what the operator committed to, as records and as bundle lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from chain.collector import paused
from chain.errors import BundleError, HapticError
from chain.feedback import Task
from chain.gold import Gold
from chain.handout import HandoutEntry, SkipEntry
from chain.lines import Line
from chain.messages import Ranking, Session, parse_address, parse_hash
from chain.rules import Rules
from chain.types import Address, Epoch, Hash32, Ratio


@dataclass(frozen=True, slots=True)
class SignedSession:
    """A session with the wallet's signature."""

    session: Session
    signature: str
    block: int = 0
    """Finalized block at which the wallet's own code accepted the signature; 0 where a key gave it."""


@dataclass(frozen=True, slots=True)
class SignedRanking:
    """A ranking as it was accepted: signature, place in the epoch's log, block time of arrival."""

    ranking: Ranking
    signature: str
    position: int
    received_at: int
    block: int = 0
    """Finalized block at which the wallet's own code accepted the signature; 0 where a key gave it."""


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
    receipt_signer: Address
    """Whose signature a receipt of this epoch has."""

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
    handouts: tuple[HandoutEntry, ...] = ()
    """By number; with the skips, which share it, and the rankings they are the epoch's log."""
    skips: tuple[SkipEntry, ...] = ()


def _header_line(h: Header) -> Line:
    return {
        "kind": "epoch", "epoch": h.epoch, "chainId": h.chain_id, "vault": h.vault,
        "distributor": h.distributor, "genesis": h.genesis, "length": h.length,
        "snapshotBlock": h.snapshot_block, "snapshotHash": h.snapshot_hash,
        "seed": h.seed, "goldRoot": h.gold_root, "lambda": [str(h.lam.num), str(h.lam.den)],
        "rules": h.rules.to_json(), "rulesHash": h.rules.hash(), "previous": h.previous,
        "receiptSigner": h.receipt_signer,
    }  # fmt: skip


def _task_line(named: tuple[Hash32, Task]) -> Line:
    name, t = named
    return {
        "kind": "task", "task": name, "prompt": t.prompt, "responses": list(t.responses), "methods": list(t.methods),
        "author": t.author, "assignees": list(t.assignees), "salt": t.salt,
    }  # fmt: skip


def _gold_line(named: tuple[Hash32, Gold]) -> Line:
    name, g = named
    return {"kind": "gold", "task": name, "ranks": list(g.ranks), "salt": g.salt}


def _session_line(s: SignedSession) -> Line:
    return {"kind": "session", "session": s.session.to_json(), "signature": s.signature, "block": s.block}


def _handout_line(h: HandoutEntry) -> Line:
    return {
        "kind": "handout", "number": h.number, "wallet": h.wallet, "task": h.task, "at": h.at, "after": h.after,
    }  # fmt: skip


def _skip_line(s: SkipEntry) -> Line:
    return {
        "kind": "skip", "number": s.number, "wallet": s.wallet, "task": s.task, "reason": s.reason, "at": s.at,
        "after": s.after,
    }  # fmt: skip


def _ranking_line(r: SignedRanking) -> Line:
    signed = {"ranking": r.ranking.to_json(), "signature": r.signature, "block": r.block}
    return {"kind": "ranking", **signed, "position": r.position, "receivedAt": r.received_at}


def _run_line(r: Run) -> Line:
    return {"kind": "run", "run": str(r.run), "first": r.first, "last": r.last, "snapshot": r.snapshot}


def _records(e: Evidence) -> Iterator[tuple[str, Any]]:
    """Yield kind and record of each line of evidence, in canonical order."""
    yield "epoch", e.header
    yield from (("task", (h, e.tasks[h])) for h in sorted(e.tasks))
    yield from (("gold", (h, e.gold[h])) for h in sorted(e.gold))
    by_key = sorted(e.sessions, key=lambda s: (s.session.wallet, s.session.key, s.signature))
    yield from (("session", s) for s in by_key)
    yield from (("handout", h) for h in sorted(e.handouts, key=lambda h: h.number))
    yield from (("skip", s) for s in sorted(e.skips, key=lambda s: s.number))
    yield from (("ranking", r) for r in sorted(e.rankings, key=lambda r: r.position))
    yield from (("run", r) for r in sorted(e.runs, key=lambda r: r.run))


def evidence_lines(e: Evidence) -> Iterator[Line]:
    """Yield the evidence as lines in their canonical order."""
    return (_FORMS[kind].write(record) for kind, record in _records(e))


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
    _exact(line, *numbers, *hashes, "vault", "distributor", "lambda", "rules", "rulesHash", "receiptSigner")
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
        receipt_signer=parse_address(line["receiptSigner"], "receiptSigner"),
    )  # fmt: skip


def _task(line: Line) -> tuple[Hash32, Task]:
    fields = ("task", "prompt", "responses", "methods", "author", "assignees", "salt")
    name, prompt, responses, methods, author, assignees, salt = _exact(line, *fields)
    task = Task.of(
        _text(prompt, "prompt"), (_text(r, "response") for r in responses), methods,
        parse_address(author, "author") if author != "" else "", [parse_address(a, "assignee") for a in assignees],
        parse_hash(salt, "salt"),
    )  # fmt: skip
    if task.hash() != name:
        raise BundleError(
            f"task {name}: its prompt, responses, methods, author, assignees and salt hash to {task.hash()}"
        )
    return task.hash(), task


def _gold(line: Line) -> tuple[Hash32, Gold]:
    task, ranks, salt = _exact(line, "task", "ranks", "salt")
    name = parse_hash(task, "task")
    return name, Gold(name, tuple(_int(r, "rank") for r in ranks), parse_hash(salt, "salt"))


def _session(line: Line) -> SignedSession:
    session, signature, block = _exact(line, "session", "signature", "block")
    return SignedSession(Session.parse(session), _text(signature, "signature"), _int(block, "block"))


def _handout(line: Line) -> HandoutEntry:
    number, wallet, task, at, after = _exact(line, "number", "wallet", "task", "at", "after")
    return HandoutEntry(
        _int(number, "number"), parse_address(wallet, "wallet"), parse_hash(task, "task"), _int(at, "at"),
        _int(after, "after"),
    )  # fmt: skip


def _skip(line: Line) -> SkipEntry:
    number, wallet, task, reason, at, after = _exact(
        line, "number", "wallet", "task", "reason", "at", "after"
    )
    return SkipEntry(
        _int(number, "number"), parse_address(wallet, "wallet"), parse_hash(task, "task"), _text(reason, "reason"),
        _int(at, "at"), _int(after, "after"),
    )  # fmt: skip


def _ranking(line: Line) -> SignedRanking:
    ranking, signature, position, received, block = _exact(
        line, "ranking", "signature", "position", "receivedAt", "block"
    )
    return SignedRanking(
        Ranking.parse(ranking),
        _text(signature, "signature"),
        _int(position, "position"),
        _int(received, "receivedAt"),
        _int(block, "block"),
    )


def _run(line: Line) -> Run:
    run, first, last, snapshot = _exact(line, "run", "first", "last", "snapshot")
    return Run(
        _decimal(run, "run"),
        Epoch(_int(first, "first")),
        Epoch(_int(last, "last")),
        parse_hash(snapshot, "snapshot"),
    )


class _Form(NamedTuple):
    """How a kind of evidence is read from a line, and written as one."""

    read: Callable[[Line], Any]
    write: Callable[[Any], Line]


_FORMS: Final[Mapping[str, _Form]] = {
    "epoch": _Form(_header, _header_line),
    "task": _Form(_task, _task_line),
    "gold": _Form(_gold, _gold_line),
    "session": _Form(_session, _session_line),
    "handout": _Form(_handout, _handout_line),
    "skip": _Form(_skip, _skip_line),
    "ranking": _Form(_ranking, _ranking_line),
    "run": _Form(_run, _run_line),
}


class _Read(NamedTuple):
    """A line of evidence that was read."""

    number: int
    kind: str
    record: Any
    same: bool
    """It is what its record is written as."""


def _read_record(number: int, line: Line) -> _Read:
    kind = line["kind"]
    try:
        record = _FORMS[kind].read(line)
        return _Read(number, kind, record, _FORMS[kind].write(record) == line)
    except (HapticError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BundleError(f"line {number} ({kind}): {error}") from error


@paused()
def read_evidence(lines: Iterable[Line]) -> Evidence:
    """Return the evidence in a bundle's lines, every field parsed; BundleError names the wrong line."""
    numbered = enumerate(lines, start=1)
    read = [_read_record(number, line) for number, line in numbered if line["kind"] in _FORMS]
    found: dict[str, list[Any]] = {kind: [] for kind in _FORMS}
    for line in read:
        found[line.kind].append(line.record)
    if len(found["epoch"]) != 1:
        raise BundleError(f"a bundle has one epoch line; this one has {len(found['epoch'])}")
    evidence = Evidence(
        header=found["epoch"][0], tasks=dict(found["task"]), gold=dict(found["gold"]),
        sessions=tuple(dict.fromkeys(found["session"])), rankings=tuple(found["ranking"]),
        runs=tuple({r.run: r for r in found["run"]}.values()),
        handouts=tuple(found["handout"]), skips=tuple(found["skip"]),
    )  # fmt: skip
    _check_places(read, evidence)
    return evidence


def _check_places(read: Sequence[_Read], evidence: Evidence) -> None:
    """Evidence is written in one way: refuse a line that repeats another or stands in another place."""
    for line, (_, expected) in zip(read, chain(_records(evidence), repeat(("", None))), strict=False):
        if not line.same or line.record != expected:
            raise BundleError(f"line {line.number} ({line.kind}) repeats another, or is out of order")
