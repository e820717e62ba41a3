"""An epoch on the command line: from a ranking to a claim that a stranger verified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chain.devnet import mine
from chain.errors import BusyIndexError
from chain.messages import parse_address
from chain.rules import Rules
from chain.transactions import transact
from service import epochs, jobs
from service.cli import shared
from service.cli.shared import show_amount
from service.devnet import COIN, DOLLAR
from service.ledger import queries, results
from service.terminal import show_date, show_when
from tests.integration.service.shell import Shell, holdings, operate, take_wallet


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",), overlap_min=5)) as made:
        made.go_to(made.start(0) + 1)
        yield made


def test_from_a_ranking_to_a_verified_claim_on_the_command_line(haptic: Shell, net: Any) -> None:
    epoch = net.new_epoch()
    net.open(epoch, net.plans(epoch, 12))
    helpers = [net.person(100, epoch=epoch) for _ in range(3)]
    me = take_wallet(haptic, net, "claimer", staking=500 * COIN, dollars=10 * DOLLAR)
    haptic.does("stake", "500", "--yes")
    net.go_to(net.now())
    for who in helpers:
        net.judge(who)
    typed = "y\nB >> A\nbad\nA = B = C = D\nq\n"
    shown = haptic.does("rank", typed=typed)
    assert "not sent:" in shown
    assert "recorded as number 36" in shown
    assert "recorded as number 37: A = B = C = D" in shown
    assert "7 DUSD funded" in haptic.does("fund", "7", "--yes")
    assert "3 DUSD funded" in haptic.does("fund", "3", "--run", "9", "--force", "--yes")
    net.go_to(net.start(epoch + 1) + 1)
    operate(haptic, net)
    haptic.fails("epoch", "post", "--epoch", epoch, "--yes", words=(f"epoch {epoch} is not closed",))
    _what_is_not_there_is_told_as_it_is(haptic, epoch)
    assert "nothing was written" in haptic.does("epoch", "close", "--epoch", epoch, "--dry-run")
    for number in range(epoch + 1):
        if number == epoch:
            _closed_here_and_on_the_chain(haptic, epoch)
        before = net.rows()
        _posting_is_shown_in_coins(haptic, net, number)
        assert net.rows() == before
        haptic.does("epoch", "post", "--epoch", number, "--yes")
        assert "has it already" in haptic.does("epoch", "post", "--epoch", number, "--yes")
        haptic.fails("epoch", "activate", "--epoch", number, "--yes", words=("would refuse",))
        if number == epoch:
            _in_the_window(haptic, net, epoch, helpers[0].address)
        net.go_to(net.now() + 601)
        haptic.does("epoch", "activate", "--epoch", number, "--yes")
    net.go_to(net.now() + 1)
    jobs.step_index(net.ctx)
    for _ in range(epoch + 1):
        jobs.step_payout(net.ctx)
    _allotted_is_told_in_coins(haptic, net, epoch)
    payee = helpers[0]
    haptic.environ["HAPTIC_KEYFILE"] = str(net.site.folder / "wallets" / f"person-{net._people - 2}.json")
    _score_is_told_in_coins(haptic, net, payee.address)
    before = holdings(net, payee.address)
    assert "nothing was sent" in haptic.does("claim", "--dry-run")
    _claims_can_be_paused(haptic, net)
    assert holdings(net, payee.address) == before
    haptic.does("claim", "--yes")
    assert holdings(net, payee.address)[3] == net.view(
        net.ctx.deployment.revenue_distributor(), "claimed", payee.address
    )
    assert "Nothing new to claim" in haptic.does("claim", "--yes")
    assert parse_address(me) not in {
        s["wallet"].lower() for s in net.api.get("/leaderboard", by="score")["entries"] if int(s["score"])
    }
    mine(net.rpc, 3)
    _verify_says_what_was_carried(haptic, net)
    _verify_names_what_was_changed(haptic, net, epoch)


def _posting_is_shown_in_coins(haptic: Shell, net: Any, number: int) -> None:
    shown = haptic.does("epoch", "post", "--epoch", number, "--dry-run")
    assert "nothing was sent" in shown
    units = int(net.api.get(f"/epochs/{number}")["sum"])
    assert f"{show_amount(units, 6)} DUSD in all, cumulative" in shown


def _what_is_not_there_is_told_as_it_is(haptic: Shell, newest: int) -> None:
    said = f"epoch {newest + 5} was not opened (the newest is {newest})"
    for what in ("commit", "close"):
        haptic.fails("epoch", what, "--epoch", newest + 5, words=(said,))
    haptic.fails("epoch", "veto", "--epoch", newest, "--yes", words=("is pending: nothing is",))


def _closed_here_and_on_the_chain(haptic: Shell, epoch: int) -> None:
    assert "closed" in haptic.does("epoch", "close", "--epoch", epoch)
    haptic.fails("epoch", "post", "--epoch", epoch, "--yes", words=("haptic epoch commit",))
    assert "nothing was sent" in haptic.does("epoch", "commit", "--epoch", epoch, "--dry-run")
    assert f"close epoch {epoch}: rankings 0x" in haptic.does("epoch", "commit", "--epoch", epoch, "--yes")
    assert "the chain has it already, opening and close" in haptic.does("epoch", "commit", "--epoch", epoch)


def _in_the_window(haptic: Shell, net: Any, epoch: int, who: str) -> None:
    """What is told while the epoch's root waits: which it is, and when a claim pays."""
    other = f"no root of epoch {epoch + 1} is pending: the root of epoch {epoch} is"
    haptic.fails("epoch", "veto", "--epoch", epoch + 1, "--yes", words=(other,))
    mine, theirs = haptic.environ["HAPTIC_KEYFILE"], f"person-{net._people - 2}.json"
    haptic.environ["HAPTIC_KEYFILE"] = str(net.site.folder / "wallets" / theirs)
    found = net.api.get(f"/contributors/{who}")
    active_at = net.view(net.ctx.deployment.revenue_distributor(), "pending")[4]
    assert (found["claimable"], found["pending"]["active_at"]) == ("0", active_at)
    assert found["pending"]["claimable"] == found["allotted"] != "0"
    later = (
        f"becomes active at {show_when(active_at, net.now())}, after its challenge window: "
        f"then {show_amount(int(found['allotted']), 6)} DUSD can be claimed."
    )
    haptic.fails("claim", "--yes", words=("no payout under an active root yet. ", later))
    assert later in " ".join(haptic.does("score").split())
    haptic.environ["HAPTIC_KEYFILE"] = mine


def _claims_can_be_paused(haptic: Shell, net: Any) -> None:
    distributor = net.ctx.deployment.revenue_distributor()
    transact(net.rpc, net.site.owner, distributor, "pause")
    haptic.fails("claim", "--yes", words=("the guardian has paused claims", "nothing is lost"))
    transact(net.rpc, net.site.owner, distributor, "unpause")


def _score_is_told_in_coins(haptic: Shell, net: Any, who: str) -> None:
    said = haptic.does("score")
    assert who in said.lower()
    assert "· staked 100 HPT" in said
    allotted = int(net.api.get(f"/contributors/{who}")["allotted"])
    assert allotted > 0
    shown = f"{show_amount(allotted, 6)} DUSD"
    assert f"allotted {shown} · claimed 0 DUSD · claimable now {shown}" in said


def _allotted_is_told_in_coins(haptic: Shell, net: Any, epoch: int) -> None:
    sums = [int(net.api.get(f"/epochs/{e}")["sum"]) for e in range(epoch + 1)]
    listed = haptic.does("epoch", "list")
    assert "active" in listed
    for units in sums:
        assert f"{show_amount(units, 6)} DUSD" in listed
        assert not units or str(units) not in listed


def _verify_says_what_was_carried(haptic: Shell, net: Any) -> None:
    """Revenue came in the last epoch for a run that does not come, and none in epoch 0."""
    said = haptic("verify", "--bundle", net.ctx.place.bundles)
    *told, end = said.out.splitlines()
    assert end == "verify: OK"
    lines = [line for line in told if line.startswith("epoch ")]
    with net.ctx.db.read() as db:
        carried = [sum(results.carried(db, e).values()) for e in range(len(lines))]
    assert (carried[0], carried[-1]) == (0, 3 * DOLLAR)
    for line, units in zip(lines, carried, strict=True):
        assert ("carried" in line) == bool(units)
        assert not units or f" in all, {show_amount(units, 6)} DUSD carried to the next epoch, " in line
    # Where no --bundle is named, it is the service that the environment names.
    assert haptic("verify") == said


def _verify_names_what_was_changed(haptic: Shell, net: Any, epoch: int) -> None:
    path = net.ctx.place.bundle_path(epoch)
    kept = path.read_text()
    rows = [json.loads(line) for line in kept.splitlines()]
    leaf = next(r for r in rows if r["kind"] == "leaf")
    more = kept.replace(
        f'"cumulative":"{leaf["cumulative"]}"', f'"cumulative":"{int(leaf["cumulative"]) + 1}"', 1
    )
    assert more != kept
    path.write_text(more)
    haptic.fails("verify", "--bundle", path.parent, words=(f"epoch {epoch}", "leaf", leaf["account"]))
    path.write_text(kept)
    assert "verify: OK" in haptic.does("verify", "--bundle", path)


def test_an_epoch_whose_secret_is_lost_is_given_up_and_the_next_goes_on(haptic: Shell, net: Any) -> None:
    epoch = net.new_epoch()
    net.open(epoch, net.plans(epoch, 3))
    who = net.person(100, epoch=epoch)
    net.judge(who)
    net.fund(0, 5 * DOLLAR)
    operate(haptic, net)
    number = ("--epoch", epoch)
    ends = show_date(net.start(epoch + 1))
    haptic.fails("epoch", "abandon", *number, "--yes", words=(f"epoch {epoch} lasts until {ends} (in 28 h)",))
    haptic.fails("epoch", "close", *number, words=(f"epoch {epoch} cannot be closed yet: it ends at {ends}",))
    opened = haptic.does("epoch", "commit", *number)
    assert "the chain has its opening already; its close is written once it is closed" in opened
    net.go_to(net.start(epoch + 1) + 1)
    jobs.step_index(net.ctx)
    haptic.environ["HAPTIC_SECRET"] = "another " * 8
    haptic.fails("epoch", "close", *number, words=("HAPTIC_SECRET", f"haptic epoch abandon --epoch {epoch}"))
    before = net.rows()
    assert "3 rankings, which earn nothing" in haptic.does("epoch", "abandon", *number, "--dry-run")
    for options, typed in ((("--dry-run",), ""), ((), "n\n")):
        said = haptic.does("epoch", "abandon", *number, *options, typed=typed)
        assert "othing was written." in said
        assert "sen" not in said.lower()
    assert net.rows() == before
    assert "given up" not in haptic.does("score", who.address)
    haptic.does("epoch", "abandon", *number, "--yes")
    assert f"Epoch {epoch} was given up by its operator: no ranking of it counts." in haptic.does(
        "score", who.address
    )
    assert "given up" not in haptic.does("score", "0x" + "11" * 20)
    haptic.does("epoch", "close", *number)
    assert f"abandon epoch {epoch}: no ranking of it counts" in haptic.does(
        "epoch", "commit", *number, "--yes"
    )
    assert "built, abandoned" in haptic.does("epoch", "list")
    assert net.api.get(f"/epochs/{epoch}")["abandoned"]
    net.go_to(net.now() + 1)
    for _ in range(2 * epoch + 2):
        jobs.step_payout(net.ctx)
        net.go_to(net.now() + 601)
    assert net.view(net.ctx.deployment.revenue_distributor(), "active")[0] == epoch + 1
    said = haptic.does("verify")
    assert f"note: epoch {epoch} was abandoned on the chain" in said
    assert "8 DUSD carried to the next epoch" in said
    assert "verify: OK" in said


def test_an_epoch_is_not_reopened_while_the_chain_waits_to_hear_what_followed_from_it(
    haptic: Shell, net: Any
) -> None:
    epoch = net.new_epoch()
    operate(haptic, net)
    with net.ctx.db.write() as db:
        epochs.open_epoch(db, net.ctx.place, epoch, [], net.rules, net.now())
        db.commit()
    with net.nothing_written():
        haptic.fails(
            "epoch", "reopen", "--epoch", epoch - 1, "--yes", words=(f"epoch {epoch} was opened by",)
        )
    jobs.step_commit(net.ctx)
    said = haptic.does("epoch", "reopen", "--epoch", epoch - 1, "--dry-run")
    assert f"epochs {epoch} to {epoch} were opened with a price of stake that may follow no more" in said
    refused = haptic.does("epoch", "reopen", "--epoch", epoch - 1, typed="n\n")
    assert "Do it?" in refused
    assert "Nothing was written." in refused
    haptic.does("epoch", "reopen", "--epoch", epoch - 1, "--yes")
    with net.ctx.db.read() as db:
        assert queries.last_closed(db) == epoch - 2
    assert jobs.close_epoch(net.ctx, epoch - 1) is not None


def test_who_closes_beside_the_service_waits_for_it_to_index_and_goes_on(
    net: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shared, "INDEX_POLL_S", 0.01)
    jobs.step_index(net.ctx)
    mine(net.rpc, 5)
    once = iter([net.ctx])

    def beaten(_done: int, _of: int) -> None:
        """Let the service index just before what was read here is written."""
        for ctx in once:
            jobs.step_index(ctx)

    found = shared.index_beside(net.rpc, net.ctx.db, net.ctx.deployment, beaten)
    assert found.indexed_to == found.finalized
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("is indexing too: waiting for it, 60 s at most") == 1


def test_it_waits_no_longer_than_it_says(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "INDEX_WAIT_S", 0.0)
    monkeypatch.setattr(shared, "INDEX_POLL_S", 0.01)
    tries = iter(range(50))

    def index(*_: Any) -> None:
        if next(tries, None) is not None:
            raise BusyIndexError("another indexer")

    monkeypatch.setattr(shared, "index", index)
    with pytest.raises(BusyIndexError):
        shared.index_beside(net.rpc, net.ctx.db, net.ctx.deployment)
