"""An operator whose roots are watched, and the ways in which it can be dishonest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer
from eth_account import Account
from eth_account.signers.local import LocalAccount
from typer.testing import CliRunner, Result

from chain.canonical import hash_of
from chain.committer import epoch_record
from chain.contracts import Contract
from chain.deployment import write_deployment
from chain.hashing import keccak256
from chain.keys import address_of
from chain.lines import raw_lines, read_lines, to_bytes
from chain.publisher import Report
from chain.served import published_leaves
from chain.tree import preimages
from chain.types import Hash32, Leaf, Wei
from chain.verify import bundle_source
from chain.watch import Watcher
from service.cli import watch
from tests.integration.conftest import Chain
from tests.integration.story import Story

PASSWORD = "correct horse"
app = typer.Typer()
watch.register(app)


def leaves_of(bundle: Path) -> list[Leaf]:
    with bundle.open("rb") as file:
        return published_leaves(file)


@dataclass
class Site:
    """An operator with one active epoch and one closed one, and what watchers need to know of it."""

    told: Story
    report: Report
    """The honest report of epoch 1, which is not posted yet."""
    leaves: tuple[Leaf, ...]
    """Its leaves."""
    paid: dict[str, int]
    """What everybody had in the active root."""
    folder: Path
    """Of a test: bundles and wallets."""

    @property
    def chain(self) -> Chain:
        return self.told.chain

    @property
    def distributor(self) -> Contract:
        return self.told.distributor

    def post(self, leaves: Sequence[Leaf], **changes: Any) -> Report:
        """Publish a bundle with these leaves, anchor it, and post their root, or what `changes` make of it."""
        with self._bundle.open("rb") as file:
            lines = [x for x in read_lines(raw_lines(file)) if x["kind"] != "leaf"]
        lines += [{"kind": "leaf", "account": x.account, "cumulative": str(x.cumulative)} for x in leaves]
        data = to_bytes(lines)
        self._bundle.write_bytes(data)
        depth = (len(leaves) - 1).bit_length()
        root = Hash32("0x" + keccak256(preimages(leaves, depth)[-1]).hex())
        total = Wei(sum(x.cumulative for x in leaves))
        made = replace(self.report, root=root, sum=total, depth=depth, data_hash=hash_of(data))
        report = replace(made, **changes)
        epoch = report.epoch
        if epoch_record(self.chain.rpc, self.chain.deployment, epoch).data_hash != report.data_hash:
            self.chain.act(0, self.chain.deployment.ledger_contract(), "amend", epoch, report.data_hash)
        self.told.post(report)
        return report

    @property
    def _bundle(self) -> Path:
        return self.folder / f"epoch-{self.report.epoch}.jsonl"

    def withhold(self, epoch: int) -> None:
        """Serve this bundle no more."""
        (self.folder / f"epoch-{epoch}.jsonl").unlink()

    def next(self) -> Site:
        """Let the pending root become active, close the epoch after it, and return what is to be posted then."""
        self.told.activate()
        t, active = self.told, leaves_of(self._bundle)
        # What is told here is undone on the chain when the test ends.
        told = replace(
            t,
            folder=self.folder,
            preferences=[*t.preferences],
            evidence={**t.evidence},
            openings={**t.openings},
        )
        self.chain.fund(4, 1, 2_000)
        _, report = told.close(self.report.epoch + 1)
        leaves = leaves_of(self.folder / f"epoch-{report.epoch}.jsonl")
        return Site(told, report, tuple(leaves), {x.account: x.cumulative for x in active}, self.folder)

    @property
    def pending(self) -> Any:
        return self.chain.view(self.distributor, "pending")

    def wallet(
        self, account: LocalAccount | None = None, *, balance: int = 10**18
    ) -> tuple[LocalAccount, Path]:
        """Return somebody with a wallet file, of their own or of the account."""
        made: LocalAccount = account or Account.from_key(keccak256(b"watcher"))
        path = self.folder / f"{made.address}.json"
        text = json.dumps(Account.encrypt(made.key, PASSWORD, kdf="scrypt", iterations=2))
        path.write_text(text)
        if account is None:
            self.chain.rpc.request("anvil_setBalance", made.address, hex(balance))
        return made, path

    def guardian(self) -> tuple[LocalAccount, Path]:
        return self.wallet(self.chain.accounts[1])

    def options(self, bundle: object = None) -> list[str]:
        file = self.folder / "deployment.json"
        write_deployment(file, self.chain.deployment)
        return ["--rpc", self.chain.url, "--deployment", str(file), "--bundle", str(bundle or self.folder)]

    def watch(self, *arguments: object, bundle: object = None) -> Result:
        """Run `haptic watch --once`."""
        given = [*self.options(bundle), "--once", *(str(a) for a in arguments)]
        return CliRunner().invoke(app, given, env={"HAPTIC_PASSWORD": PASSWORD}, catch_exceptions=False)

    def watcher(
        self, account: LocalAccount | None = None, source: Any = None, memory: Path | None = None
    ) -> Watcher:
        sender = address_of(account) if account else None
        given = source or bundle_source(str(self.folder))
        return Watcher(self.chain.rpc, self.chain.deployment, given, sender, account, memory=memory)


def lessened(leaf: Leaf, by: int) -> Leaf:
    return replace(leaf, cumulative=Wei(leaf.cumulative - by))


def _old(site: Site) -> int:
    """Return the place of the first leaf whose account the active root pays already."""
    return next(i for i, x in enumerate(site.leaves) if x.account in site.paid)


def dropping(site: Site) -> list[Leaf]:
    at = _old(site)
    gone, rest = site.leaves[at], [*site.leaves[:at], *site.leaves[at + 1 :]]
    rest[-1] = lessened(rest[-1], -gone.cumulative)
    return rest


def lowering(site: Site) -> list[Leaf]:
    at = _old(site)
    less = site.leaves[at].cumulative - site.paid[site.leaves[at].account] + 1
    changed = list(site.leaves)
    changed[at] = lessened(changed[at], less)
    changed[at - 1] = lessened(changed[at - 1], -less)
    return changed


def duplicating(site: Site) -> list[Leaf]:
    one = site.leaves[0]
    return [lessened(one, 5), replace(one, cumulative=Wei(5)), *site.leaves[1:]]


def swapping(site: Site) -> list[Leaf]:
    return [site.leaves[1], site.leaves[0], *site.leaves[2:]]


def misallocating(site: Site) -> list[Leaf]:
    """Give one unit of this epoch's revenue to somebody else, so that nobody has less than before."""
    at = max(
        range(len(site.leaves)),
        key=lambda i: site.leaves[i].cumulative - site.paid.get(site.leaves[i].account, 0),
    )
    changed = list(site.leaves)
    changed[at], changed[at - 1] = lessened(changed[at], 1), lessened(changed[at - 1], -1)
    return changed


def unchanged(site: Site) -> list[Leaf]:
    return list(site.leaves)


Dishonest = Callable[[Site], list[Leaf]]
