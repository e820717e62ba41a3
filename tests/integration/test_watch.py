"""`haptic watch` on a real chain: a dishonest poster is stopped each time, an honest one never is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import typer
from eth_account import Account
from eth_account.signers.local import LocalAccount
from typer.testing import CliRunner, Result

from chain import watch as watching
from chain.attempts import PATIENCE
from chain.canonical import hash_of, text_hash
from chain.committer import epoch_record
from chain.contracts import Contract
from chain.deploy import deploy
from chain.deployment import write_deployment
from chain.devnet import Devnet, mine
from chain.errors import RevertError, VerifyError
from chain.fees import GWEI
from chain.hashing import keccak256
from chain.keys import address_of, devnet_accounts
from chain.lines import raw_lines, read_lines, to_bytes
from chain.publisher import Report
from chain.rpc import Rpc
from chain.served import Served, Source, published_leaves
from chain.tree import preimages
from chain.types import Hash32, Leaf, Wei
from chain.verify import bundle_source
from chain.watch import Verdict, Watcher
from service.cli import watch
from tests.integration.conftest import BOND, COOLDOWN_S, EPOCH_S, GENESIS, WINDOW_S, Chain, Liar
from tests.integration.story import Story
from tests.worlds import PEOPLE, first_standing

PASSWORD = "correct horse"
app = typer.Typer()
watch.register(app)
LAUNCH = "import typer; from service.cli import watch; app = typer.Typer(); watch.register(app); app()"


def _leaves(bundle: Path) -> list[Leaf]:
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
        t, active = self.told, _leaves(self._bundle)
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
        leaves = _leaves(self.folder / f"epoch-{report.epoch}.jsonl")
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


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Story, Report, dict[str, int]]]:
    accounts = devnet_accounts(31337)
    with Devnet(0, timestamp=GENESIS) as anvil, Rpc(anvil.url) as rpc:
        deployment = deploy(
            rpc, accounts[0], genesis=GENESIS, epoch_length=EPOCH_S, challenge_window=WINDOW_S, cooldown=COOLDOWN_S,
            bond=BOND, poster=address_of(accounts[0]), guardian=address_of(accounts[1]),
        )  # fmt: skip
        chain = Chain(rpc, anvil.url, deployment, accounts)
        chain.add_bond()
        folder = tmp_path_factory.mktemp("bundles")
        story = Story(chain, folder, first_standing(), [], deployment.from_block - 1, {})
        story.open(0)
        story.endow(len(PEOPLE[:5]))
        chain.fund(4, 0, 10_000)
        closed, report = story.close(0)
        story.post(report)
        story.activate()
        chain.fund(4, 0, 7_000)
        chain.fund(4, 1, 3_000)
        paid = {str(a): int(v) for a, v in closed.standing.cumulative.items()}
        _, report = story.close(1)
        yield story, report, paid


@pytest.fixture
def site(
    told: tuple[Story, Report, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    story, report, paid = told
    monkeypatch.chdir(tmp_path)
    for epoch in range(2):
        file = f"epoch-{epoch}.jsonl"
        (tmp_path / file).write_bytes((story.folder / file).read_bytes())
    leaves = tuple(_leaves(tmp_path / "epoch-1.jsonl"))
    state = story.chain.rpc.request("evm_snapshot")
    yield Site(story, report, leaves, paid, tmp_path)
    assert story.chain.rpc.request("evm_revert", state)


def _less(leaf: Leaf, by: int) -> Leaf:
    return replace(leaf, cumulative=Wei(leaf.cumulative - by))


def _old(site: Site) -> int:
    """Return the place of the first leaf whose account the active root pays already."""
    return next(i for i, x in enumerate(site.leaves) if x.account in site.paid)


def _dropping(site: Site) -> list[Leaf]:
    at = _old(site)
    gone, rest = site.leaves[at], [*site.leaves[:at], *site.leaves[at + 1 :]]
    rest[-1] = _less(rest[-1], -gone.cumulative)
    return rest


def _lowering(site: Site) -> list[Leaf]:
    at = _old(site)
    less = site.leaves[at].cumulative - site.paid[site.leaves[at].account] + 1
    changed = list(site.leaves)
    changed[at] = _less(changed[at], less)
    changed[at - 1] = _less(changed[at - 1], -less)
    return changed


def _duplicating(site: Site) -> list[Leaf]:
    one = site.leaves[0]
    return [_less(one, 5), replace(one, cumulative=Wei(5)), *site.leaves[1:]]


def _swapping(site: Site) -> list[Leaf]:
    return [site.leaves[1], site.leaves[0], *site.leaves[2:]]


def _misallocating(site: Site) -> list[Leaf]:
    """Give one unit of this epoch's revenue to somebody else, so that nobody has less than before."""
    at = max(
        range(len(site.leaves)),
        key=lambda i: site.leaves[i].cumulative - site.paid.get(site.leaves[i].account, 0),
    )
    changed = list(site.leaves)
    changed[at], changed[at - 1] = _less(changed[at], 1), _less(changed[at - 1], -1)
    return changed


def _same(site: Site) -> list[Leaf]:
    return list(site.leaves)


Dishonest = Callable[[Site], list[Leaf]]


@pytest.mark.parametrize(
    ("leaves", "changes", "match"),
    [
        (_dropping, {}, "is missing from the pending one"),
        (_lowering, {}, "DUSD in the pending one"),
        (_duplicating, {}, "stands in the pending root twice: with"),
        (_swapping, {}, "out of order"),
        (_same, {"sum": Wei(20_003)}, "root counts as 0.020003 DUSD, but what is below it adds up to 0.02 DUSD"),
        (_same, {"depth": 9}, "levels below the pending root|the pending root"),
    ],
    ids=["dropping", "lowering", "duplicating", "swapping", "over-promising", "too deep"],
)  # fmt: skip
def test_a_dishonest_poster_is_stopped_and_the_watcher_is_paid_the_bond(
    site: Site, leaves: Dishonest, changes: dict[str, Any], match: str
) -> None:
    site.chain.fund(4, 0, 5)
    report = site.post(leaves(site), **changes)
    me, key = site.wallet()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 0, said.output
    assert "CHALLENGED: epoch 1: " in said.output
    assert any(part in said.output for part in match.split("|"))
    assert f"Root {report.root} was challenged and is gone" in said.output
    assert "bond 1 ETH" in said.output
    assert site.pending[-1] == 0
    assert site.chain.rpc.balance(address_of(me)) > 10**18 + BOND - 10**15
    again = site.watch("--keyfile", key)
    assert (again.exit_code, "no root is pending" in again.output) == (0, True)


def test_more_than_was_ever_paid_in_cannot_be_promised_at_all(site: Site) -> None:
    funded = site.chain.view(site.distributor, "funded")
    with pytest.raises(RevertError, match=rf"{funded + 1}.*\(SumExceedsFunded\)"):
        site.post(site.leaves, sum=Wei(funded + 1))


@pytest.mark.parametrize("guardian", [False, True])
def test_an_honest_root_is_let_be(site: Site, *, guardian: bool) -> None:
    site.post(site.leaves)
    me, key = site.guardian() if guardian else site.wallet()
    before = site.chain.rpc.nonce(address_of(me))
    said = site.watch("--keyfile", key)
    assert said.exit_code == 0, said.output
    assert f"epoch 1: root {site.report.root} is right" in said.output
    assert site.chain.rpc.nonce(address_of(me)) == before
    site.told.activate()
    assert site.chain.view(site.distributor, "active")[0] == 2


def test_what_nobody_can_prove_is_an_alarm_and_the_guardian_vetoes_it(site: Site) -> None:
    report = site.post(_misallocating(site))
    me, key = site.wallet()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert "ALARM: epoch 1, leaf account 0x" in said.output
    guardian, guardians_key = site.guardian()
    assert f"only its guardian, {address_of(guardian)}, can veto. It can be activated in" in said.output
    assert site.chain.rpc.nonce(address_of(me)) == 0
    assert site.pending[1] == report.root
    said = site.watch("--keyfile", guardians_key)
    assert said.exit_code == 0, said.output
    assert "VETOED: epoch 1, leaf account 0x" in said.output
    assert site.pending[-1] == 0


def test_a_root_whose_data_is_withheld_is_an_alarm_and_the_guardian_vetoes_it(site: Site) -> None:
    site.post(site.leaves, root=text_hash("nobody knows"))
    _, key = site.wallet()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert f"ALARM: epoch 1, on the chain: root is {text_hash('nobody knows')}, recomputed" in said.output
    _, key = site.guardian()
    assert "VETOED" in site.watch("--keyfile", key).output
    assert site.pending[-1] == 0


def test_a_bad_mirror_is_an_alarm_and_does_not_cost_an_honest_root(site: Site) -> None:
    site.post(site.leaves)
    (site.folder / "epoch-1.jsonl").write_bytes(b"<html>502 Bad Gateway</html>")
    _, key = site.guardian()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert "ALARM: what is served as the bundle of epoch 1 has the hash 0x" in said.output
    assert site.pending[1] == site.report.root


@pytest.mark.parametrize("leaves", [_same, _dropping])
def test_a_bundle_that_cannot_be_read_is_an_alarm_and_nothing_is_sent(site: Site, leaves: Dishonest) -> None:
    site.post(leaves(site))
    guardian, key = site.guardian()
    before = site.chain.rpc.nonce(address_of(guardian))
    for bundle, match in (
        (site.folder / "away" / "epoch-1.jsonl", "No such file"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/v1/epochs/1/bundle cannot be read"),
    ):
        said = site.watch("--keyfile", key, bundle=bundle)
        assert said.exit_code == 1
        assert "ALARM: the bundle of epoch 1 cannot be read: " in said.output
        assert match in said.output
    assert site.chain.rpc.nonce(address_of(guardian)) == before


@pytest.mark.parametrize("place", [0, 1])
def test_where_an_earlier_epoch_cannot_be_checked_the_guardian_does_not_veto(site: Site, place: int) -> None:
    """A pending root that goes on from a wrong one is not wrong for that."""
    site.post(site.leaves)
    earlier = site.folder / "epoch-0.jsonl"
    if place:
        earlier.write_bytes(earlier.read_bytes().replace(b'"ranks":[1,', b'"ranks":[2,', 1))
    else:
        earlier.unlink()
    _, key = site.guardian()
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert (
        "what comes before it is wrong already: " if place else "the bundle of epoch 0 cannot be read"
    ) in said.output
    assert site.pending[1] == site.report.root


def test_an_honest_root_is_right_with_a_warning_while_an_older_bundle_is_withheld_that_was_read_before(
    site: Site,
) -> None:
    site.post(site.leaves)
    watcher = site.watcher(site.chain.accounts[1])
    assert (watcher.look().verdict, watcher.look().warning) == (Verdict.RIGHT, "")
    following = site.next()
    following.post(following.leaves)
    site.withhold(0)
    for _ in range(2):
        found = watcher.look()
        assert (found.verdict, found.is_well) == (Verdict.RIGHT, True)
        assert found.said == f"epoch 2: root {following.report.root} is right"
        assert "the bundle of epoch 0 cannot be read" in found.warning
        assert "nobody new can check it" in found.warning
    fresh = site.watcher(site.chain.accounts[5]).look()
    assert (fresh.verdict, "the bundle of epoch 0 cannot be read" in fresh.said) == (Verdict.ALARM, True)


def test_a_wrong_root_is_wrong_while_an_older_bundle_is_withheld_that_was_read_before(site: Site) -> None:
    site.post(site.leaves)
    watcher = site.watcher(site.chain.accounts[5])
    assert watcher.look().verdict is Verdict.RIGHT
    following = site.next()
    following.post(_misallocating(following))
    site.withhold(0)
    found = watcher.look()
    assert (found.verdict, "epoch 2, leaf account 0x" in found.said) == (Verdict.ALARM, True)


def test_what_was_right_before_it_was_posted_anew_is_not_gone_on_from(site: Site) -> None:
    """What a watcher remembers counts for exactly the reports that it saw; any other has to be shown to it."""
    site.post(site.leaves)
    watcher = site.watcher(site.chain.accounts[5])
    assert watcher.look().verdict is Verdict.RIGHT
    site.told.veto()
    site.post(site.leaves)
    following = site.next()
    following.post(following.leaves)
    site.withhold(0)
    found = watcher.look()
    assert (found.verdict, "the bundle of epoch 0 cannot be read" in found.said) == (Verdict.ALARM, True)


def test_without_the_bundle_before_a_fault_of_the_root_itself_is_still_challenged(site: Site) -> None:
    site.post(_duplicating(site))
    (site.folder / "epoch-0.jsonl").unlink()
    _, key = site.wallet()
    assert "CHALLENGED" in site.watch("--keyfile", key).output


def test_a_bundle_that_is_broken_otherwise_still_gives_the_leaves_that_condemn_it(site: Site) -> None:
    site.post(_lowering(site))
    bundle = site.folder / "epoch-1.jsonl"
    bundle.write_bytes(b'{"no": "bundle"}\n\xff"leaf"\n{"kind":"leaf"}\n["leaf"]\n' + bundle.read_bytes())
    _, key = site.wallet()
    assert "CHALLENGED" in site.watch("--keyfile", key).output


ROBBED = pytest.mark.parametrize("leaves", [_dropping, _lowering])


@ROBBED
def test_who_is_robbed_is_proven_robbed_though_the_older_bundle_is_withheld_after_one_look(
    site: Site, leaves: Dishonest
) -> None:
    me, _ = site.wallet()
    watcher = site.watcher(me)
    assert watcher.look().verdict is Verdict.IDLE
    site.withhold(0)
    site.post(leaves(site))
    assert watcher.look().verdict is Verdict.CHALLENGED
    assert site.pending[-1] == 0


@ROBBED
def test_what_one_process_learned_the_next_one_knows(site: Site, leaves: Dishonest) -> None:
    _, key = site.wallet()
    site.watch()
    assert [f.suffix for f in Path(".haptic/watch").iterdir()] == [".jsonl"]
    site.withhold(0)
    site.post(leaves(site))
    assert "ALARM" in site.watch("--keyfile", key, "--memory", "elsewhere").output
    assert "CHALLENGED" in site.watch("--keyfile", key).output


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("before", "verdict"), [(_same, Verdict.RIGHT), (_misallocating, Verdict.ALARM)], ids=["right", "wrong"]
)
def test_a_tree_that_was_read_while_it_waited_is_known_when_it_pays(
    site: Site, before: Dishonest, verdict: Verdict, *, restarted: bool
) -> None:
    me, _ = site.wallet()
    memory = site.folder / "memory" if restarted else None
    watcher = site.watcher(me, memory=memory)
    site.post(before(site))
    assert watcher.look().verdict is verdict
    after = site.next()
    site.withhold(1)
    after.post(_dropping(after))
    if restarted:
        watcher = site.watcher(me, memory=memory)
    found = watcher.look()
    if "pays now, though it was never found right" in found.said:
        found = watcher.look()
    assert found.verdict is Verdict.CHALLENGED


def test_rejected_roots_do_not_drive_out_the_tree_that_pays(site: Site) -> None:
    me, _ = site.wallet()
    memory = site.folder / "memory"
    watcher = site.watcher(me, memory=memory)
    assert watcher.look().verdict is Verdict.IDLE
    site.withhold(0)
    for leaves in (_swapping, _duplicating, _dropping, _lowering):
        site.post(leaves(site))
        assert watcher.look().verdict is Verdict.CHALLENGED
        assert len(list(memory.iterdir())) == 2
        site.chain.add_bond()
    site.post(_lowering(site))
    assert site.watcher(me, memory=memory).look().verdict is Verdict.CHALLENGED


def test_the_active_tree_is_tried_until_it_is_learned_and_asked_for_no_more(site: Site) -> None:
    asked: list[int] = []
    there = bundle_source(str(site.folder))
    serve: list[Source] = [
        bundle_source("http://127.0.0.1:9"),
        lambda _: BytesIO(b"not a leaf"),
        there,
    ]

    def source(epoch: int) -> Served:
        asked.append(epoch)
        return serve[min(len(asked), len(serve)) - 1](epoch)

    watcher = site.watcher(source=source)
    found = [watcher.look() for _ in range(5)]
    assert [x.verdict for x in found] == [Verdict.IDLE] * 5
    assert "the bundle of epoch 0 cannot be read: http://127.0.0.1:9/v1/epochs/0/bundle" in found[0].warning
    assert (
        "what is served as the bundle of epoch 0 has other leaves than the root that pays" in found[1].warning
    )
    assert [(x.said, x.warning) for x in found] == [
        ("no root is pending", w) for w in (found[0].warning, found[1].warning, "", "", "")
    ]
    assert asked == [0, 0, 0]


def test_a_dead_bundle_source_is_said_though_nothing_is_pending(site: Site) -> None:
    said = site.watch(bundle="http://127.0.0.1:9")
    assert said.exit_code == 0
    assert "no root is pending. WARNING: the active tree, which the next root is held against" in said.output
    assert "could not be read: the bundle of epoch 0 cannot be read: http://127.0.0.1:9/v1/" in said.output
    site.watch()
    said = site.watch(bundle="http://127.0.0.1:9")
    assert (said.exit_code, "could not be read" in said.output) == (0, False)


def _raise_a_leaf(_: Site, lines: list[bytes]) -> bytes:
    line = json.loads(lines[1])
    line["cumulative"] = str(int(line["cumulative"]) + 10**9)
    return b"\n".join([lines[0], json.dumps(line).encode(), *lines[2:]])


def _swap_trees(site: Site, lines: list[bytes]) -> bytes:
    """Put another tree there that is one, with more for everybody than the pending one has."""
    leaves = [replace(x, cumulative=Wei(2 * x.cumulative)) for x in site.leaves]
    depth = (len(leaves) - 1).bit_length()
    root = "0x" + keccak256(preimages(leaves, depth)[-1]).hex()
    header = json.loads(lines[0]) | {
        "root": root,
        "sum": str(sum(x.cumulative for x in leaves)),
        "depth": depth,
    }
    told = [header, *({"account": x.account, "cumulative": str(x.cumulative)} for x in leaves)]
    return b"".join(json.dumps(x).encode() + b"\n" for x in told)


@pytest.mark.parametrize("tamper", [_raise_a_leaf, _swap_trees, lambda _, lines: b"\n".join(lines[:-1])])
def test_a_memory_that_was_tampered_with_proves_nothing_and_harms_nothing(
    site: Site, tamper: Callable[[Site, list[bytes]], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    me, _ = site.wallet()
    memory = site.folder / "memory"
    assert site.watcher(memory=memory).look().verdict is Verdict.IDLE
    (file,) = memory.iterdir()
    tampered = tamper(site, file.read_bytes().splitlines())
    file.write_bytes(tampered)
    site.post(site.leaves)
    assert site.watcher(me, memory=memory).look().verdict is Verdict.RIGHT
    assert f"{file} is ignored: it has other leaves than the root that pays" in caplog.text
    assert file.read_bytes() != tampered
    assert "refuse" not in caplog.text
    site.told.veto()
    file.write_bytes(tampered)
    site.post(_lowering(site))
    assert site.watcher(me, memory=memory).look().verdict is Verdict.CHALLENGED


def test_a_folder_that_cannot_be_written_is_said_once_and_the_watch_goes_on(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    (site.folder / "file").touch()
    me, _ = site.wallet()
    watcher = site.watcher(me, memory=site.folder / "file" / "memory")
    assert watcher.look().verdict is Verdict.IDLE
    site.withhold(0)
    site.post(_lowering(site))
    assert watcher.look().verdict is Verdict.CHALLENGED
    assert caplog.text.count("file/memory should keep is not written (Not a directory)") == 1


def test_while_claims_are_paused_wrong_roots_fall_all_the_same(site: Site) -> None:
    site.chain.act(1, site.distributor, "pause")
    site.post(_lowering(site))
    _, key = site.wallet()
    assert "CHALLENGED" in site.watch("--keyfile", key).output


def test_a_dry_run_says_what_would_be_sent_and_what_it_costs(site: Site) -> None:
    report = site.post(_dropping(site))
    _, key = site.wallet()
    before = site.chain.rpc.block("latest")
    said = site.watch("--keyfile", key, "--dry-run")
    assert said.exit_code == 1
    assert "PLANNED: epoch 1: 0x" in said.output
    assert "Nothing was sent; challengeMissing would stop it. Gas would be 0.00" in said.output
    assert "at most, bond would be 1 ETH" in said.output
    assert "It can be activated in" in said.output
    said = site.watch()
    assert said.exit_code == 1
    assert (
        "The bond is 1 ETH. Whoever proves it with a key of their own (--keyfile) is paid it" in said.output
    )
    assert site.chain.rpc.block("latest") == before
    assert site.pending[1] == report.root


def test_the_guardians_dry_run_vetoes_nothing(site: Site) -> None:
    report = site.post(_misallocating(site))
    _, key = site.guardian()
    said = site.watch("--keyfile", key, "--dry-run")
    assert (said.exit_code, "Nothing was sent; veto would stop it" in said.output) == (1, True)
    assert site.pending[1] == report.root


def test_a_watcher_who_cannot_pay_the_gas_is_told_how_much_is_missing(site: Site) -> None:
    site.post(_dropping(site))
    me, key = site.wallet(balance=5)
    said = site.watch("--keyfile", key)
    assert said.exit_code == 1
    assert f"ALARM: {address_of(me)} has 0.000000000000000005 ETH (5 wei), but its transaction" in said.output


def test_a_dry_run_of_a_watcher_who_cannot_pay_says_so_beside_what_it_found(site: Site) -> None:
    site.post(_dropping(site))
    _, key = site.wallet(balance=5)
    said = site.watch("--keyfile", key, "--dry-run")
    assert said.exit_code == 1
    assert "PLANNED: epoch 1: 0x" in said.output
    assert "Gas would be 0.00" in said.output
    assert re.search(r"The account cannot pay for it: 0\.00\d+ ETH are missing", said.output)


def test_a_challenge_that_fees_overtake_is_replaced_in_time(site: Site) -> None:
    """A challenge that stays in the pool loses its window, and the bond with it."""
    site.post(_dropping(site))
    me, _ = site.wallet(balance=10**20)
    rpc = site.chain.rpc
    rpc.request("evm_setAutomine", False)  # noqa: FBT003  (Anvil takes it by position)
    with ThreadPoolExecutor(1) as pool:
        try:
            coming = pool.submit(site.watcher(me).look)
            first = _pooled(rpc, address_of(me), 0)
            for _ in range(PATIENCE):
                rpc.request("anvil_setNextBlockBaseFeePerGas", hex(100 * GWEI))
                mine(rpc)
            dearer = _pooled(rpc, address_of(me), 100 * GWEI)
            assert (dearer["nonce"], dearer["input"]) == (first["nonce"], first["input"])
            mine(rpc)
            found = coming.result(20)
        finally:
            rpc.request("evm_setAutomine", True)  # noqa: FBT003
            # Anvil goes on from here even after the chain is set back for the next test.
            rpc.request("anvil_setNextBlockBaseFeePerGas", "0x1")
            mine(rpc)
    assert (found.verdict, found.transaction) == (Verdict.CHALLENGED, dearer["hash"])
    assert site.pending[-1] == 0


def _pooled(rpc: Rpc, who: str, least: int) -> dict[str, Any]:
    """Wait until somebody's one transaction in the pool offers so much per gas, and return it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for sender, held in rpc.request("txpool_content")["pending"].items():
            for each in held.values():
                if sender.lower() == who and int(each["maxFeePerGas"], 16) >= least:
                    return dict(each)
        time.sleep(0.02)
    raise AssertionError(f"{who} did not send or replace it")


def test_who_looks_more_rarely_than_roots_wait_is_told_so(site: Site) -> None:
    said = CliRunner().invoke(app, [*site.options(), "--interval", str(WINDOW_S)])
    assert "a look every 60 s may miss a root, which waits for 60 s: give an --interval of at most 15" in str(
        said.exception
    )


def test_somebody_who_is_faster_is_no_error(site: Site) -> None:
    site.post(_dropping(site))
    read, rival = bundle_source(str(site.folder)), site.watcher(site.chain.accounts[5])

    def late(epoch: int) -> Served:
        if site.pending[-1]:
            assert rival.look().verdict is Verdict.CHALLENGED
        return read(epoch)

    me, _ = site.wallet()
    found = site.watcher(me, late).look()
    assert (found.verdict, found.is_well) == (Verdict.GONE, True)
    assert site.chain.rpc.nonce(address_of(me)) == 0


def test_a_root_is_recomputed_once_and_anew_when_it_is_posted_again(site: Site) -> None:
    site.post(site.leaves)
    read, asked = bundle_source(str(site.folder)), []

    def counted(epoch: int) -> Served:
        asked.append(epoch)
        return read(epoch)

    watcher = site.watcher(site.chain.accounts[5], counted)
    assert [watcher.look().verdict for _ in range(3)] == [Verdict.RIGHT] * 3
    assert asked.count(1) == 1
    site.told.veto()
    assert watcher.look().verdict is Verdict.IDLE
    site.told.post(site.report)
    assert watcher.look().verdict is Verdict.RIGHT
    assert asked.count(1) == 2
    site.told.veto()
    site.post(_misallocating(site))
    assert watcher.look().verdict is Verdict.ALARM


def test_a_root_that_nobody_stopped_in_time_is_cried_out_once_more(site: Site) -> None:
    report = site.post(_misallocating(site))
    watcher = site.watcher()
    assert watcher.look().verdict is Verdict.ALARM
    assert watcher.look().verdict is Verdict.ALARM
    site.told.activate()
    found = watcher.look()
    assert found.verdict is Verdict.ALARM
    assert f"epoch 1: root {report.root} pays now, though it was never found right" in found.said
    assert watcher.look().verdict is Verdict.IDLE


def test_the_guardian_does_not_veto_what_is_wrong_only_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that lags for a moment must not cost an honest root."""
    site.post(site.leaves)
    true, asked = watching.verify, []

    def lagging(rpc: Any, deployment: Any, bundles: Any, epoch: int, **more: Any) -> Any:
        asked.append(bundles(epoch))
        if len(asked) == 1:
            raise VerifyError("epoch 1: what a lagging node said")
        return true(rpc, deployment, bundles, epoch, **more)

    monkeypatch.setattr(watching, "verify", lagging)
    watcher = site.watcher(site.chain.accounts[1])
    found = watcher.look()
    assert (found.verdict, "recomputed twice, gave two results" in found.said) == (Verdict.ALARM, True)
    assert watcher.look().verdict is Verdict.RIGHT
    assert site.pending[1] == site.report.root


def test_a_mirror_that_lags_for_a_moment_does_not_cost_an_honest_root(site: Site) -> None:
    """A mirror that lags for a moment must not cost an honest root."""
    site.post(site.leaves)
    read, asked = bundle_source(str(site.folder)), []

    def lagging(epoch: int) -> Served:
        asked.append(epoch)
        with read(epoch) as file:
            data = file.read()
        return BytesIO(data.replace(b'"kind":"share"', b'"kind":"shore"') if len(asked) == 1 else data)

    watcher = site.watcher(site.chain.accounts[1], lagging)
    found = watcher.look()
    assert (found.verdict, "what is served as the bundle" in found.said) == (Verdict.ALARM, True)
    assert watcher.look().verdict is Verdict.RIGHT
    assert site.pending[1] == site.report.root


def test_a_node_that_is_down_is_an_alarm_and_the_watch_goes_on(site: Site) -> None:
    with Rpc("http://127.0.0.1:9", retries=0) as dead:
        watcher = Watcher(dead, site.chain.deployment, bundle_source(str(site.folder)))
        found = watcher.look()
        assert (found.verdict, "does not answer" in found.said) == (Verdict.ALARM, True)
        watcher.rpc = site.chain.rpc
        assert watcher.look().verdict is Verdict.IDLE


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("_move_logs", "the node sent a log of 0xaa"),
        (
            "_hide_fundings",
            "all revenue so far is 0 by events, 10 in the contract: the node hides or invents some",
        ),
        ("_hide_posts", "no epoch has been posted to this distributor yet"),
    ],
)
def test_what_a_node_invents_or_hides_is_not_held_against_the_root(
    deployed: Chain, liar: Liar, tmp_path: Path, lie: str, words: str
) -> None:
    deployed.fund(4, 0, 10)
    told = Story(deployed, tmp_path, first_standing(), [], deployed.deployment.from_block - 1, {}, 0)
    told.open(0)
    _, report = told.close(0)
    told.post(report)
    with Rpc(liar.url, retries=0) as rpc:
        for account in (deployed.accounts[1], deployed.accounts[5]):
            source = bundle_source(str(tmp_path))
            watcher = Watcher(rpc, deployed.deployment, source, address_of(account), account)
            liar.lie = globals()[lie]
            found = watcher.look()
            assert found.verdict is Verdict.ALARM
            assert words in found.said
            assert "veto" not in found.said
            liar.lie = lambda _calls, _answers: None
            assert watcher.look().verdict is Verdict.RIGHT


def _move_logs(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getLogs":
            answer["result"][0]["address"] = "0x" + 40 * "a"


def _hide_fundings(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getLogs":
            answer["result"] = [x for x in answer["result"] if len(x["data"]) != 2 + 2 * 64]


def _hide_posts(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getLogs":
            answer["result"] = [x for x in answer["result"] if len(x["data"]) != 2 + 8 * 64]


def test_a_recomputation_that_breaks_down_is_an_alarm_and_not_the_end_of_the_watch(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.post(site.leaves)

    def broken(*_: object, **_more: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(watching, "verify", broken)
    found = site.watcher(site.chain.accounts[1]).look()
    assert found.verdict is Verdict.ALARM
    assert found.said.endswith("the recomputation failed (ZeroDivisionError: nobody thought of this)")
    assert site.pending[1] == site.report.root


def test_one_watcher_follows_honest_and_dishonest_roots_until_it_is_ended(site: Site) -> None:
    me, key = site.wallet()
    command = [sys.executable, "-c", LAUNCH, *site.options(), "--keyfile", str(key), "--interval", "1"]
    log = site.folder / "said"
    environ = os.environ | {"HAPTIC_PASSWORD": PASSWORD}
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said, env=environ) as process:

        def until(text: str, times: int = 1) -> None:
            deadline = time.monotonic() + 30
            while log.read_text().count(text) < times:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)

        try:
            until("no root is pending")
            site.post(_dropping(site))
            until("CHALLENGED: epoch 1: 0x")
            site.chain.add_bond()
            site.post(_misallocating(site))
            until("ALARM: epoch 1, ", times=2)
            site.told.veto()
            site.post(_duplicating(site))
            until("twice")
            site.chain.add_bond()
            site.post(site.leaves)
            until(f"epoch 1: root {site.report.root} is right")
            time.sleep(1.5)
        finally:
            process.send_signal(signal.SIGINT)
        process.wait(10)
    assert site.pending[1] == site.report.root
    assert site.chain.rpc.balance(address_of(me)) > 10**18 + 2 * BOND - 10**16
    assert log.read_text().count(f"epoch 1: root {site.report.root} is right") == 1
