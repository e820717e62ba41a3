"""HapticScores of a closed epoch, read when somebody asks for them: revenue seldom goes by an old one's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from sqlmodel import Session as Db

from chain.types import Address
from service.ledger import results


@dataclass(frozen=True)
class StoredScores(Mapping[Address, int]):
    """HapticScore per wallet of an epoch; it can be read as long as its session is open."""

    db: Db
    epoch: int

    @cached_property
    def _known(self) -> dict[Address, int]:
        return {Address(w): int(line["score"]) for w, line in results.lines(self.db, self.epoch)}

    def __getitem__(self, wallet: Address) -> int:
        return self._known[wallet]

    def __iter__(self) -> Iterator[Address]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
