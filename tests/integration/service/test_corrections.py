"""Whatever an operator has to take back, give up or do again, the service finds its way to what strangers verify."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from chain.canonical import hash_of
from chain.committer import epoch_record
from chain.errors import ChainError, HapticError
from chain.opening import Opening
from chain.rules import Rules
from chain.transactions import transact
from chain.types import Hash32, Ratio
from chain.verify import bundle_source, verify
from service import corrections, epochs, jobs, results, training
from service.errors import ConflictError
from service.ledger import queries, work
from service.ledger.tables import RunRow
from tests.integration.service.shell import Shell, operate

ZERO = Hash32("0x" + 64 * "0")


@pytest.fixture
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with network(tmp_path_factory.mktemp("net"), Rules(methods=("ranking",))) as made:
        made.go_to(made.start(0) + 1)
        yield made


def _epoch(net: Any, revenue: int = 1000) -> int:
    """Open the next epoch, let somebody rank in it, and go to its end."""
    epoch = int(net.new_epoch())
    net.open(epoch, net.plans(epoch, 3))
    net.judge(net.person(100, epoch=epoch))
    net.fund(0, revenue)
    _end(net, epoch)
    return epoch


def _end(net: Any, epoch: int) -> None:
    net.go_to(net.start(epoch + 1) + 1)
    jobs.step_index(net.ctx)


def _pay(net: Any, epoch: int) -> list[Any]:
    """Let the clock bring everything up to `epoch` on the chain, and return what a stranger finds."""
    for _ in range(4 * epoch + 8):
        jobs.step_commit(net.ctx)
        jobs.step_payout(net.ctx)
        net.go_to(net.now() + 601)
        jobs.step_index(net.ctx)
        if net.view(net.ctx.deployment.revenue_distributor(), "active")[0] > epoch:
            break
    assert net.view(net.ctx.deployment.revenue_distributor(), "active")[0] > epoch
    return verify(net.rpc, net.ctx.deployment, bundle_source(str(net.ctx.place.bundles)), epoch)


def _open_here(net: Any, epoch: int) -> None:
    """Open an epoch in the database, as the arena does, without a word to the chain."""
    with net.ctx.db.write() as db:
        epochs.open_epoch(db, net.ctx.place, epoch, [], net.rules, net.now())
        db.commit()


def _steal(net: Any, function: str, *args: Any) -> None:
    transact(net.rpc, net.ctx.poster, net.ctx.deployment.ledger_contract(), function, *args)


def _thiefs_opening() -> Opening:
    return Opening(Hash32("0x" + "77" * 32), ZERO, Hash32("0x" + "88" * 32), Ratio(1, 1))


def test_an_epoch_that_a_thief_opened_is_given_up_after_the_next_was_opened_here(
    haptic: Shell, net: Any
) -> None:
    epoch = int(net.new_epoch())
    _steal(net, "open", epoch, _thiefs_opening().arguments())
    _open_here(net, epoch)
    with pytest.raises(ChainError, match="was opened on the chain with"):
        jobs.step_commit(net.ctx)
    _end(net, epoch)
    assert jobs.close_epoch(net.ctx, epoch) is not None
    _open_here(net, epoch + 1)
    operate(haptic, net)
    haptic.does("epoch", "abandon", "--epoch", epoch, "--yes")
    haptic.does("epoch", "close", "--epoch", epoch)
    found = _pay(net, epoch)
    assert [len(v.notes) for v in found] == [0] * epoch + [1]


def test_an_epoch_that_a_thief_abandoned_is_given_up_here_too(haptic: Shell, net: Any) -> None:
    epoch = _epoch(net)
    _steal(net, "abandon", epoch, "0x" + "99" * 32)
    jobs.step_payout(net.ctx)
    with pytest.raises(ChainError, match=f"haptic epoch abandon --epoch {epoch}"):
        jobs.step_commit(net.ctx)
    operate(haptic, net)
    haptic.does("epoch", "abandon", "--epoch", epoch, "--yes")
    haptic.does("epoch", "close", "--epoch", epoch)
    found = _pay(net, epoch)
    assert (found[-1].rankings, found[-1].carried, len(found[-1].notes)) == (0, 1000, 1)


def test_an_epoch_that_a_thief_closed_with_other_rankings_is_given_up(haptic: Shell, net: Any) -> None:
    epoch = _epoch(net)
    with net.ctx.db.read() as db:
        row = queries.epoch_row(db, epoch)
    assert row is not None
    _steal(
        net, "close", epoch, "0x" + net.ctx.place.seed(epoch).hex(), epochs.opening(row).arguments(), "0x" + "aa" * 32,
        "0x" + "bb" * 32,
    )  # fmt: skip
    jobs.step_payout(net.ctx)
    with pytest.raises(ChainError, match="was closed on the chain with the rankings 0xaaaa"):
        jobs.step_commit(net.ctx)
    operate(haptic, net)
    haptic.does("epoch", "abandon", "--epoch", epoch, "--yes")
    haptic.does("epoch", "close", "--epoch", epoch)
    assert _pay(net, epoch)[-1].rankings == 0


def test_a_secret_that_is_lost_before_the_chain_knows_the_opening_holds_nothing_up(
    haptic: Shell, net: Any
) -> None:
    epoch = int(net.new_epoch())
    _open_here(net, epoch)
    _end(net, epoch)
    operate(haptic, net)
    secret, haptic.environ["HAPTIC_SECRET"] = haptic.environ["HAPTIC_SECRET"], "another " * 8
    haptic.fails("epoch", "abandon", "--epoch", epoch, "--yes", words=("haptic epoch commit",))
    haptic.does("epoch", "commit", "--epoch", epoch, "--yes")
    haptic.does("epoch", "abandon", "--epoch", epoch, "--yes")
    haptic.does("epoch", "close", "--epoch", epoch)
    haptic.environ["HAPTIC_SECRET"] = secret
    assert len(_pay(net, epoch)[-1].notes) == 1


def test_what_was_given_up_and_not_told_the_chain_can_be_taken_back(haptic: Shell, net: Any) -> None:
    epoch = _epoch(net)
    operate(haptic, net)
    haptic.does("epoch", "abandon", "--epoch", epoch, "--yes")
    haptic.does("epoch", "close", "--epoch", epoch)
    haptic.does("epoch", "reopen", "--epoch", epoch, "--yes")
    haptic.does("epoch", "close", "--epoch", epoch)
    found = _pay(net, epoch)[-1]
    assert (found.rankings, found.notes) == (3, ())


def test_an_epoch_is_not_reopened_with_a_secret_that_could_not_close_it_again(
    haptic: Shell, net: Any
) -> None:
    epoch = _epoch(net)
    net.new_epoch()
    operate(haptic, net)
    haptic.environ["HAPTIC_SECRET"] = "another " * 8
    with net.nothing_written():
        haptic.fails("epoch", "reopen", "--epoch", epoch, "--yes", words=("HAPTIC_SECRET", f"epoch {epoch}"))


def test_what_changed_while_an_epoch_was_closed_is_noticed_before_anything_is_written(net: Any) -> None:
    first = _epoch(net)
    second = int(net.new_epoch())
    net.open(second, net.plans(second, 2))
    _end(net, second)
    with net.ctx.db.read() as db:
        item = epochs.draft(db, net.ctx.rpc, net.ctx.place, second)
    assert item is not None

    def store() -> None:
        with net.ctx.db.write() as db:
            results.store(db, net.ctx.place, item, net.now())
            db.commit()

    with net.ctx.db.write() as db:
        corrections.abandon(
            db, net.ctx.place, second, epoch_record(net.rpc, net.ctx.deployment, second), net.now()
        )
        db.commit()
    with pytest.raises(ConflictError, match="given up"):
        store()
    with net.ctx.db.write() as db:
        corrections.reopen(db, net.ctx.place, first)
        db.commit()
    with pytest.raises(ConflictError, match="the epoch before was reopened"):
        store()
    with pytest.raises(ConflictError, match=f"is closed after epoch {second - 1}"), net.ctx.db.read() as db:
        epochs.draft(db, net.ctx.rpc, net.ctx.place, second)
    assert jobs.close_epoch(net.ctx, first) is not None
    found = _pay(net, second)
    assert [v.rankings for v in found[first:]] == [3, 0, 0]


def test_a_run_that_learned_from_a_reopened_epoch_learns_again(haptic: Shell, net: Any) -> None:
    epoch = _epoch(net)
    jobs.step_payout(net.ctx)
    with net.ctx.db.write() as db:
        fresh = training.due(db, net.ctx.place, net.ctx.settings.model_copy(update={"retrain_after": 0}))
        assert fresh is not None
        data = b"".join(net.ctx.place.preferences_path(e).read_bytes() for e in fresh)
        digest = "0x" + hashlib.sha256(data).hexdigest()
        queries.add(
            db, RunRow(run=1, first=fresh[0], last=fresh[-1], snapshot=digest, model="policy-1", job=0)
        )
        db.commit()
    operate(haptic, net)
    haptic.does("epoch", "reopen", "--epoch", epoch, "--yes")
    with net.ctx.db.read() as db:
        assert work.runs(db) == []
    haptic.does("epoch", "close", "--epoch", epoch)
    assert _pay(net, epoch)[-1].rankings == 3


def test_an_epoch_is_scored_by_what_the_corrected_one_before_gives(haptic: Shell, net: Any) -> None:
    first = _epoch(net)
    jobs.step_payout(net.ctx)
    jobs.step_commit(net.ctx)
    with net.ctx.db.write() as db:
        # As a service that had computed epoch `first` wrongly would have it.
        row = queries.epoch_row(db, first)
        assert row is not None
        row.next_num, row.next_den = "7", "3"
        db.commit()
    second = _epoch(net)
    with net.ctx.db.read() as db:
        opened = queries.epoch_row(db, second)
    assert opened is not None
    assert (opened.lambda_num, opened.lambda_den) == ("7", "3")
    jobs.step_payout(net.ctx)
    jobs.step_commit(net.ctx)
    state = net.view(net.ctx.deployment.revenue_distributor(), "pending")
    if state[-1]:
        transact(net.rpc, net.site.owner, net.ctx.deployment.revenue_distributor(), "veto", state[1])
    before = net.api.get(f"/epochs/{second}")["data_hash"]
    operate(haptic, net)
    haptic.does("epoch", "reopen", "--epoch", first, "--yes")
    transact(net.rpc, net.ctx.poster, net.ctx.deployment.ledger_contract(), "amend", first, "0x" + "12" * 32)
    for epoch in range(first, second + 1):
        haptic.does("epoch", "close", "--epoch", epoch)
    found = _pay(net, second)
    assert (
        f"lambda was committed to as 7/3, before epoch {second - 1} was corrected" in found[second].notes[0]
    )
    after = net.api.get(f"/epochs/{second}")["data_hash"]
    assert before != after
    for kept in (before, after):
        assert hash_of(net.ask("GET", f"/v1/bundles/{kept}").content) == kept


@pytest.mark.parametrize("wrong", [0.0, 4_000_000_000.0])
def test_a_clock_of_the_machine_that_is_wrong_changes_nothing(
    net: Any, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    monkeypatch.setattr("time.time", lambda: wrong)
    epoch = _epoch(net)
    found = _pay(net, epoch)[-1]
    assert (found.rankings, found.sum + found.carried) == (3, 1000)


def test_nothing_is_given_up_that_waits_or_pays(haptic: Shell, net: Any) -> None:
    epoch = _epoch(net)
    for _ in range(3 * epoch + 3):
        jobs.step_commit(net.ctx)
        jobs.step_payout(net.ctx)
        if net.view(net.ctx.deployment.revenue_distributor(), "pending")[-1] and epoch == 0:
            break
        net.go_to(net.now() + 601)
        jobs.step_index(net.ctx)
    operate(haptic, net)
    with net.nothing_written():
        said = haptic("epoch", "abandon", "--epoch", epoch, "--yes")
    assert said.status == 1
    assert "veto comes first" in said.err or "pays already" in said.err
    with pytest.raises(HapticError):
        _steal(net, "abandon", epoch, "0x" + "99" * 32)
