"""An operator is held to what it committed to on the chain: openings, closes, corrections, epochs given up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from chain.bundle import Evidence
from chain.canonical import hash_of, text_hash
from chain.epoch import Closed
from chain.errors import VerifyError
from chain.feedback import Task
from chain.opening import Opening
from chain.types import ZERO_HASH, BlockRef, Hash32, Ratio
from chain.verify import bundle_source, verify
from tests.integration.conftest import GENESIS, Chain
from tests.integration.story import Story, begin


class _OtherRules(Story):
    """Commits to other rules than it scores by."""

    def commitment(self, epoch: int) -> Opening:
        return replace(super().commitment(epoch), rules_hash=text_hash("other rules"))


class _TooLate(Story):
    """Commits to an epoch after people have begun to answer."""

    def open(self, epoch: int) -> None:
        if not epoch:
            self.endow(self.people)
            self.chain.warp(GENESIS + 300)
        super().open(epoch)


class _OtherBundle(Story):
    """Anchors another bundle than it posts."""

    def anchor(self, epoch: int, closed: Closed) -> None:
        super().anchor(epoch, replace(closed, data_hash=text_hash("another")))


class _OtherRankings(Story):
    """Anchors other rankings than it posts."""

    def anchor(self, epoch: int, closed: Closed) -> None:
        super().anchor(epoch, replace(closed, ledger_root=text_hash("others")))


class _NeverClosed(Story):
    """Posts without having revealed anything."""

    def anchor(self, epoch: int, closed: Closed) -> None:
        pass

    def open(self, epoch: int) -> None:
        if not epoch:
            super().open(epoch)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (_OtherRules, "opened with 0x.*; seed, gold, rules and lambda of the bundle hash to 0x"),
        (
            _TooLate,
            r"opened at \d+, but task 0x\w+ had been handed to 0x\w+ at \d+: it was committed to after",
        ),
        (_OtherBundle, "closed with dataHash 0x.*, posted with 0x"),
        (_OtherRankings, "closed with ledgerRoot 0x.*, posted with 0x"),
        (_NeverClosed, "it was never closed in the EpochLedger"),
    ],
)
def test_an_operator_is_held_to_what_it_committed_to(
    deployed: Chain, tmp_path: Path, kind: type[Story], said: str
) -> None:
    told = begin(deployed, tmp_path, people=3, kind=kind)
    told.endow(3)
    _, report = told.close(0)
    told.post(report)
    with pytest.raises(VerifyError, match=f"^epoch 0, on the chain: {said}"):
        verify(deployed.rpc, deployed.deployment, bundle_source(str(tmp_path)))


def _verified(told: Story) -> list[Any]:
    return verify(told.chain.rpc, told.chain.deployment, bundle_source(str(told.folder)))


def test_an_epoch_that_was_given_up_pays_nothing_and_carries_its_revenue_on(
    deployed: Chain, tmp_path: Path
) -> None:
    told = begin(deployed, tmp_path, people=3)
    told.endow(3)
    for epoch, revenue in enumerate((100, 30, 4)):
        deployed.fund(4, 0, revenue)
        if epoch == 1:
            told.abandoned.add(epoch)
        closed, report = told.close(epoch)
        told.post(report)
        told.activate()
        assert bool(closed.scores) == (epoch != 1)
    found = _verified(told)
    assert [(v.sum, v.carried, v.rankings > 0) for v in found] == [
        (100, 0, True),
        (100, 30, False),
        (134, 0, True),
    ]
    assert [len(v.notes) for v in found] == [0, 1, 0]
    assert [v.checked.sealed is None for v in found] == [False, True, False]
    assert found[1].notes[0].startswith("epoch 1 was abandoned on the chain")


@dataclass
class _Careless(Story):
    """Gives epoch 0 up and publishes what nobody can check."""

    said: Callable[[Evidence], Evidence] = field(default=lambda found: found)

    def _evidence(self, epoch: int, snapshot: BlockRef) -> Evidence:
        found = super()._evidence(epoch, snapshot)
        return self.said(found) if epoch in self.abandoned else found


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (
            lambda e: replace(e, header=replace(e.header, seed=text_hash("mine"))),
            " was abandoned on the chain: its bundle has seed 0x[^0]",
        ),
        (
            lambda e: replace(e, header=replace(e.header, lam=Ratio(1, 3))),
            ", epoch line: lambda is 1/3, expected",
        ),
    ],
)
def test_the_bundle_of_an_epoch_that_was_given_up_says_nothing_of_its_own(
    deployed: Chain, tmp_path: Path, said: Callable[[Evidence], Evidence], match: str
) -> None:
    told = begin(deployed, tmp_path, people=3, kind=_Careless)
    told.said = said  # type: ignore[attr-defined]
    told.abandoned.add(0)
    told.post(told.close(0)[1])
    with pytest.raises(VerifyError, match=f"^epoch 0{match}"):
        _verified(told)


def _sealed(tasks: Iterable[Task], seed: str) -> dict[Hash32, Task]:
    return {t.hash(): t for t in (task.sealed(bytes.fromhex(seed[2:])) for task in tasks)}


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (
            lambda e, whole: replace(e, tasks=_sealed(whole.tasks.values(), e.header.seed)),
            "epoch 0, epoch line: goldRoot is 0x0+, expected",
        ),
        (
            lambda e, whole: replace(e, sessions=whole.sessions),
            "but its bundle has a session line: nothing of it can be checked",
        ),
    ],
)
def test_nothing_that_was_asked_or_signed_in_an_epoch_that_was_given_up_is_published(
    deployed: Chain, tmp_path: Path, said: Callable[[Evidence, Evidence], Evidence], match: str
) -> None:
    told = begin(deployed, tmp_path, people=3, kind=_Careless)
    whole = told._evidence(0, BlockRef(0, ZERO_HASH, ZERO_HASH, 0))
    told.said = lambda e: said(e, whole)  # type: ignore[attr-defined]
    told.abandoned.add(0)
    told.post(told.close(0)[1])
    with pytest.raises(VerifyError, match=match):
        _verified(told)


@dataclass
class _Hasty(Story):
    """Opens epoch 1 by a price of stake that epoch 0, closed wrongly, seemed to give; then corrects epoch 0."""

    corrects: str = "after"
    """When: "before" epoch 1 is opened, "after" that, or "never"."""
    scored_by: str = "right"
    """Whether epoch 1 is scored by the "right" price, that follows from epoch 0, or by the one that was "committed"."""

    def open(self, epoch: int) -> None:
        right = self.standing
        if epoch == 1:
            if self.corrects == "before":
                self.correct()
            self.standing = replace(right, lam=Ratio(3 * right.lam.num, right.lam.den))
        super().open(epoch)
        if epoch == 1 and self.corrects == "after":
            self.chain.warp(self.chain.rpc.block("latest").timestamp + 1)
            self.correct()
        if self.scored_by == "right":
            self.standing = right

    def correct(self) -> None:
        right = hash_of((self.folder / "epoch-0.jsonl").read_bytes())
        self.chain.act(0, self.chain.deployment.ledger_contract(), "amend", 0, right)


@pytest.mark.parametrize("corrects", ["before", "after", "never"])
@pytest.mark.parametrize("scored_by", ["right", "committed"])
def test_an_operator_never_chooses_the_price_of_stake(
    deployed: Chain, tmp_path: Path, corrects: str, scored_by: str
) -> None:
    told = begin(deployed, tmp_path, people=3, kind=_Hasty)
    assert isinstance(told, _Hasty)
    told.corrects, told.scored_by = corrects, scored_by
    told.endow(3)
    for epoch in range(2):
        told.post(told.close(epoch)[1])
        told.activate()
    if told.scored_by != "right":
        with pytest.raises(VerifyError, match=r"^epoch 1, epoch line: lambda is \d+/\d+, expected \d+/\d+"):
            _verified(told)
    elif corrects != "after":
        with pytest.raises(VerifyError, match=r"^epoch 1, on the chain: opened with 0x"):
            _verified(told)
    else:
        first, second = _verified(told)
        assert first.notes == ()
        assert "before epoch 0 was corrected; it is scored by" in second.notes[0]
