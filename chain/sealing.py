"""Whether an epoch was sealed: what the chain knew before its first hand-out, and which bundle it knew at the close."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chain.assignment import seed_commitment
from chain.bundle import Evidence
from chain.committer import EpochRecord, committed_lambda, epoch_record
from chain.deployment import Deployment
from chain.errors import VerifyError
from chain.events import Posted
from chain.opening import Opening
from chain.rpc import Rpc
from chain.types import ZERO_HASH, Hash32, Ratio


@dataclass(frozen=True, slots=True)
class Sealed:
    """What an operator was held to: it could choose none of it after it had seen an answer."""

    opened_at: int
    """Block time at which seed, tasks, gold, rules and lambda were committed to."""
    first_handout: int | None
    """When the first task was handed out, not before that; None where nobody was asked."""
    data_hash: Hash32
    """Of the bundle, as it was anchored at the close."""


def check_sealed(
    rpc: Rpc, deployment: Deployment, evidence: Evidence, posted: Posted
) -> tuple[tuple[str, ...], Sealed | None]:
    """Raise unless the chain knew seed, tasks, gold, rules and λ before the first hand-out, and this bundle at the close.

    The evidence was replayed before: no ranking and no skip is older than the first hand-out. Returns what is no fault
    and should be known, and what the epoch was held to; None for one that was given up.
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
        return _check_abandoned(evidence), None
    h = evidence.header
    opening = Opening(seed_commitment(bytes.fromhex(h.seed[2:])), h.gold_root, h.rules.hash(), h.lam)
    note = "" if known.opening == opening.hash() else _overtaken(rpc, deployment, evidence, opening, known)
    if known.opening != opening.hash() and not note:
        raise VerifyError(
            f"{where}: opened with {known.opening}; seed, gold, rules and lambda of the bundle hash to {opening.hash()}"
        )
    first = next(iter(evidence.handouts), None)
    if first is not None and first.at < known.opened_at:
        raise VerifyError(
            f"{where}: opened at {known.opened_at}, but task {first.task} had been handed to {first.wallet} at "
            f"{first.at}: it was committed to after people had been asked"
        )
    sealed = Sealed(known.opened_at, first.at if first else None, known.data_hash)
    return tuple(filter(None, (note, _reserved(evidence)))), sealed


def _reserved(evidence: Evidence) -> str:
    """Return in words that the operator chose who was asked about some tasks; nothing where it did not."""
    count = sum(bool(task.assignees) for task in evidence.tasks.values())
    of = f"epoch {evidence.header.epoch}: {count} of {len(evidence.tasks)} tasks"
    return f"{of} were only for wallets that the operator had named before" if count else ""


def _check_abandoned(evidence: Evidence) -> tuple[str, ...]:
    """Raise unless the bundle says nothing but what follows without an opening: no task, no ranking, no seed."""
    h = evidence.header
    where = f"epoch {h.epoch} was abandoned on the chain"
    for name, found in (
        ("task", evidence.tasks), ("gold", evidence.gold), ("session", evidence.sessions),
        ("handout", evidence.handouts), ("skip", evidence.skips), ("ranking", evidence.rankings),
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
        committed = committed_lambda(rpc, deployment, epoch, known.opening)
        if replace(opening, lam=committed).hash() == known.opening:
            return (
                f"epoch {epoch}: lambda was committed to as {written(committed)}, before epoch {epoch - 1} was "
                f"corrected; it is scored by {written(opening.lam)}, which follows from the correction"
            )
    return ""


def written(ratio: Ratio) -> str:
    """Return a ratio as an epoch line has it."""
    return f"{ratio.num}/{ratio.den}"
