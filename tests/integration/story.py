"""An operator on a real chain, told epoch by epoch: opens, closes, publishes and posts as a service would."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from eth_account.signers.local import LocalAccount
from sqlmodel import Session, SQLModel, create_engine

from chain import ledger
from chain.assignment import seed_commitment
from chain.bundle import Evidence, Run
from chain.contracts import Contract
from chain.epoch import FAST, Closed, Facts, Standing, close, preference_lines, snapshot_hash
from chain.evidence import check_evidence
from chain.indexer import index, snapshot_block
from chain.keys import address_of
from chain.messages import Domain
from chain.opening import Opening
from chain.publisher import Report
from chain.transactions import transact
from chain.types import ZERO_HASH, BlockRef, Epoch, Wei
from tests.integration.conftest import TOKEN, Chain
from tests.worlds import PEOPLE, evidence_of, first_standing


@dataclass
class Story:
    """An operator that closes epochs on a chain, and everything it published."""

    chain: Chain
    folder: Path
    standing: Standing
    preferences: list[bytes]
    after: int
    """Snapshot block of the last closed epoch."""
    evidence: dict[int, Evidence]
    people: int = 5
    openings: dict[int, Opening] = field(default_factory=dict)
    abandoned: set[int] = field(default_factory=set)
    """Epochs of which nothing can be revealed."""

    @property
    def distributor(self) -> Contract:
        return self.chain.deployment.revenue_distributor()

    def endow(self, people: int) -> None:
        """Give people gas and tokens, and let them stake, the first the most."""
        token = Contract("HapticToken", self.chain.deployment.token)
        for place, person in enumerate(PEOPLE[:people]):
            self.chain.rpc.request("anvil_setBalance", address_of(person), hex(10**18))
            amount = max(people - 1 - place, 1) * TOKEN
            self.chain.act(0, token, "transfer", address_of(person), 10 * amount)
            self.pay(person, token, "approve", self.chain.deployment.vault, 10 * amount)
            self.stake(person, amount)

    def stake(self, person: LocalAccount, amount: int) -> None:
        self.pay(person, self.chain.deployment.stake_vault(), "stake", amount)

    def pay(self, person: LocalAccount, contract: Contract, function: str, *args: Any) -> None:
        transact(self.chain.rpc, person, contract, function, *args)

    def open(self, epoch: int) -> None:
        """Commit to an epoch on the chain, before anybody is asked anything."""
        self.openings[epoch] = self.commitment(epoch)
        ledger = self.chain.deployment.ledger_contract()
        self.chain.act(0, ledger, "open", epoch, self.openings[epoch].arguments())

    def commitment(self, epoch: int) -> Opening:
        h = self._evidence(epoch, BlockRef(0, ZERO_HASH, ZERO_HASH, 0)).header
        hashes = seed_commitment(bytes.fromhex(h.seed[2:])), h.gold_root, h.rules.hash()
        return Opening(*hashes, h.lam)

    def anchor(self, epoch: int, closed: Closed) -> None:
        """Reveal an epoch's secrets on the chain, and anchor what came of it; or say that it is given up."""
        if epoch in self.abandoned:
            self.chain.act(0, self.chain.deployment.ledger_contract(), "abandon", epoch, closed.data_hash)
            return
        seed, opening = self.evidence[epoch].header.seed, self.openings[epoch].arguments()
        roots = closed.ledger_root, closed.data_hash
        self.chain.act(0, self.chain.deployment.ledger_contract(), "close", epoch, seed, opening, *roots)

    def close(self, epoch: int) -> tuple[Closed, Report]:
        """End an epoch, close it as the operator does, write its bundle and return what is to be posted."""
        d, rpc = self.chain.deployment, self.chain.rpc
        if rpc.block("latest").timestamp < d.epoch_end(epoch):
            self.chain.warp(d.epoch_end(epoch))
        self.chain.finalize()
        snapshot = snapshot_block(rpc, d.epoch_end(epoch))
        assert snapshot is not None
        found = self._evidence(epoch, snapshot)
        digests = check_evidence(found, Domain(d.chain_id, d.vault))
        facts = self._facts(epoch, snapshot)
        with (self.folder / f"epoch-{epoch}.jsonl").open("wb") as file:
            closed = close(found, facts, self.standing, FAST, digests, file.write)
        learned = preference_lines(found.tasks, closed.comparisons, closed.result, epoch)
        self.preferences.append(b"".join(learned))
        self.standing, self.after, self.evidence[epoch] = closed.standing, snapshot.number, found
        self.anchor(epoch, closed)
        self.open(epoch + 1)
        tree, hashes = closed.tree, (closed.data_hash, closed.ledger_root, found.header.rules.hash())
        return closed, Report(
            Epoch(epoch), tree.root_hash, Wei(tree.sum), tree.depth, *hashes, snapshot.number, snapshot.hash
        )

    def _evidence(self, epoch: int, snapshot: BlockRef) -> Evidence:
        d = self.chain.deployment
        learned = snapshot_hash(self.preferences[-1:])
        runs = [Run(epoch, Epoch(epoch - 1), Epoch(epoch - 1), learned)] if epoch else []
        domain = Domain(d.chain_id, d.vault)
        found = evidence_of(
            Random(epoch), self.standing, epoch=epoch, people=self.people, runs=runs, domain=domain
        )
        header = replace(
            found.header, chain_id=d.chain_id, vault=d.vault, distributor=d.distributor, genesis=d.genesis,
            length=d.epoch_length, snapshot_block=snapshot.number, snapshot_hash=snapshot.hash,
        )  # fmt: skip
        if epoch in self.abandoned:
            return Evidence(replace(header, seed=ZERO_HASH, gold_root=ZERO_HASH), {}, {}, (), (), tuple(runs))
        return replace(found, header=header)

    def _facts(self, epoch: int, snapshot: BlockRef) -> Facts:
        """Return what the operator's own index says."""
        d = self.chain.deployment
        end = d.epoch_end(epoch)
        engine = create_engine(f"sqlite:///{self.folder / 'ledger.db'}")
        SQLModel.metadata.create_all(engine)
        index(self.chain.rpc, lambda: Session(engine), d)
        with Session(engine) as session:
            changes = ledger.stake_changes(session, snapshot.number)
            income = ledger.fundings(session, self.after, snapshot.number)
        engine.dispose()
        return Facts.of(changes, income, end - d.epoch_length, end)[0]

    def post(self, report: Report) -> None:
        self.chain.act(0, self.distributor, "post", astuple(report))

    def veto(self) -> None:
        self.chain.act(1, self.distributor, "veto", self.chain.view(self.distributor, "pending")[1])

    def activate(self) -> None:
        self.chain.warp(self.chain.view(self.distributor, "pending")[-1])
        self.chain.act(3, self.distributor, "activate")


def begin(chain: Chain, folder: Path, people: int = 5, kind: type[Story] = Story) -> Story:
    told = kind(chain, folder, first_standing(), [], chain.deployment.from_block - 1, {}, people)
    told.open(0)
    return told
