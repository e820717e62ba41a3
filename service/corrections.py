"""An epoch put right after it was closed, or given up after it ended: what was signed stays, what followed goes."""

from __future__ import annotations

from sqlmodel import Session as Db

from chain import ledger as chain_ledger
from chain.assignment import seed_commitment
from chain.committer import EpochRecord
from service.database import alone
from service.epochs import EPOCHS, Place
from service.errors import ConfigError, ConflictError, NotFoundError
from service.ledger import queries, results
from service.ledger.tables import EpochRow
from service.terminal import show_when


def reopen(db: Db, place: Place, epoch: int) -> None:
    """Take back all that followed from closing `epoch` and the epochs after it; what was signed stays.

    Verdicts about models follow from the closed epochs, so they go too; the models stay in the registry.

    ConflictError where an epoch after it was given its λ, and the chain does not know of that yet; ConfigError where
    the secret that one of them was opened with is gone, so that it could never be closed again.
    """
    alone(db.connection(), EPOCHS)
    for row in queries.epochs(db):
        if row.epoch > epoch and row.committed_at is None:
            raise ConflictError(
                f"epoch {row.epoch} was opened by what epoch {epoch} came to, and the chain has to hear of both first: "
                f"`haptic epoch commit --epoch {epoch}`, then `--epoch {row.epoch}`"
            )
        gone = row.seed_hash != seed_commitment(place.seed(row.epoch))
        if row.epoch >= epoch and row.abandoned_at is None and gone:
            raise ConfigError(
                f"epoch {row.epoch} was opened with another HAPTIC_SECRET: put that one back before it is reopened"
            )
    results.forget_results(db, epoch)
    chain_ledger.forget_epoch_reports(db, epoch)


def check_abandoned(
    db: Db, place: Place, epoch: int, known: EpochRecord, now: int, *, lock: bool = False
) -> EpochRow:
    """Return the epoch if it can be given up; ConflictError where it is not over, not opened, or paid already."""
    row = queries.epoch_row(db, epoch, lock=lock)
    if row is None:
        raise NotFoundError(f"epoch {epoch} was not opened")
    if now < place.start(epoch + 1):
        raise ConflictError(
            f"epoch {epoch} lasts until {show_when(place.start(epoch + 1), now)}: its secret may still be found"
        )
    report = chain_ledger.epoch_report(db, epoch)
    if report is not None and report.status == "active":
        raise ConflictError(
            f"the root of epoch {epoch} pays already, and no veto stops it: it stays as it is"
        )
    if report is not None and report.status == "posted":
        raise ConflictError(f"the root of epoch {epoch} is posted: the guardian's veto comes first")
    if not known.opened_at:
        raise ConflictError(
            f"epoch {epoch} is not open on the chain yet: `haptic epoch commit --epoch {epoch}` first"
        )
    return row


def abandon(db: Db, place: Place, epoch: int, known: EpochRecord, now: int) -> None:
    """Give up an ended epoch whose opening cannot be revealed, so that it closes without a ranking.

    `known` is what the chain knows of it. Raises as `check_abandoned` does.
    """
    alone(db.connection(), EPOCHS)
    row = check_abandoned(db, place, epoch, known, now, lock=True)
    # Epochs that were opened here and not on the chain: nobody was asked anything in them, and they are opened anew.
    results.forget_uncommitted(db, epoch)
    results.forget_results(db, epoch)
    chain_ledger.forget_epoch_reports(db, epoch)
    row.abandoned_at, row.committed_at, row.closed_at, row.anchored_at = now, known.opened_at, None, None
