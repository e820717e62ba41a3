"""What a reorg takes back of an operator's word is given again: openings and closes reach the chain all the same."""

from __future__ import annotations

from typing import Any

from sqlmodel import select

from chain.committer import epoch_record
from chain.devnet import mine
from chain.ledger import TransactionRow
from chain.rules import Rules
from service import jobs


def test_an_opening_and_a_close_that_a_reorg_took_back_are_written_again(network: Any, tmp_path: Any) -> None:
    with network(tmp_path, Rules(methods=("ranking",))) as net:

        def known() -> Any:
            return epoch_record(net.rpc, net.ctx.deployment, 0)

        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 3))
        assert known().opened_at
        net.rpc.request("anvil_reorg", 1, [])
        assert not known().opened_at
        jobs.step_commit(net.ctx)
        assert known().opened_at

        net.go_to(net.start(1) + 1)
        jobs.step_index(net.ctx)
        jobs.step_payout(net.ctx)
        jobs.step_commit(net.ctx)
        assert known().closed_at
        net.rpc.request("anvil_reorg", 1, [])
        assert not known().closed_at
        jobs.step_commit(net.ctx)
        assert known().closed_at
        assert "posted" in jobs.step_payout(net.ctx)
        assert not net.ctx.pulse.errors


def test_what_was_sent_is_followed_until_it_is_final_though_nothing_else_is_to_be_done(
    network: Any, tmp_path: Any
) -> None:
    with network(tmp_path, Rules(methods=("ranking",))) as net:

        def statuses() -> list[str]:
            jobs.step_commit(net.ctx)
            with net.ctx.db.read() as db:
                return [row.status for row in db.exec(select(TransactionRow))]

        net.go_to(net.start(0) + 1)
        net.open(0, net.plans(0, 3))
        assert statuses() == ["mined"]
        mine(net.rpc, 2)
        assert statuses() == ["final"]
