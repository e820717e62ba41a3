"""A stranger recomputes three epochs from a real chain and the bundles; whatever is altered is named."""

from __future__ import annotations

import contextlib
import http.server
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chain.canonical import hash_of, text_hash
from chain.deploy import deploy
from chain.deployment import write_deployment
from chain.devnet import Devnet
from chain.errors import BundleError, ChainError, DeploymentError, RpcError, VerifyError
from chain.feedback import Task, summary_of
from chain.keys import address_of, devnet_accounts
from chain.lines import Line, raw_lines, read_lines, to_bytes
from chain.messages import Domain
from chain.publisher import Report
from chain.rpc import Rpc
from chain.types import ZERO_HASH, Epoch, Hash32, Wei
from chain.verify import NothingPostedError, bundle_source, verify, verify_at
from tests.integration.conftest import BOND, COOLDOWN_S, EPOCH_S, GENESIS, TOKEN, WINDOW_S, Chain, Liar
from tests.integration.story import Story, begin
from tests.worlds import PEOPLE

STRANGE_RUN = 2**64 - 1


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Tell three epochs: the second is vetoed once and posted again, the third waits in its window."""
    accounts = devnet_accounts(31337)
    with Devnet(0, timestamp=GENESIS) as anvil, Rpc(anvil.url) as rpc:
        deployment = deploy(
            rpc, accounts[0], genesis=GENESIS, epoch_length=EPOCH_S, challenge_window=WINDOW_S,
            cooldown=COOLDOWN_S, bond=BOND, poster=address_of(accounts[0]), guardian=address_of(accounts[1]),
        )  # fmt: skip
        chain = Chain(rpc, anvil.url, deployment, accounts)
        chain.add_bond()
        told = begin(chain, tmp_path_factory.mktemp("bundles"))
        told.endow(5)
        told.chain.fund(4, 0, 1000)
        told.chain.fund(5, 1, 501)
        _, report = told.close(0)
        told.post(report)
        told.activate()

        told.chain.fund(4, 1, 300)
        told.chain.fund(4, 0, 7)
        told.stake(PEOPLE[2], TOKEN)
        told.pay(PEOPLE[0], deployment.stake_vault(), "requestUnstake", TOKEN)
        _, report = told.close(1)
        told.pay(PEOPLE[4], deployment.stake_vault(), "requestUnstake", TOKEN)
        told.post(replace(report, root=text_hash("a mistake")))
        told.veto()
        told.post(report)
        told.activate()

        told.chain.fund(4, 2, 77)
        told.chain.fund(4, STRANGE_RUN, 5)
        _, report = told.close(2)
        told.post(report)
        yield told


@pytest.fixture
def copy(story: Story, tmp_path: Path) -> Path:
    """Return a folder of its own with the bundles."""
    for epoch in range(3):
        (tmp_path / f"epoch-{epoch}.jsonl").write_bytes((story.folder / f"epoch-{epoch}.jsonl").read_bytes())
    return tmp_path


@pytest.fixture
def undo(story: Story) -> Iterator[None]:
    """Put the chain back after the test."""
    state = story.chain.rpc.request("evm_snapshot")
    yield
    assert story.chain.rpc.request("evm_revert", state)


def _verify(story: Story, folder: Path, until: int | None = None) -> list[Any]:
    return verify(story.chain.rpc, story.chain.deployment, bundle_source(str(folder)), until)


def _lines(folder: Path, epoch: int) -> list[Line]:
    with (folder / f"epoch-{epoch}.jsonl").open("rb") as file:
        return list(read_lines(raw_lines(file)))


def _rewrite(folder: Path, epoch: int, lines: list[Line]) -> None:
    (folder / f"epoch-{epoch}.jsonl").write_bytes(to_bytes(lines))


def test_what_was_published_is_found_as_posted(story: Story) -> None:
    said: list[tuple[str, float]] = []
    found = verify(
        story.chain.rpc,
        story.chain.deployment,
        bundle_source(str(story.folder)),
        progress=lambda what, part: said.append((what, part)),
    )
    assert [(v.epoch, v.active) for v in found] == [(0, True), (1, True), (2, False)]
    assert [v.rankings for v in found] == [len(story.evidence[e].rankings) for e in range(3)]
    assert [v.wallets for v in found] == [
        len({r.ranking.wallet for r in story.evidence[e].rankings}) for e in range(3)
    ]
    assert all(v.rankings > 5 for v in found)
    for v, kinds in zip(
        found, (Counter(x["kind"] for x in _lines(story.folder, e)) for e in range(3)), strict=True
    ):
        c = v.checked
        assert (c.tasks, c.gold, c.handouts) == (kinds["task"], kinds["gold"], kinds["handout"])
        assert (c.skips, c.signatures) == (kinds["skip"], kinds["session"] + kinds["ranking"])
        assert c.contract_signatures == 0
        assert c.sealed is not None
        assert c.sealed.first_handout == story.evidence[v.epoch].handouts[0].at >= c.sealed.opened_at > 0
        assert c.sealed.data_hash == hash_of((story.folder / f"epoch-{v.epoch}.jsonl").read_bytes())
    assert [v.sum for v in found] == [1000, 1808, 1885]
    assert [v.carried for v in found] == [501, 0, 5]
    assert found[2].paid_to == len([x for x in _lines(story.folder, 2) if x["kind"] == "leaf"])
    assert [part for _, part in said] == sorted(part for _, part in said)
    assert 0 <= said[0][1] < said[-1][1] < 1
    assert said[-1][0] == "epoch 2: recomputing scores and payouts"
    assert dict(story.standing.carried) == {STRANGE_RUN: 5}


def test_an_earlier_epoch_can_be_the_last(story: Story) -> None:
    assert [v.epoch for v in _verify(story, story.folder, 1)] == [0, 1]


def test_an_epoch_that_was_not_posted_cannot_be_verified(story: Story) -> None:
    with pytest.raises(VerifyError, match="epoch 3 has no report on the chain; the last posted one is 2"):
        _verify(story, story.folder, 3)


def _more(name: str, by: int = 1) -> Callable[[Line], None]:
    def change(line: Line) -> None:
        line[name] = str(int(line[name]) + by) if isinstance(line[name], str) else line[name] + by

    return change


def _set(**values: Any) -> Callable[[Line], None]:
    return lambda line: line.update(values)


def _other_order(line: Line) -> None:
    ranking = line["ranking"]
    k = len(ranking["ranks"])
    ranking["ranks"] = next(r for r in ([1, *range(2, k + 1)], [k, *range(1, k)]) if r != ranking["ranks"])
    ranking["summary"] = summary_of(ranking["ranks"])


ADDRESS = "0x[0-9a-f]{40}"


@pytest.mark.parametrize(
    ("epoch", "kind", "change", "match"),
    [
        (1, "share", _more("amount"), rf"epoch 1, share run 0 wallet {ADDRESS}: amount is \d+, recomputed"),
        (2, "leaf", _more("cumulative", -1), rf"epoch 2, leaf account {ADDRESS}: cumulative is \d+"),
        (0, "wallet", _more("score"), rf"epoch 0, wallet {ADDRESS}: score is \d+, recomputed \d+"),
        (0, "wallet", _more("stakeEnd"), rf"epoch 0, wallet {ADDRESS}: stakeEnd is"),
        (1, "wallet", _more("payG"), rf"epoch 1, wallet {ADDRESS}: payG is"),
        (1, "pool", _more("funded"), "epoch 1, pool run 0: funded is 8, recomputed 7"),
        (2, "pool", _more("carriedOut"), "epoch 2, pool run 2: carriedOut is 1, recomputed 0"),
        (1, "pair", _more("logOdds"), "epoch 1, pair task 0x.*: logOdds is"),
        (1, "pair", _more("bucket"), "epoch 1, pair task 0x.*: bucket is"),
        (1, "run", _set(snapshot=ZERO_HASH), f"epoch 1, run 1: snapshot is {ZERO_HASH}, expected 0x"),
        (1, "run", _set(last=1), "epoch 1, run 1: epochs 0 to 1 are not closed ones"),
        (1, "run", _set(run="0"), "epoch 1, run 0: it does not follow the runs"),
        (2, "run", _set(run="1"), "epoch 2, run 1: it does not follow the runs"),
        (2, "run", _set(first=0), "epoch 2, run 2: it does not follow the runs before it"),
        (2, "run", _set(run="3"), "epoch 2, run 3: it does not follow the runs before it"),
        (2, "epoch", _set(**{"lambda": ["1", "3"]}), r"epoch 2, epoch line: lambda is 1/3, expected"),
        (1, "epoch", _set(seed=ZERO_HASH), "epoch 1, epoch line: goldRoot is"),
        (1, "epoch", _set(goldRoot=ZERO_HASH), "epoch 1, epoch line: goldRoot is"),
        (1, "epoch", _set(previous=ZERO_HASH), "epoch 1, epoch line: previous is"),
        (1, "epoch", _set(chainId=1), "epoch 1, epoch line: chainId is 1, expected 31337"),
        (1, "epoch", _set(epoch=2), "epoch 1, epoch line: epoch is 2, expected 1"),
        (1, "epoch", _set(vault="0x" + "0" * 40), "epoch 1, epoch line: vault is"),
        (1, "epoch", _set(distributor="0x" + "0" * 40), "epoch 1, epoch line: distributor is"),
        (1, "epoch", _more("genesis"), "epoch 1, epoch line: genesis is"),
        (1, "epoch", _more("length"), "epoch 1, epoch line: length is"),
        (1, "epoch", _more("snapshotBlock"), "epoch 1, epoch line: snapshotBlock is"),
        (1, "epoch", _set(snapshotHash=ZERO_HASH), "epoch 1, epoch line: snapshotHash is"),
        (1, "gold", lambda line: line["ranks"].reverse(), "epoch 1, epoch line: goldRoot is"),
        (1, "gold", _set(salt=ZERO_HASH), "epoch 1, epoch line: goldRoot is"),
        (1, "task", _set(prompt="another"), r"bundle of epoch 1, line 2 \(task\): task 0x.* hash to"),
        (1, "task", _set(author="0x" + "1" * 40), r"bundle of epoch 1, line 2 \(task\): task 0x.* hash to"),
        (1, "task", _set(salt=ZERO_HASH), r"bundle of epoch 1, line 2 \(task\): task 0x.* hash to"),
        (1, "handout", _set(task=ZERO_HASH), f"epoch 1, hand-out 0 of {ADDRESS}: it gave {ZERO_HASH}, the rule"),
        (1, "handout", _set(wallet="0x" + "1" * 40), "epoch 1, hand-out 0 of 0x1+: it gave|was not handed"),
        (1, "handout", _more("at", -700), f"epoch 1, hand-out 0 of {ADDRESS}: at .*outside"),
        (1, "handout", _more("after", 60), f"epoch 1, hand-out 0 of {ADDRESS}: it is after 60 rankings"),
        (1, "skip", _set(reason="dull"), f"epoch 1, skip .* of {ADDRESS}: reason 'dull' is not one of"),
        (1, "skip", _set(task=ZERO_HASH), f"epoch 1, skip .* of {ADDRESS}: the wallet does not hold"),
        (1, "ranking", _other_order, f"epoch 1, ranking at position 0 by {ADDRESS}: ranking of .* signed by"),
        (1, "ranking", _more("receivedAt", -700), "epoch 1, ranking at position 0 by .*outside"),
        (1, "ranking", _more("position", 50), "epoch 1, ranking at position 1: expected|out of order"),
        (1, "session", lambda x: _more("maxJudgements")(x["session"]), "epoch 1, session of 0x.* signed by"),
    ],
)  # fmt: skip
def test_a_change_anywhere_is_named(
    story: Story, copy: Path, epoch: int, kind: str, change: Callable[[Line], None], match: str
) -> None:
    lines = _lines(copy, epoch)
    line = next(x for x in lines if x["kind"] == kind)
    before = json.dumps(line)
    change(line)
    assert json.dumps(line) != before
    _rewrite(copy, epoch, lines)
    with pytest.raises((VerifyError, BundleError), match=match):
        _verify(story, copy)


def test_a_hand_out_to_a_wallet_without_stake_is_named(
    story: Story, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last person left before epoch 2, and was handed tasks all the same."""
    leaver = address_of(PEOPLE[4])
    first = next(x for x in _lines(copy, 2) if x["kind"] == "handout" and x["wallet"] == leaver)
    # The whole story is shorter than the two hours that a hand-out may look back over.
    monkeypatch.setattr("chain.handout.STAKE_BEFORE_S", 60)
    match = rf"epoch 2, hand-out {first['number']} of {leaver} at .*by the vault's events its stake was 0 wei"
    with pytest.raises(VerifyError, match=match):
        _verify(story, copy)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("ranking", "epoch 1, ranking at position 1: expected position 0; one is missing or added"),
        ("share", "epoch 1: found the row 'share .*' where 'share .*' belongs"),
        ("leaf", "epoch 1: found the row 'leaf .*' where 'leaf .*' belongs"),
        ("wallet", "epoch 1: found the row 'wallet .*' where 'wallet .*' belongs"),
        ("pair", "epoch 1: found the row 'pair .*' where 'pair .*' belongs"),
        ("run", "epoch 1, on the chain: dataHash|epoch 1: found the row|epoch 1, pool run 1"),
        ("session", "epoch 1, ranking at position .*neither the wallet nor"),
        ("task", "epoch 1, epoch line: goldRoot is"),
        ("handout", f"epoch 1, hand-out 1 of {ADDRESS}: expected number 0; one is missing or added"),
        (
            "skip",
            "epoch 1, (hand-out|skip) .*: expected number .*; one is missing or added|holds|has skipped",
        ),
    ],
)
def test_a_dropped_line_is_named(story: Story, copy: Path, kind: str, match: str) -> None:
    lines = _lines(copy, 1)
    lines.remove(next(x for x in lines if x["kind"] == kind))
    _rewrite(copy, 1, lines)
    with pytest.raises(VerifyError, match=match):
        _verify(story, copy)


def test_the_last_line_that_is_dropped_or_added_is_named(story: Story, copy: Path) -> None:
    lines = _lines(copy, 2)
    _rewrite(copy, 2, lines[:-1])
    with pytest.raises(VerifyError, match=f"epoch 2: the row 'leaf account {ADDRESS}' is missing"):
        _verify(story, copy)
    _rewrite(copy, 2, [*lines, {"kind": "leaf", "account": "0x" + "f" * 40, "cumulative": "1"}])
    with pytest.raises(VerifyError, match=f"epoch 2: the row 'leaf account 0x{'f' * 40}' is too many"):
        _verify(story, copy)


def test_the_last_ranking_that_is_dropped_is_named_by_what_it_changes(story: Story, copy: Path) -> None:
    lines = _lines(copy, 2)
    lines.remove([x for x in lines if x["kind"] == "ranking"][-1])
    _rewrite(copy, 2, lines)
    with pytest.raises(
        VerifyError,
        match=r"epoch 2, (pair|wallet) .* recomputed|epoch 2: found the row|it is after \d+ rankings",
    ):
        _verify(story, copy)


def test_other_bytes_for_the_same_lines_are_refused(story: Story, copy: Path) -> None:
    file = copy / "epoch-1.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"kind":"share"', b'"kind": "share"', 1))
    with pytest.raises(BundleError, match=r"bundle of epoch 1, line \d+ \(share\) is not in canonical form"):
        _verify(story, copy)


def test_a_missing_older_bundle_is_asked_for(story: Story, copy: Path) -> None:
    (copy / "epoch-0.jsonl").unlink()
    with pytest.raises(BundleError, match=r"epoch-0.jsonl: No such file.*Every epoch builds on those before"):
        _verify(story, copy, 2)


def test_one_file_stands_for_the_folder_that_it_is_in(story: Story) -> None:
    source = bundle_source(str(story.folder / "epoch-2.jsonl"))
    with source(0) as file:
        assert file.read() == (story.folder / "epoch-0.jsonl").read_bytes()
    assert len(verify(story.chain.rpc, story.chain.deployment, source)) == 3


def test_one_call_verifies_by_urls_and_paths_alone(story: Story, tmp_path: Path) -> None:
    url, deployment, file = story.chain.url, story.chain.deployment, tmp_path / "deployment.json"
    write_deployment(file, deployment)
    expected = _verify(story, story.folder)
    assert verify_at(url, str(file), str(story.folder)) == verify_at(url, file, str(story.folder)) == expected
    said: list[str] = []
    assert verify_at(url, deployment, str(story.folder), 0, lambda what, _: said.append(what)) == expected[:1]
    assert said[0] == "epoch 0: reading the bundle"
    with pytest.raises(DeploymentError, match="genesis: the deployment says"):
        verify_at(url, replace(deployment, genesis=deployment.genesis + 1), str(story.folder))


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_what_it_was(story: Story, copy: Path) -> None:
    """Its lines are read twice, and what is compared is what was hashed."""
    read = bundle_source(str(copy))
    file = copy / "epoch-1.jsonl"
    honest = file.read_bytes()
    share = next(x for x in honest.splitlines() if b'"kind":"share"' in x)

    def begin(text: str, _part: float) -> None:
        if text == "epoch 1: recomputing scores and payouts":
            file.write_bytes(honest.replace(share, share.replace(b'"amount":"', b'"amount":"1')))

    with pytest.raises(VerifyError, match=r"epoch 1, share run 0 wallet .*: amount is 1\d+, recomputed \d+"):
        verify(story.chain.rpc, story.chain.deployment, read, progress=begin)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("spooled", [0, 1 << 24])
def test_a_bundle_that_comes_by_http_is_no_larger_than_allowed_and_kept_on_disk_beyond_some_bytes(
    story: Story, monkeypatch: pytest.MonkeyPatch, spooled: int
) -> None:
    data = (story.folder / "epoch-1.jsonl").read_bytes()
    monkeypatch.setattr("chain.served.SPOOL_BYTES", spooled or 1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=story.folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        source = bundle_source(f"http://127.0.0.1:{server.server_port}/epoch-{{epoch}}.jsonl")
        with source(1) as file:
            assert isinstance(file, tempfile.SpooledTemporaryFile)
            assert file._rolled == (not spooled)
            assert file.read() == data
        assert len(verify(story.chain.rpc, story.chain.deployment, source)) == 3
        monkeypatch.setattr("chain.served.MAX_BUNDLE_BYTES", len(data) - 1)
        with pytest.raises(BundleError, match=f"sends more than {len(data) - 1} bytes"):
            source(1)
        server.shutdown()
        thread.join()


def test_bundles_can_come_by_http(story: Story) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=story.folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        with bundle_source(url + "/epoch-{epoch}.jsonl")(1) as file:
            assert file.read() == (story.folder / "epoch-1.jsonl").read_bytes()
        with pytest.raises(BundleError, match=f"{url}/v1/epochs/1/bundle answered 404; is the epoch closed"):
            bundle_source(url + "/")(1)
        server.shutdown()
        thread.join()
    with pytest.raises(BundleError, match="cannot be read"):
        bundle_source(url)(1)
    with pytest.raises(BundleError, match="cannot be read"):
        bundle_source("http://[::1")(1)


def _post_instead(story: Story, **changes: Any) -> None:
    """Veto the pending report of epoch 2 and post another."""
    posted = {x["kind"]: x for x in _lines(story.folder, 2)}["epoch"]
    data = (story.folder / "epoch-2.jsonl").read_bytes()
    _, root, total, depth, _ = story.chain.view(story.distributor, "pending")
    ledger_root = changes.pop("ledger_root", None) or _ledger_root(story)
    right = Report(
        Epoch(2), root, total, depth, hash_of(data), ledger_root, posted["rulesHash"],
        posted["snapshotBlock"], posted["snapshotHash"],
    )  # fmt: skip
    story.veto()
    story.post(replace(right, **changes))


def _ledger_root(story: Story) -> Hash32:
    from chain.merkle import ledger_root

    d = story.chain.deployment
    rankings = story.evidence[2].rankings
    return ledger_root((r.ranking.digest(Domain(d.chain_id, d.vault)), r.ranking.wallet) for r in rankings)


@pytest.mark.usefixtures("undo")
def test_a_report_that_is_vetoed_and_posted_again_as_it_was_is_right(story: Story) -> None:
    _post_instead(story)
    assert [v.active for v in _verify(story, story.folder)] == [True, True, False]


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("root", text_hash("other"), f"epoch 2, on the chain: root is {text_hash('other')}, recomputed 0x"),
        ("sum", Wei(1886), "epoch 2, on the chain: sum is 1886, recomputed 1885"),
        ("depth", 5, "epoch 2, on the chain: depth is 5, recomputed"),
        ("data_hash", text_hash("other"), "epoch 2, on the chain: dataHash is"),
        ("ledger_root", text_hash("other"), "epoch 2, on the chain: ledgerRoot is"),
        ("rules_hash", text_hash("other"), "epoch 2, epoch line: rulesHash is"),
    ],
)
@pytest.mark.usefixtures("undo")
def test_a_report_that_does_not_follow_from_its_bundle_is_named(
    story: Story, field: str, value: Any, match: str
) -> None:
    _post_instead(story, **{field: value})
    with pytest.raises(VerifyError, match=match):
        _verify(story, story.folder)


@pytest.mark.usefixtures("undo")
def test_an_epoch_that_is_vetoed_and_not_posted_again_has_no_report(story: Story) -> None:
    story.veto()
    assert [v.epoch for v in _verify(story, story.folder)] == [0, 1]
    with pytest.raises(VerifyError, match="epoch 2 has no report"):
        _verify(story, story.folder, 2)


def test_where_nothing_was_posted_there_is_nothing_to_verify(deployed: Chain, tmp_path: Path) -> None:
    for until in (None, 0):
        with pytest.raises(NothingPostedError, match="no epoch has been posted to this distributor yet"):
            verify(deployed.rpc, deployed.deployment, bundle_source(str(tmp_path)), until)


def test_an_operator_that_chose_the_names_of_its_tasks_is_named(
    deployed: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a task's name goes who is asked it: all follows from these names, but they not from the seed."""
    with monkeypatch.context() as own:
        own.setattr(Task, "drawn_salt", lambda _task, _seed: text_hash("chosen"))
        told = begin(deployed, tmp_path)
        told.endow(5)
        _, report = told.close(0)
        told.post(report)
        assert _verify(told, tmp_path)
    name, salt = "task 0x[0-9a-f]{64}", text_hash("chosen")
    with pytest.raises(
        VerifyError, match=f"epoch 0, {name}: its salt is '{salt}'; .* the epoch's seed draws 0x"
    ):
        _verify(told, tmp_path)


def test_an_epoch_without_stake_rankings_or_revenue_is_verified_too(deployed: Chain, tmp_path: Path) -> None:
    told = begin(deployed, tmp_path, people=0)
    for epoch in range(2):
        closed, report = told.close(epoch)
        assert (closed.tree.sum, closed.ledger_root) == (0, ZERO_HASH)
        told.post(report)
        told.activate()
    assert [(v.rankings, v.sum, v.active) for v in _verify(told, tmp_path)] == [(0, 0, True)] * 2


def test_a_node_that_hides_or_invents_is_found_out(deployed: Chain, liar: Liar, tmp_path: Path) -> None:
    told = begin(deployed, tmp_path, people=2)
    told.endow(2)
    told.stake(PEOPLE[0], TOKEN)
    deployed.fund(4, 0, 10)
    deployed.fund(4, 0, 20)
    _, report = told.close(0)
    told.post(report)
    told.activate()
    with Rpc(liar.url, retries=0) as rpc:

        def refused(error: type[Exception], match: str) -> None:
            with pytest.raises(error, match=match):
                verify(rpc, deployed.deployment, bundle_source(str(tmp_path)))

        assert verify(rpc, deployed.deployment, bundle_source(str(tmp_path)))[0].active

        first = address_of(PEOPLE[0])
        for place, (error, match) in enumerate(
            (
                (ChainError, "A log is missing"),  # the first stake of one who stakes again
                (VerifyError, "the stake of all accounts is .* by events"),  # the only stake of somebody
                (VerifyError, f"stake-seconds of {first} is .* by events, .* hides"),  # a last stake
                (ChainError, "A log is missing"),  # revenue, and more after it
                (VerifyError, "all revenue so far is 10 by events, 30 in the contract"),  # the last revenue
                (ChainError, "A log is missing"),  # the post of an active root
                (
                    VerifyError,
                    r"the distributor's `active` is \(1, .*, and by its events \(0, 0, 0\)",
                ),  # its activation
            )
        ):
            liar.lie = partial(_hide, place)
            refused(error, match)

        liar.lie = _lie_about_calls
        refused(VerifyError, "epoch 0: stake-seconds of 0x.* by events, .* in the contract")
        liar.lie = _repeat
        refused(VerifyError, f"{liar.url} sent a log of 0x.* that was not asked for")
        liar.lie = partial(_move, "0x" + "a" * 40)
        refused(VerifyError, f"{liar.url} sent a log of 0xa+ that was not asked for")
        liar.lie = lambda _calls, _answers: None
        liar.ask = _hang_up
        refused(RpcError, "does not answer")


def _logs(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_getLogs":
            yield answer["result"]


def _hide(place: int, calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for logs in _logs(calls, answers):
        del logs[place]


def _repeat(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for logs in _logs(calls, answers):
        logs.append(logs[0])


def _move(to: str, calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    for logs in _logs(calls, answers):
        logs[0]["address"] = to


def _lie_about_calls(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    """Add one to the stake-seconds of everybody."""
    for call, answer in zip(calls, answers, strict=True):
        if call["method"] == "eth_call" and len(call["params"][0]["data"]) == 2 + 8 + 128:
            answer["result"] = "0x" + f"{int(answer['result'], 16) + 1:064x}"


def _hang_up(_calls: list[dict[str, Any]]) -> None:
    raise ConnectionAbortedError


@pytest.mark.parametrize("what", ["body", "headers"])
def test_a_server_that_drips_bytes_does_not_hold_a_verifier_up(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("chain.served.SLOWEST", 1)

    class Dripping(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if what == "body":
                self.send_response(200)
                self.end_headers()
            else:
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = bundle_source(f"http://127.0.0.1:{server.server_address[1]}/{{epoch}}", timeout_s=0.3)
        with pytest.raises(BundleError, match=r"sends too slowly: \d+ bytes in 0.3 s"):
            source(0)
        server.shutdown()
