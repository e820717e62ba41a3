"""What an operator commits to and reveals reaches the chain's ledger once, and never turns into something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import Session

from chain import ledger
from chain.assignment import seed_commitment
from chain.canonical import text_hash
from chain.committer import Writer, abandon_epoch, close_epoch, committed_lambda, epoch_record, open_epoch
from chain.contracts import call
from chain.errors import ChainError, NodeError, RevertError
from chain.hashing import keccak256
from chain.merkle import EMPTY_ROOT
from chain.opening import Opening
from chain.rpc import Rpc
from chain.step import Outcome
from chain.types import Hash32, Ratio
from tests.integration.conftest import EPOCH_S, GENESIS

Sessions = Callable[[], Session]
SEED = keccak256(b"seed")
OPENING = Opening(seed_commitment(SEED), text_hash("gold"), text_hash("rules"), Ratio(10**19, 6 * 10**6))
LEDGER_ROOT, DATA = text_hash("rankings"), text_hash("bundle")


def _open(chain: Any, sessions: Sessions, opening: Opening = OPENING, **options: Any) -> Any:
    with sessions() as session:
        return open_epoch(
            Writer(chain.rpc, session, chain.deployment, chain.accounts[0], **options), 0, opening
        )


def _close(chain: Any, sessions: Sessions, root: Any = LEDGER_ROOT, data: Any = DATA, **options: Any) -> Any:
    with sessions() as session:
        writer = Writer(chain.rpc, session, chain.deployment, chain.accounts[0], **options)
        return close_epoch(writer, 0, SEED, OPENING, root, data)


def _sent(chain: Any) -> int:
    return int(chain.rpc.nonce(chain.address(0)))


def test_an_opening_is_hashed_as_the_contract_hashes_it(deployed: Any, sessions: Sessions) -> None:
    _open(deployed, sessions)
    assert epoch_record(deployed.rpc, deployed.deployment, 0).opening == OPENING.hash()


def test_an_epoch_is_opened_and_closed_once_however_often_it_is_asked_for(
    deployed: Any, sessions: Sessions
) -> None:
    assert _open(deployed, sessions).transaction is not None
    sent = _sent(deployed)
    assert _open(deployed, sessions).transaction is None
    deployed.warp(GENESIS + EPOCH_S)
    assert _sent(deployed) == sent
    assert _close(deployed, sessions).transaction is not None
    assert _close(deployed, sessions).transaction is None
    assert _sent(deployed) == sent + 1
    known = epoch_record(deployed.rpc, deployed.deployment, 0)
    assert (known.ledger_root, known.data_hash) == (LEDGER_ROOT, DATA)
    assert GENESIS <= known.opened_at < GENESIS + EPOCH_S <= known.closed_at


def test_a_dry_run_sends_and_stores_nothing_and_names_the_price(deployed: Any, sessions: Sessions) -> None:
    sent = _sent(deployed)
    plan = _open(deployed, sessions, dry_run=True)
    assert not plan.done
    assert plan.quote is not None
    assert (plan.quote.gas[0] or 0) > 21_000
    assert plan.quote.cost > 0
    with sessions() as session:
        assert ledger.transaction(session, "open", 0) is None
    assert _sent(deployed) == sent
    assert not epoch_record(deployed.rpc, deployed.deployment, 0).opened_at


@pytest.mark.parametrize(
    "other",
    [
        replace(OPENING, seed_hash=text_hash("x")), replace(OPENING, gold_root=text_hash("x")),
        replace(OPENING, rules_hash=text_hash("x")), replace(OPENING, lam=Ratio(1, 2)),
    ],
)  # fmt: skip
def test_what_was_committed_to_is_never_taken_for_something_else(
    deployed: Any, sessions: Sessions, other: Opening
) -> None:
    _open(deployed, sessions)
    with pytest.raises(ChainError, match="HAPTIC_SECRET"):
        _open(deployed, sessions, other)


def test_a_bundle_that_was_made_anew_replaces_the_hash_and_other_rankings_never(
    deployed: Any, sessions: Sessions
) -> None:
    _open(deployed, sessions)
    deployed.warp(GENESIS + EPOCH_S)
    _close(deployed, sessions)
    with pytest.raises(ChainError, match="rankings"):
        _close(deployed, sessions, root=text_hash("others"))
    again = text_hash("bundle, made anew")
    assert not _close(deployed, sessions, data=again, dry_run=True).done
    assert _close(deployed, sessions, data=again).transaction is not None
    assert _close(deployed, sessions, data=again).transaction is None
    known = epoch_record(deployed.rpc, deployed.deployment, 0)
    assert (known.ledger_root, known.data_hash) == (LEDGER_ROOT, again)


def test_what_the_ledger_would_refuse_is_never_sent(deployed: Any, sessions: Sessions) -> None:
    sent = _sent(deployed)
    with pytest.raises(RevertError, match="0 was not opened, or is closed already"):
        _close(deployed, sessions)
    _open(deployed, sessions)
    with pytest.raises(RevertError, match=rf"0 lasts until {GENESIS + EPOCH_S}"):
        _close(deployed, sessions)
    assert _sent(deployed) == sent + 1
    assert call(deployed.rpc, deployed.deployment.ledger_contract(), "closed") == 0


def test_an_abandoned_epoch_is_never_closed_and_a_closed_one_can_be_abandoned(
    deployed: Any, sessions: Sessions
) -> None:
    def abandon(epoch: int, data: Hash32 = DATA) -> Outcome:
        with sessions() as session:
            writer = Writer(deployed.rpc, session, deployed.deployment, deployed.accounts[0])
            return abandon_epoch(writer, epoch, data)

    _open(deployed, sessions)
    with pytest.raises(RevertError, match=rf"0 lasts until {GENESIS + EPOCH_S}"):
        abandon(0)
    deployed.warp(GENESIS + EPOCH_S)
    assert abandon(0).transaction is not None
    assert abandon(0).transaction is None
    with pytest.raises(ChainError, match="epoch 0 was abandoned on the chain: it cannot be closed any more"):
        _close(deployed, sessions, root=EMPTY_ROOT)
    known = epoch_record(deployed.rpc, deployed.deployment, 0)
    assert (known.abandoned, known.ledger_root, known.data_hash) == (True, EMPTY_ROOT, DATA)
    again = text_hash("another bundle")
    assert abandon(0, again).transaction is not None
    amended = epoch_record(deployed.rpc, deployed.deployment, 0)
    assert amended.data_hash == again
    assert amended.amended_at >= amended.closed_at > 0
    with sessions() as session:
        writer = Writer(deployed.rpc, session, deployed.deployment, deployed.accounts[0])
        open_epoch(writer, 1, OPENING)
        deployed.warp(GENESIS + 2 * EPOCH_S)
        close_epoch(writer, 1, SEED, OPENING, LEDGER_ROOT, DATA)
    assert abandon(1).transaction is not None
    known = epoch_record(deployed.rpc, deployed.deployment, 1)
    assert (known.abandoned, known.ledger_root, known.data_hash) == (True, EMPTY_ROOT, DATA)
    assert abandon(1).transaction is None


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log | {"data": log["data"][:-64]},
        lambda log: log | {"data": "0x"},
        lambda log: log | {"data": log["data"][:-1]},
        lambda log: log | {"data": log["data"][:-1] + "f"},
        lambda log: log | {"topics": log["topics"][:1]},
        lambda log: log | {"topics": [log["topics"][0], "0x"]},
        lambda log: log | {"topics": [log["topics"][0], "0x" + "1" * 64]},
        lambda log: log | {"address": "0x" + "1" * 40},
        lambda log: log | {"removed": True},
        lambda log: log | {"blockNumber": "zz"},
        lambda _log: None,
    ],
)
def test_a_lambda_that_a_node_makes_up_or_hides_is_read_from_another(
    deployed: Any, liar: Any, sessions: Sessions, change: Any
) -> None:
    _open(deployed, sessions)

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call_, answer in zip(calls, answers, strict=True):
            if call_["method"] == "eth_getLogs":
                answer["result"] = [changed for log in answer["result"] if (changed := change(log))]

    liar.lie = lie
    d = deployed.deployment
    with Rpc(f"{liar.url},{deployed.url}", retries=0) as rpc:
        assert committed_lambda(rpc, d, 0, OPENING.hash()) == OPENING.lam
        assert rpc.standing()[liar.url].startswith("is distrusted: ")
    with Rpc(liar.url, retries=0) as rpc:
        with pytest.raises(NodeError, match=liar.url):
            committed_lambda(rpc, d, 0, OPENING.hash())
        liar.lie = lambda _calls, _answers: None
        assert committed_lambda(rpc, d, 0, OPENING.hash()) == OPENING.lam
