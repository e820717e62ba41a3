"""Recomputes epochs as a stranger: reads only the chain and the bundles, names the first row that differs.

Nothing here comes from an operator's database, index or snapshot; the arithmetic is the plain-Python
specification, not the operator's vectorised one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import httpx

from chain.assignment import seed_commitment
from chain.bundle import KINDS, ZERO_HASH, Evidence, Line, read_evidence, read_lines
from chain.canonical import canonical, hash_of
from chain.committer import EpochRecord, committed_lambda, epoch_record
from chain.deployment import Deployment
from chain.epoch import SPEC, Closed, Standing, close, gold_root, preference_lines, snapshot_hash
from chain.errors import BundleError, VerifyError
from chain.events import Posted
from chain.evidence import check_evidence
from chain.messages import Domain
from chain.opening import Opening
from chain.record import Record, facts_of, read_record
from chain.rpc import Rpc
from chain.types import BlockRef, Hash32, Params, Ratio, Wei

Source = Callable[[int], bytes]
Progress = Callable[[str], None]
MAX_BUNDLE_BYTES = 1 << 30
SLOWEST = 10
"""A server that drips bytes must not hold whoever checks until a challenge window is over."""


class NothingPostedError(VerifyError):
    """No epoch has been posted yet: there is nothing that could be right or wrong."""


@dataclass(frozen=True, slots=True)
class Verified:
    """An epoch that was recomputed and found as posted."""

    epoch: int
    rankings: int
    wallets: int
    paid_to: int
    sum: Wei
    """Cumulative payout of all accounts."""
    carried: Wei
    """Revenue that nobody was allotted, handed on to the next epoch."""
    active: bool
    """The root is the one that claims are paid by, or an older one that was."""
    notes: tuple[str, ...] = ()
    """What is no fault, and whoever relies on the epoch should know, in words."""


def bundle_source(where: str, timeout_s: float = 60.0) -> Source:
    """Return a reader of bundles at a service's URL, a URL with {epoch}, a folder or one file of it."""
    if re.match(r"https?://", where):
        url = where if "{epoch}" in where else where.rstrip("/") + "/v1/epochs/{epoch}/bundle"
        return lambda epoch: _fetch(url.replace("{epoch}", str(epoch)), timeout_s)
    path = Path(where)

    def read(epoch: int) -> bytes:
        named = re.sub(r"\d+(?=\D*$)", str(epoch), path.name)
        file = path / f"epoch-{epoch}.jsonl" if path.is_dir() else path.with_name(named)
        try:
            return file.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{file}: {error.strerror}. Every epoch builds on those before: put the bundles of epochs "
                "0 to N beside each other, or give the service's URL"
            ) from error

    return read


def _fetch(url: str, timeout_s: float) -> bytes:
    """Return what a URL gives, at most MAX_BUNDLE_BYTES, in at most SLOWEST times the timeout of one read."""
    data = bytearray()
    deadline = time.monotonic() + SLOWEST * timeout_s
    try:
        with httpx.stream("GET", url, timeout=timeout_s, follow_redirects=False) as response:
            if response.status_code != httpx.codes.OK:
                raise BundleError(
                    f"{url} answered {response.status_code}; is the epoch closed, and the URL right?"
                )
            for part in response.iter_bytes():
                data += part
                if len(data) > MAX_BUNDLE_BYTES:
                    raise BundleError(f"{url} sends more than {MAX_BUNDLE_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise BundleError(
                        f"{url} sends too slowly: {len(data)} bytes in {SLOWEST * timeout_s:g} s"
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BundleError(f"{url} cannot be read: {error}") from error
    return bytes(data)


def _check_header(
    rpc: Rpc, deployment: Deployment, evidence: Evidence, standing: Standing, posted: Posted
) -> BlockRef:
    """Return the snapshot block that the header names; deployment, λ and all else in it must be right too."""
    h, d = evidence.header, deployment
    pairs: list[tuple[str, Any, Any]] = [
        ("epoch", h.epoch, posted.epoch), ("chainId", h.chain_id, d.chain_id), ("vault", h.vault, d.vault),
        ("distributor", h.distributor, d.distributor), ("genesis", h.genesis, d.genesis),
        ("length", h.length, d.epoch_length), ("previous", h.previous, standing.previous),
        ("lambda", _said(h.lam), _said(standing.lam)),
        ("goldRoot", h.gold_root, gold_root(evidence.gold.values())),
        ("rulesHash", h.rules.hash(), posted.rules_hash),
        ("snapshotBlock", h.snapshot_block, posted.snapshot_block),
        ("snapshotHash", h.snapshot_hash, posted.snapshot_hash),
    ]  # fmt: skip
    where = f"epoch {posted.epoch}, epoch line"
    for name, found, expected in pairs:
        if found != expected:
            raise VerifyError(f"{where}: {name} is {found}, expected {expected}")
    block, after = rpc.blocks([h.snapshot_block, h.snapshot_block + 1])
    if h.snapshot_hash != block.hash:
        raise VerifyError(f"{where}: snapshotHash is {h.snapshot_hash}, expected {block.hash}")
    if not block.timestamp < h.end <= after.timestamp:
        raise VerifyError(
            f"{where}: snapshotBlock {block.number} (time {block.timestamp}) is not the last before {h.end}"
        )
    return block


def _check_runs(evidence: Evidence, standing: Standing, preferences: Sequence[bytes]) -> None:
    """Runs follow each other without gap or overlap and learn from exactly the file that their epochs give.

    Otherwise an operator could choose, knowing the scores, by which epochs a run's revenue is shared.
    """
    known = [standing.runs[n] for n in sorted(standing.runs)]
    for run in evidence.runs:
        where = f"epoch {evidence.header.epoch}, run {run.run}"
        if run.run != len(known) + 1 or run.first != (known[-1].last + 1 if known else 0):
            raise VerifyError(f"{where}: it does not follow the runs before it, {[r.run for r in known]}")
        if not run.first <= run.last < evidence.header.epoch:
            raise VerifyError(f"{where}: epochs {run.first} to {run.last} are not closed ones")
        known.append(run)
        expected = snapshot_hash(preferences[run.first : run.last + 1])
        if run.snapshot != expected:
            raise VerifyError(f"{where}: snapshot is {run.snapshot}, expected {expected}")


_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "epoch": ("epoch",),
    "task": ("task",),
    "gold": ("task",),
    "session": ("wallet", "key"),
    "ranking": ("position", "wallet", "task"),
    "run": ("run",),
    "pair": ("task", "a", "b"),
    "wallet": ("wallet",),
    "pool": ("run",),
    "share": ("run", "wallet"),
    "leaf": ("account",),
}
"""The fields that name a row of each kind; no two rows have all of them in common."""


def _name(line: Line) -> str:
    """Return a line's kind and key in words."""
    kind, body = line["kind"], line | line.get("ranking", {}) | line.get("session", {})
    return " ".join([kind, *(f"{k} {body.get(k)}".removeprefix(f"{kind} ") for k in _KEYS[kind])])


def _differ(epoch: int, found: Line | None, expected: Line | None) -> VerifyError:
    if found is None or expected is None:
        there = _name(found or expected or {"kind": "?"})
        return VerifyError(
            f"epoch {epoch}: the row '{there}' is {'too many' if expected is None else 'missing'}"
        )
    if _name(found) != _name(expected):
        earlier = min((found, expected), key=lambda x: (KINDS.index(x["kind"]), _name(x)))
        return VerifyError(
            f"epoch {epoch}: found the row '{_name(found)}' where '{_name(expected)}' belongs "
            f"(see {_name(earlier)})"
        )
    fields = [k for k in sorted(set(found) | set(expected)) if found.get(k) != expected.get(k)]
    said = "; ".join(f"{k} is {found.get(k)}, recomputed {expected.get(k)}" for k in fields)
    return VerifyError(f"epoch {epoch}, {_name(expected)}: {said or 'it is not in canonical form'}")


def _compare(epoch: int, data: bytes, closed: Closed) -> None:
    """Raise for the first row of the bundle that is not what was recomputed."""
    if data == closed.bundle:
        return
    for found, expected in zip_longest(read_lines(data), read_lines(closed.bundle)):
        if found is None or expected is None or canonical(found) != canonical(expected):
            raise _differ(epoch, found, expected)
    raise VerifyError(f"epoch {epoch}: the bundle says the same in other bytes: it is not in canonical form")


def _check_posted(posted: Posted, data: bytes, closed: Closed) -> None:
    """Raise unless the report on the chain is of these bytes and of what was recomputed."""
    for name, found, expected in (
        ("dataHash", posted.data_hash, hash_of(data)), ("root", posted.root, closed.tree.root_hash),
        ("sum", posted.sum, closed.tree.sum), ("depth", posted.depth, closed.tree.depth),
        ("ledgerRoot", posted.ledger_root, closed.ledger_root),
    ):  # fmt: skip
        if found != expected:
            raise VerifyError(f"epoch {posted.epoch}, on the chain: {name} is {found}, recomputed {expected}")


def _check_anchored(rpc: Rpc, deployment: Deployment, evidence: Evidence, posted: Posted) -> tuple[str, ...]:
    """Raise unless the chain knew seed, gold, rules and λ before the first ranking, and this bundle at the close.

    Returns what is no fault and should be known.
    """
    epoch = posted.epoch
    known = epoch_record(rpc, deployment, epoch)
    where = f"epoch {epoch}, on the chain"
    if not known.closed_at:
        raise VerifyError(
            f"{where}: it was never {'closed' if known.opened_at else 'opened'} in the EpochLedger"
        )
    for name, found, expected in (
        ("ledgerRoot", known.ledger_root, posted.ledger_root), ("dataHash", known.data_hash, posted.data_hash),
    ):  # fmt: skip
        if found != expected:
            raise VerifyError(f"{where}: closed with {name} {found}, posted with {expected}")
    if known.abandoned:
        return _check_abandoned(evidence)
    h = evidence.header
    opening = Opening(seed_commitment(bytes.fromhex(h.seed[2:])), h.gold_root, h.rules.hash(), h.lam)
    note = "" if known.opening == opening.hash() else _overtaken(rpc, deployment, evidence, opening, known)
    if known.opening != opening.hash() and not note:
        raise VerifyError(
            f"{where}: opened with {known.opening}; seed, gold, rules and lambda of the bundle hash to {opening.hash()}"
        )
    first = min(evidence.rankings, key=lambda r: r.received_at, default=None)
    if first is not None and first.received_at < known.opened_at:
        raise VerifyError(
            f"{where}: opened at {known.opened_at}, but the ranking at position {first.position} had come in at "
            f"{first.received_at}: it was committed to after people had begun to answer"
        )
    return (note,) if note else ()


def _check_abandoned(evidence: Evidence) -> tuple[str, ...]:
    """Raise unless the bundle says nothing but what follows without an opening: no task, no ranking, no seed."""
    h = evidence.header
    where = f"epoch {h.epoch} was abandoned on the chain"
    for name, found in (
        ("task", evidence.tasks), ("gold", evidence.gold), ("session", evidence.sessions), ("ranking", evidence.rankings),
    ):  # fmt: skip
        if found:
            raise VerifyError(f"{where}, but its bundle has a {name} line: nothing of it can be checked")
    if h.seed != ZERO_HASH:
        raise VerifyError(f"{where}: its bundle has seed {h.seed}, expected {ZERO_HASH}")
    return (f"{where}: no ranking of it counts, and revenue that named no run is carried on",)


def _overtaken(
    rpc: Rpc, deployment: Deployment, evidence: Evidence, opening: Opening, known: EpochRecord
) -> str:
    """Return in words that λ was committed to before the epoch before was corrected, if that is all that differs.

    By which λ an epoch is scored follows from the epoch before as it is, so that neither is of the operator's choice.
    """
    epoch = evidence.header.epoch
    if epoch and epoch_record(rpc, deployment, epoch - 1).amended_at > known.opened_at:
        committed = committed_lambda(rpc, deployment, epoch)
        if committed is not None and replace(opening, lam=committed).hash() == known.opening:
            return (
                f"epoch {epoch}: lambda was committed to as {_said(committed)}, before epoch {epoch - 1} was corrected; "
                f"it is scored by {_said(opening.lam)}, which follows from the correction"
            )
    return ""


def _said(ratio: Ratio) -> str:
    return f"{ratio.num}/{ratio.den}"


def _check_conservation(epoch: int, closed: Closed, record: Record, until: int) -> None:
    """All revenue up to the snapshot is either allotted or carried, to the last unit."""
    funded = sum(e.amount for e in record.fundings if e.block <= until)
    allotted, carried = closed.tree.sum, sum(closed.standing.carried.values())
    if allotted + carried != funded:
        raise VerifyError(f"epoch {epoch}: {allotted} allotted + {carried} carried is not {funded} funded")


@dataclass(frozen=True, slots=True)
class _Before:
    """What the epochs so far hand on to the next."""

    standing: Standing
    preferences: tuple[bytes, ...]
    """What the trainer learns from each epoch."""
    snapshot: int
    """Block up to which revenue has been divided."""

    @classmethod
    def first(cls, params: Params, deployment: Deployment) -> _Before:
        """Return what epoch 0 begins with."""
        return cls(Standing(Ratio(params.lambda0_num, params.lambda0_den)), (), deployment.from_block - 1)


def _read(epoch: int, data: bytes) -> Evidence:
    try:
        return read_evidence(read_lines(data))
    except BundleError as error:
        raise BundleError(f"bundle of epoch {epoch}, {error}") from error


def _check_evidence(evidence: Evidence, domain: Domain) -> dict[int, Hash32]:
    try:
        return check_evidence(evidence, domain)
    except VerifyError as error:
        raise VerifyError(f"epoch {evidence.header.epoch}, {error}") from error


def _recompute(
    rpc: Rpc,
    deployment: Deployment,
    record: Record,
    posted: Posted,
    data: bytes,
    before: _Before | None,
    progress: Progress,
) -> tuple[Verified, _Before]:
    """Return what an epoch was found to be and hands on; an error names the first row that differs."""
    epoch, evidence = posted.epoch, _read(posted.epoch, data)
    if before is None:
        before = _Before.first(evidence.header.rules.params, deployment)
    snapshot = _check_header(rpc, deployment, evidence, before.standing, posted)
    _check_runs(evidence, before.standing, before.preferences)
    progress(f"epoch {epoch}: checking {len(evidence.rankings)} signatures")
    digests = _check_evidence(evidence, Domain(deployment.chain_id, deployment.vault))
    progress(f"epoch {epoch}: recomputing scores and payouts")
    facts = facts_of(rpc, deployment, record, epoch, before.snapshot, snapshot)
    closed = close(evidence, facts, before.standing, SPEC, digests)
    _compare(epoch, data, closed)
    _check_posted(posted, data, closed)
    notes = _check_anchored(rpc, deployment, evidence, posted)
    _check_conservation(epoch, closed, record, snapshot.number)
    learned = preference_lines(evidence.tasks, closed.comparisons, closed.result, epoch)
    found = Verified(
        epoch=epoch, rankings=len(evidence.rankings), wallets=len(closed.scores),
        paid_to=len(closed.standing.cumulative), sum=Wei(closed.tree.sum),
        carried=Wei(sum(closed.standing.carried.values())), active=epoch in record.active, notes=notes,
    )  # fmt: skip
    return found, _Before(closed.standing, (*before.preferences, learned), snapshot.number)


def _no_progress(_text: str) -> None:
    """Say nothing."""


def verify(
    rpc: Rpc,
    deployment: Deployment,
    source: Source,
    until: int | None = None,
    progress: Progress = _no_progress,
) -> list[Verified]:
    """Recompute epochs 0 to `until` (default: the last one posted) and return what was found.

    Raises VerifyError or BundleError naming the first row that differs, RpcError when the node fails; a
    NothingPostedError, which is a VerifyError, when there is nothing to verify.
    """
    record = read_record(rpc, deployment)
    newest = max(record.posted, default=-1)
    last = newest if until is None else until
    if newest < 0:
        raise NothingPostedError(
            "no epoch has been posted to this distributor yet; there is nothing to verify"
        )
    before: _Before | None = None
    result = []
    for epoch in range(last + 1):
        if epoch not in record.posted:
            raise VerifyError(f"epoch {epoch} has no report on the chain; the last posted one is {newest}")
        progress(f"epoch {epoch}: reading the bundle")
        data = source(epoch)
        found, before = _recompute(rpc, deployment, record, record.posted[epoch], data, before, progress)
        result.append(found)
    return result
