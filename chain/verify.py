"""Recomputes epochs as a stranger: reads only the chain and the bundles, names the first row that differs.

Nothing here comes from an operator's database, index or snapshot; the arithmetic is the plain-Python
specification, not the operator's vectorised one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from chain.bundle import Evidence, read_evidence
from chain.confirmed import Before, Confirmed, Learned
from chain.deployment import Deployment, check_deployment, read_deployment
from chain.difference import Comparison
from chain.epoch import SPEC, Closed, Standing, close, preference_lines
from chain.errors import BundleError, VerifyError
from chain.events import Posted
from chain.evidence import check_evidence
from chain.gold import gold_root
from chain.handout import check_staked
from chain.lines import raw_lines, read_lines
from chain.messages import Domain
from chain.receipts import Finding, Kept, check_promises
from chain.record import Record, facts_of, read_record
from chain.rpc import Rpc
from chain.sealing import Sealed, check_sealed, written
from chain.served import Source, bundle_source
from chain.types import BlockRef, Wei
from chain.wallets import Asked

__all__ = ["NothingPostedError", "Source", "Verified", "bundle_source", "verify", "verify_at"]

Progress = Callable[[str, float], None]
"""Told what is done now, in words, and the part of all that is done, from 0 to 1."""


class NothingPostedError(VerifyError):
    """No epoch has been posted yet: there is nothing that could be right or wrong."""


@dataclass(frozen=True, slots=True)
class Checked:
    """How much of an epoch's evidence was held against keys, code, the rule of hand-outs and the chain."""

    tasks: int = 0
    gold: int = 0
    signatures: int = 0
    """Of sessions and rankings, by whoever gave them."""
    contract_signatures: int = 0
    """Those of them about which a wallet's code was asked."""
    handouts: int = 0
    """Each the task that the rule names at that moment."""
    skips: int = 0
    """Each of what its wallet held, and within its budget."""
    sealed: Sealed | None = None
    """None where the epoch was given up."""

    @classmethod
    def of(cls, evidence: Evidence, sealed: Sealed | None) -> Checked:
        """Return the counts of evidence that was found right."""
        blocks = [*(s.block for s in evidence.sessions), *(r.block for r in evidence.rankings)]
        return cls(
            len(evidence.tasks), len(evidence.gold), len(blocks), sum(block > 0 for block in blocks),
            len(evidence.handouts), len(evidence.skips), sealed,
        )  # fmt: skip


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
    receipts: tuple[Finding, ...] = ()
    """What became of the rankings and hand-outs whose promises were given."""
    checked: Checked = Checked()
    """How much of what was held against what."""


def _check_header(
    rpc: Rpc, deployment: Deployment, evidence: Evidence, standing: Standing, posted: Posted
) -> BlockRef:
    """Return the snapshot block that the header names; deployment, λ and all else in it must be right too."""
    h, d = evidence.header, deployment
    pairs: list[tuple[str, Any, Any]] = [
        ("epoch", h.epoch, posted.epoch), ("chainId", h.chain_id, d.chain_id), ("vault", h.vault, d.vault),
        ("distributor", h.distributor, d.distributor), ("genesis", h.genesis, d.genesis),
        ("length", h.length, d.epoch_length), ("previous", h.previous, standing.previous),
        ("lambda", written(h.lam), written(standing.lam)),
        ("goldRoot", h.gold_root, gold_root(evidence.tasks, evidence.gold, bytes.fromhex(h.seed[2:]))),
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


def _check_runs(evidence: Evidence, standing: Standing, learned: Learned) -> None:
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
        expected = learned.hash(run)
        if run.snapshot != expected:
            raise VerifyError(f"{where}: snapshot is {run.snapshot}, expected {expected}")
        learned.forget(run.last)


def _check_posted(posted: Posted, closed: Closed) -> None:
    """Raise unless the report on the chain is of what was recomputed, of which the bundle has every byte."""
    for name, found, expected in (
        ("dataHash", posted.data_hash, closed.data_hash), ("root", posted.root, closed.tree.root_hash),
        ("sum", posted.sum, closed.tree.sum), ("depth", posted.depth, closed.tree.depth),
        ("ledgerRoot", posted.ledger_root, closed.ledger_root),
    ):  # fmt: skip
        if found != expected:
            raise VerifyError(f"epoch {posted.epoch}, on the chain: {name} is {found}, recomputed {expected}")


def _check_conservation(epoch: int, closed: Closed, record: Record, until: int) -> None:
    """All revenue up to the snapshot is either allotted or carried, to the last unit."""
    funded = sum(e.amount for e in record.fundings if e.block <= until)
    allotted, carried = closed.tree.sum, sum(closed.standing.carried.values())
    if allotted + carried != funded:
        raise VerifyError(f"epoch {epoch}: {allotted} allotted + {carried} carried is not {funded} funded")


def _read(epoch: int, file: IO[bytes]) -> Evidence:
    try:
        return read_evidence(read_lines(raw_lines(file)))
    except BundleError as error:
        raise BundleError(f"bundle of epoch {epoch}, {error}") from error


@contextmanager
def _named(epoch: int) -> Iterator[None]:
    """Put the epoch in front of what is found wrong in it."""
    try:
        yield
    except VerifyError as error:
        raise VerifyError(f"epoch {epoch}, {error}") from error


def _recompute(
    rpc: Rpc,
    deployment: Deployment,
    record: Record,
    posted: Posted,
    file: IO[bytes],
    before: Before | None,
    learned: Learned,
    progress: Progress,
    receipts: Sequence[Kept],
) -> tuple[Verified, Before]:
    """Return what an epoch was found to be and hands on; an error names the first row that differs."""
    epoch, evidence = posted.epoch, _read(posted.epoch, file)
    if before is None:
        before = Before.first(evidence.header.rules.params, deployment)
    snapshot = _check_header(rpc, deployment, evidence, before.standing, posted)
    _check_runs(evidence, before.standing, learned)
    progress(f"checking {len(evidence.rankings)} signatures", 0.1)
    domain = Domain(deployment.chain_id, deployment.vault)
    with _named(epoch):
        digests = check_evidence(evidence, domain, Asked(rpc))
    progress("recomputing scores and payouts", 0.6)
    facts = facts_of(rpc, deployment, record, epoch, before.snapshot, snapshot)
    with _named(epoch):  # after the node's events were held against the vault
        least = evidence.header.rules.stake_least
        check_staked(evidence.handouts, (change for _, change in record.stakes), least)
    given = Comparison(epoch, file)
    closed = close(evidence, facts, before.standing, SPEC, digests, given.expect)
    given.expect_end()
    _check_posted(posted, closed)
    notes, sealed = check_sealed(rpc, deployment, evidence, posted)
    _check_conservation(epoch, closed, record, snapshot.number)
    learned.add(epoch, preference_lines(evidence.tasks, closed.comparisons, closed.result, epoch))
    found = Verified(
        epoch=epoch, rankings=len(evidence.rankings), wallets=len(closed.scores),
        paid_to=len(closed.standing.cumulative), sum=Wei(closed.tree.sum),
        carried=Wei(sum(closed.standing.carried.values())), active=epoch in record.active, notes=notes,
        receipts=check_promises(receipts, evidence, digests, domain), checked=Checked.of(evidence, sealed),
    )  # fmt: skip
    return found, Before(closed.standing, snapshot.number)


def _no_progress(_what: str, _part: float) -> None:
    """Say nothing."""


def verify(
    rpc: Rpc,
    deployment: Deployment,
    source: Source,
    until: int | None = None,
    progress: Progress = _no_progress,
    receipts: Sequence[Kept] = (),
    *,
    confirmed: Confirmed | None = None,
    resume: bool = False,
) -> list[Verified]:
    """Recompute epochs 0 to `until` (default: the last one posted) and return what was found.

    Each epoch's log is held against the promises in `receipts`, of rankings and of hand-outs; what differs is a finding.

    Raises VerifyError or BundleError naming the first row that differs, RpcError when the node fails; a
    NothingPostedError, which is a VerifyError, when there is nothing to verify. What is found right is kept in
    `confirmed`; with `resume`, bundles of what stands there already, as the chain has it, are not asked for again.
    """
    record = read_record(rpc, deployment)
    newest = max(record.posted, default=-1)
    last = newest if until is None else until
    if newest < 0:
        raise NothingPostedError(
            "no epoch has been posted to this distributor yet; there is nothing to verify"
        )
    result = []
    before: Before | None = None
    first = 0
    with closing(Learned()) as learned:
        if resume and confirmed is not None and confirmed.holds(record.posted, last):
            before, first = confirmed.before, confirmed.last + 1
            learned.take(confirmed.learned)
        for epoch in range(first, last + 1):
            if epoch not in record.posted:
                raise VerifyError(
                    f"epoch {epoch} has no report on the chain; the last posted one is {newest}"
                )

            def tell(what: str, part: float, epoch: int = epoch) -> None:
                progress(f"epoch {epoch}: {what}", (epoch + part) / (last + 1))

            tell("reading the bundle", 0.0)
            posted = record.posted[epoch]
            with source(epoch) as file:
                found, before = _recompute(
                    rpc, deployment, record, posted, file, before, learned, tell, receipts
                )
            result.append(found)
        if confirmed is not None and before is not None:
            confirmed.keep([record.posted[epoch] for epoch in range(last + 1)], before, learned)
    return result


def verify_at(
    rpc_url: str,
    deployment: Deployment | Path | str,
    bundles: str,
    until: int | None = None,
    progress: Progress = _no_progress,
) -> list[Verified]:
    """Recompute epochs 0 to `until` (default: the last one posted), as `haptic verify` does, in one call.

    `deployment` is a deployment or the path of its file, and is compared with the chain first; `bundles` is a
    service's URL, a URL with {epoch}, a folder, or one file of it. Raises as `verify` does, and a DeploymentError
    where the contracts are not those of the deployment:

        for epoch in verify_at("https://node", "deployment.json", "https://service"):
            print(epoch.epoch, epoch.wallets, epoch.sum)
    """
    known = deployment if isinstance(deployment, Deployment) else read_deployment(Path(deployment))
    with Rpc(rpc_url) as rpc:
        check_deployment(rpc, known)
        return verify(rpc, known, bundle_source(bundles), until, progress)
