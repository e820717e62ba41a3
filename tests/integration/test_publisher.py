"""An epoch's report reaches the chain once: whatever is killed, repeated or refused in between."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, create_engine

from chain import ledger
from chain.attempts import sign
from chain.contracts import Contract
from chain.devnet import mine
from chain.errors import ChainError, RevertError, RpcError
from chain.events import Activated, Posted, Vetoed, decode, topics
from chain.hashing import keccak256
from chain.indexer import index
from chain.ledger import EpochReport
from chain.outbox import TransactionKey, bring, send
from chain.publisher import Report, activate, chain_state, publish, report_of
from chain.rpc import Rpc
from chain.transactions import Courier, must_succeed, price, transact
from chain.types import Epoch, Hash32, Wei

Sessions = Callable[[], Session]
ZERO = Hash32("0x" + "0" * 64)
KEY = TransactionKey("post", 0, ZERO)


def _hash(n: int) -> Hash32:
    return Hash32(f"0x{n:064x}")


def _report(chain: Any, epoch: int = 0, root: int = 7, total: int = 5) -> Report:
    """Make the report of an epoch that is over by now."""
    end = chain.deployment.epoch_end(epoch)
    if chain.rpc.block("latest").timestamp < end:
        chain.warp(end)
    at = chain.rpc.block(1)
    hashes = (_hash(n) for n in (21, 22, 23))
    return Report(Epoch(epoch), _hash(root), Wei(total), 3, *hashes, at.number, at.hash)


def _commitment(report: Report) -> Hash32:
    node = bytes.fromhex(report.root[2:]) + report.sum.to_bytes(12, "big")
    return Hash32("0x" + keccak256(node).hex())


def _logs(chain: Any) -> list[Any]:
    """Return what the distributor announced about reports, read from the chain itself."""
    head = chain.rpc.block("latest").number
    found = chain.rpc.logs([chain.deployment.distributor], 0, head, topics())
    return [e for e in (decode(log, 0) for log in found) if isinstance(e, Posted | Activated | Vetoed)]


def _publish(chain: Any, sessions: Sessions, report: Report, **options: Any) -> Any:
    with sessions() as session:
        return publish(chain.rpc, session, chain.deployment, chain.accounts[0], report, **options)


def _activate(chain: Any, sessions: Sessions, epoch: int = 0, **options: Any) -> Any:
    with sessions() as session:
        return activate(chain.rpc, session, chain.deployment, chain.accounts[0], epoch, **options)


def _veto(chain: Any) -> None:
    distributor = chain.deployment.revenue_distributor()
    chain.act(1, distributor, "veto", chain.view(distributor, "pending")[1])


def _statuses(sessions: Sessions) -> dict[str, str]:
    with sessions() as session:
        rows = [ledger.transaction(session, kind, 0) for kind in ("post", "activate")]
        return {row.kind: row.status for row in rows if row is not None}


def test_a_report_is_posted_waits_and_becomes_active(deployed: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    posted = _publish(deployed, sessions, report)
    assert posted.done
    assert posted.transaction is not None
    (event,) = _logs(deployed)
    assert (event.epoch, event.root, event.sum, event.depth) == (0, report.root, 5, 3)
    assert (event.data_hash, event.ledger_root, event.rules_hash) == (_hash(21), _hash(22), _hash(23))
    assert (event.snapshot_block, event.snapshot_hash) == (report.snapshot_block, report.snapshot_hash)
    with pytest.raises(RevertError, match=r"The pending root waits until \d+ \(WindowOpen\)"):
        _activate(deployed, sessions)
    deployed.warp(event.active_at)
    assert _activate(deployed, sessions).done
    state = chain_state(deployed.rpc, deployed.deployment)
    assert (state.next_epoch, state.active_commitment, state.pending_epoch) == (1, _commitment(report), None)
    assert _statuses(sessions) == {"post": "mined", "activate": "mined"}


def test_each_step_is_taken_once(deployed: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    for _ in range(3):
        assert _publish(deployed, sessions, report).done
    assert [type(e) for e in _logs(deployed)] == [Posted]
    deployed.warp(_logs(deployed)[0].active_at)
    for _ in range(3):
        assert _activate(deployed, sessions).done
        assert _publish(deployed, sessions, report).done
    assert [type(e) for e in _logs(deployed)] == [Posted, Activated]


def test_an_operator_with_an_empty_ledger_sees_what_is_posted(
    deployed: Any, sessions: Sessions, wipe: Callable[[], None]
) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    _publish(deployed, sessions, report)
    wipe()
    again = _publish(deployed, sessions, report)
    assert again.done
    assert again.transaction is None
    assert len(_logs(deployed)) == 1


def test_another_root_for_a_posted_epoch_is_a_loud_error(deployed: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    _publish(deployed, sessions, report)
    other = replace(report, root=_hash(8))
    with pytest.raises(ChainError, match=f"{_hash(7)}, but here it comes to {_hash(8)}"):
        _publish(deployed, sessions, other)
    deployed.warp(_logs(deployed)[0].active_at)
    _activate(deployed, sessions)
    with pytest.raises(ChainError, match="nothing was sent"):
        _publish(deployed, sessions, other)
    assert len(_logs(deployed)) == 2


def test_an_epoch_long_over_is_looked_up_on_the_chain(deployed: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    first = _report(deployed)
    for epoch in (0, 1):
        _publish(deployed, sessions, _report(deployed, epoch))
        deployed.warp(_logs(deployed)[-1].active_at)
        _activate(deployed, sessions, epoch)
    assert _publish(deployed, sessions, first).done
    assert len(_logs(deployed)) == 4
    with pytest.raises(ChainError, match="nothing was sent"):
        _publish(deployed, sessions, replace(first, root=_hash(9)))


def test_after_a_veto_another_root_is_posted_but_not_the_same(deployed: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    _publish(deployed, sessions, report)
    _veto(deployed)
    with pytest.raises(ChainError, match="was posted and rejected"):
        _publish(deployed, sessions, report)
    other = replace(report, root=_hash(8), data_hash=_hash(99))
    assert _publish(deployed, sessions, other).done
    _veto(deployed)
    assert [type(e) for e in _logs(deployed)] == [Posted, Vetoed, Posted, Vetoed]
    deployed.finalize()
    index(deployed.rpc, sessions, deployed.deployment)
    with pytest.raises(ChainError, match="was posted and rejected"):
        _publish(deployed, sessions, report)


def test_what_was_vetoed_is_posted_again_only_on_purpose_and_once(deployed: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    _publish(deployed, sessions, report)
    _veto(deployed)
    with pytest.raises(ChainError, match="--again"):
        _publish(deployed, sessions, report)
    for _ in range(2):
        with sessions() as session:
            account = deployed.accounts[0]
            assert publish(deployed.rpc, session, deployed.deployment, account, report, again=True).done
    assert [type(e) for e in _logs(deployed)] == [Posted, Vetoed, Posted]


def test_the_same_root_with_other_data_is_not_the_same_report(deployed: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    _publish(deployed, sessions, report)
    with pytest.raises(ChainError, match="data_hash"):
        _publish(deployed, sessions, replace(report, data_hash=_hash(77)))
    assert len(_logs(deployed)) == 1


def test_there_must_be_something_to_activate(deployed: Any, sessions: Sessions) -> None:
    with pytest.raises(ChainError, match="no root of epoch 0 is pending: nothing is"):
        _activate(deployed, sessions)


def test_a_dry_run_says_the_price_and_leaves_no_trace(deployed: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    balance, nonce = deployed.rpc.balance(deployed.address(0)), deployed.rpc.nonce(deployed.address(0))
    plan = _publish(deployed, sessions, report, dry_run=True)
    assert not plan.done
    assert plan.transaction is None
    assert plan.quote is not None
    assert 50_000 < (plan.quote.gas[0] or 0) < 200_000
    assert plan.quote.cost > 50_000
    assert plan.quote.balance == balance
    assert report.root in plan.what
    assert deployed.rpc.balance(deployed.address(0)) == balance
    assert deployed.rpc.nonce(deployed.address(0)) == nonce
    assert _statuses(sessions) == {}
    _publish(deployed, sessions, report)
    deployed.warp(_logs(deployed)[0].active_at)
    assert not _activate(deployed, sessions, dry_run=True).done
    assert [type(e) for e in _logs(deployed)] == [Posted]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sum": Wei(6)}, "total 6 is more than the 5 that ever came in"),
        ({"epoch": Epoch(1)}, "EpochNotOver|WrongEpoch"),
        ({"snapshot_hash": _hash(1)}, "SnapshotMismatch"),
        ({"depth": 200}, "TreeTooDeep"),
    ],
)
def test_what_the_contract_would_refuse_is_never_sent(
    deployed: Any, sessions: Sessions, change: dict[str, Any], words: str
) -> None:
    deployed.fund(4, 0, 5)
    report = replace(_report(deployed), **change)
    nonce = deployed.rpc.nonce(deployed.address(0))
    with pytest.raises(RevertError, match=words):
        _publish(deployed, sessions, report)
    assert deployed.rpc.nonce(deployed.address(0)) == nonce
    assert _statuses(sessions) == {}


def _publish_in_child(url: str, chain: Any, report: Report, database: str) -> None:
    engine = create_engine(database)
    with Rpc(url) as rpc, Session(engine) as session:
        publish(rpc, session, chain.deployment, chain.accounts[0], report)


@pytest.mark.parametrize("handed_over", [False, True])
def test_an_operator_killed_while_sending_sends_the_same_bytes(
    deployed: Any, liar: Any, engine: Engine, sessions: Sessions, *, handed_over: bool
) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    nonce = deployed.rpc.nonce(deployed.address(0))
    child = multiprocessing.get_context("fork").Process(
        target=_publish_in_child, args=(liar.url, deployed, report, str(engine.url))
    )

    def kill(calls: list[dict[str, Any]], *_: Any) -> None:
        if calls[0]["method"] == "eth_sendRawTransaction":
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            if not handed_over:
                raise ConnectionAbortedError

    if handed_over:
        liar.lie = kill
    else:
        liar.ask = kill
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with sessions() as session:
        stored = ledger.transaction(session, "post", 0)
        assert stored is not None
        assert stored.status == "stored"
        raw, hash_ = stored.raw, stored.hash
    assert len(_logs(deployed)) == int(handed_over)
    assert _publish(deployed, sessions, report).done
    assert [(e.tx, type(e)) for e in _logs(deployed)] == [(hash_, Posted)]
    assert deployed.rpc.nonce(deployed.address(0)) == nonce + 1
    with sessions() as session:
        row = ledger.transaction(session, "post", 0)
        assert row is not None
        assert (row.raw, row.hash, row.status) == (raw, hash_, "mined")


def _store_only(chain: Any, liar: Any, sessions: Sessions, report: Report) -> None:
    """Publish through a node that goes down at the moment of sending."""

    def refuse(calls: list[dict[str, Any]]) -> None:
        if calls[0]["method"] == "eth_sendRawTransaction":
            raise ConnectionAbortedError

    liar.ask = refuse
    with Rpc(liar.url, retries=0) as rpc, sessions() as session, pytest.raises(RpcError):
        publish(rpc, session, chain.deployment, chain.accounts[0], report)
    assert _statuses(sessions) == {"post": "stored"}


def test_a_stored_transaction_with_another_root_stops_everything(
    deployed: Any, liar: Any, sessions: Sessions
) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    _store_only(deployed, liar, sessions, report)
    with pytest.raises(ChainError, match="signed before with other contents"):
        _publish(deployed, sessions, replace(report, root=_hash(8)))
    assert _logs(deployed) == []


def test_a_stored_transaction_whose_nonce_is_gone_is_made_anew(
    deployed: Any, liar: Any, sessions: Sessions
) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    _store_only(deployed, liar, sessions, report)
    Courier(deployed.rpc, deployed.accounts[0]).send(deployed.address(9), b"", 1)
    # Not before that is final: a reorg might give the nonce back, and both would be sent.
    with pytest.raises(RpcError, match="was used by another one, in a block not final yet"):
        _publish(deployed, sessions, report, timeout_s=0.1)
    deployed.finalize()
    assert _publish(deployed, sessions, report).done
    assert len(_logs(deployed)) == 1


def test_stored_transactions_go_before_new_ones(deployed: Any, liar: Any, sessions: Sessions) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    _store_only(deployed, liar, sessions, report)
    token = Contract("HapticToken", deployed.deployment.token)
    data = token.encode("transfer", deployed.address(9), 1)
    with sessions() as session:
        key = TransactionKey("other", 0, ZERO)
        first = send(deployed.rpc, session, deployed.accounts[0], token.address, data, key=key)
        again = send(deployed.rpc, session, deployed.accounts[0], token.address, data, key=key)
        assert again.hash == first.hash
        done = bring(deployed.rpc, session, deployed.accounts[0], first)
        assert done is not None
        assert done.ok
    assert len(_logs(deployed)) == 1
    assert deployed.view(token, "balanceOf", deployed.address(9)) == 1


def test_a_transaction_that_reverts_in_its_block_says_why(deployed: Any) -> None:
    vault, who = deployed.deployment.stake_vault(), deployed.accounts[2]
    deployed.stake(2, 5)
    good = price(deployed.rpc, deployed.address(2), vault.address, vault.encode("requestUnstake", 5))
    bad = replace(good, data=vault.encode("requestUnstake", 6))
    signed = sign(who, bad.numbered(deployed.rpc.nonce(deployed.address(2))))
    deployed.rpc.send_raw(signed.raw)
    deadline = time.monotonic() + 10
    while (receipt := deployed.rpc.receipt(signed.hash)) is None:
        assert time.monotonic() < deadline
    with pytest.raises(RevertError, match=r"reverted in block \d+: 0x.* asked for 6 but has only 5"):
        must_succeed(deployed.rpc, receipt)


def test_a_lost_answer_to_a_sent_transaction_is_no_error(deployed: Any, liar: Any) -> None:
    cut = iter([True])

    def lie(calls: list[dict[str, Any]], _: Any) -> None:
        if calls[0]["method"] == "eth_sendRawTransaction" and next(cut, False):
            raise ConnectionAbortedError

    liar.lie = lie
    token = Contract("HapticToken", deployed.deployment.token)
    with Rpc(liar.url) as rpc:
        transact(rpc, deployed.accounts[0], token, "transfer", deployed.address(9), 3)
    assert deployed.view(token, "balanceOf", deployed.address(9)) == 3


def test_an_account_without_gas_is_told_how_much_it_needs(deployed: Any) -> None:
    deployed.rpc.request("anvil_setBalance", deployed.address(6), "0x5")
    with pytest.raises(
        ChainError,
        match=rf"{deployed.address(6)} has 0\.0{{17}}5 ETH \(5 wei\), but its transaction may need "
        r"0\.\d+ ETH \((\d+) wei\): 0\.\d+ ETH \(\d+ wei\) are missing",
    ):
        deployed.act(6, Contract("HapticToken", deployed.deployment.token), "approve", deployed.address(1), 0)


def test_a_report_is_stored_once_and_replaced_only_after_a_veto(deployed: Any, sessions: Sessions) -> None:
    report = _report(deployed)

    def row(root: Hash32, status: str) -> EpochReport:
        fields = {name: getattr(report, name) for name in Report.__dataclass_fields__ if name != "root"}
        return EpochReport(**fields, root=root, bundle_path="epoch-0.jsonl", status=status, built_at=1)

    with sessions() as session:
        ledger.save_epoch_report(session, row(report.root, "built"))
        session.commit()
        ledger.save_epoch_report(session, row(report.root, "posted"))
        session.commit()
        kept = ledger.epoch_report(session, 0)
        assert kept is not None
        assert report_of(kept) == report
        with pytest.raises(ChainError, match="same epoch must give the same report"):
            ledger.save_epoch_report(session, row(_hash(8), "built"))
        ledger.save_epoch_report(session, row(report.root, "vetoed"))
        ledger.save_epoch_report(session, row(_hash(8), "built"))
        session.commit()
        assert [(r.epoch, r.root) for r in ledger.epoch_reports(session)] == [(0, _hash(8))]


def test_amounts_of_256_bits_survive_the_database(deployed: Any, sessions: Sessions) -> None:
    report = _report(deployed, total=(1 << 256) - 1)
    fields = {name: getattr(report, name) for name in Report.__dataclass_fields__}
    with sessions() as session:
        session.add(EpochReport(**fields, bundle_path="x", status="built", built_at=1))
        session.commit()
    with sessions() as session:
        kept = ledger.epoch_report(session, 0)
        assert kept is not None
        assert kept.sum == (1 << 256) - 1


def test_a_node_that_limits_ranges_does_not_hold_an_epoch_up(
    deployed: Any, sessions: Sessions, liar: Any
) -> None:
    deployed.fund(4, 0, 5)
    report = _report(deployed)
    mine(deployed.rpc, 40)

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            wanted = call["params"][0] if call["method"] == "eth_getLogs" else {}
            if wanted and int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) > 9:
                answer.pop("result", None)
                answer["error"] = {"code": -32600, "message": "block range is too wide"}

    liar.lie = lie
    with Rpc(liar.url, retries=0) as rpc, sessions() as session:
        assert publish(rpc, session, deployed.deployment, deployed.accounts[0], report).done
    assert [type(e) for e in _logs(deployed)] == [Posted]
