"""Idempotency keys: a request that is sent again with its key is answered as the first time, and does nothing new.

Keys belong to a wallet, and only what was accepted is kept: nobody can take another's key, and a request that was
refused may be mended and sent again. Without a key nothing is read or written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlmodel import Session as Db

from chain.types import Address
from service.database import alone
from service.errors import RejectedError
from service.ledger import queries
from service.ledger.tables import AnswerRow


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request that its sender may repeat: the key that it gave, and the hash of what it asked."""

    key: str
    request_hash: str

    def recall(self, db: Db, wallet: Address, epoch: int) -> AnswerRow | None:
        """Return the first answer; None where this is the first request. RejectedError where it asks something else."""
        row = queries.answer_row(db, wallet, self.key)
        # One of an epoch before goes when the next is kept: who sent this is not known yet, so it may delete nothing.
        if row is None or row.epoch != epoch:
            return None
        if row.request_hash != self.request_hash:
            raise RejectedError(
                f"Idempotency-Key {self.key!r} was used for another request in epoch {epoch}: take a new one"
            )
        return row

    def keep(self, db: Db, wallet: Address, epoch: int, status: int, answer: dict[str, Any]) -> None:
        """Keep an answer for the rest of the epoch, and forget those of epochs before."""
        alone(db.connection(), f"idempotency {wallet} {self.key}")
        queries.forget_answers(db, epoch)
        if queries.answer_row(db, wallet, self.key) is not None:
            return  # while a contract wallet was asked, the same request was answered beside this one
        row = AnswerRow(
            wallet=wallet, key=self.key, epoch=epoch, request_hash=self.request_hash, status=status, answer=answer
        )  # fmt: skip
        queries.add(db, row)
