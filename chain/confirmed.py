"""What was found right hands on to the next epoch, which can be recomputed though older bundles are withheld."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from chain.bundle import Run
from chain.deployment import Deployment
from chain.epoch import Standing, snapshot_hash
from chain.events import Posted
from chain.served import parts_of, spool
from chain.types import Hash32, Params, Ratio


class Learned:
    """What the trainer learns from each epoch, kept until a run is declared to have learned from it."""

    def __init__(self) -> None:
        self._files: dict[int, IO[bytes]] = {}

    def __del__(self) -> None:
        # A watcher that is let go of is not closed by anybody.
        self.close()

    def add(self, epoch: int, lines: Iterable[bytes]) -> None:
        """Keep an epoch's preference lines."""
        self._files[epoch] = spool()
        self._files[epoch].writelines(lines)

    def hash(self, run: Run) -> Hash32:
        """Return the hash of a run's data file."""
        files = (self._files[epoch] for epoch in range(run.first, run.last + 1))
        return snapshot_hash(part for file in files for part in parts_of(file))

    def forget(self, until: int) -> None:
        """Let go of all epochs up to one: the next run begins after it."""
        for epoch in [e for e in self._files if e <= until]:
            self._files.pop(epoch).close()

    def take(self, other: Learned) -> None:
        """Keep a copy of all that another keeps."""
        for epoch, file in other._files.items():
            self.add(epoch, parts_of(file))

    def close(self) -> None:
        """Let go of all."""
        self.forget(max(self._files, default=0))


@dataclass(frozen=True, slots=True)
class Before:
    """What the epochs so far hand on to the next."""

    standing: Standing
    snapshot: int
    """Block up to which revenue has been divided."""

    @classmethod
    def first(cls, params: Params, deployment: Deployment) -> Before:
        """Return what epoch 0 begins with."""
        return cls(Standing(Ratio(params.lambda0_num, params.lambda0_den)), deployment.from_block - 1)


@dataclass(slots=True)
class Confirmed:
    """The epochs that were found right last, for as long as the chain has them as they were then."""

    before: Before | None = None
    learned: Learned = field(default_factory=Learned)
    _posted: Sequence[Posted] = ()

    @property
    def last(self) -> int:
        """The newest of them; -1 where there is none."""
        return len(self._posted) - 1

    def holds(self, posted: Mapping[int, Posted], until: int) -> bool:
        """Tell whether an epoch after them follows from them: the chain has the same reports."""
        return -1 < self.last < until and all(posted.get(each.epoch) == each for each in self._posted)

    def keep(self, posted: Sequence[Posted], before: Before, learned: Learned) -> None:
        """Remember these instead; what they learned is copied."""
        self.learned.close()
        self.learned = Learned()
        self.learned.take(learned)
        self.before, self._posted = before, posted
