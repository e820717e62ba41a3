"""A node that hides what became of a report or a claim, and nothing after it, is found out by the distributor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chain import ledger
from chain.errors import MissingLogError
from chain.events import Activated, Challenged, Claimed, Mark, Posted, Vetoed, topics
from chain.hashing import keccak256
from chain.indexer import index
from chain.rpc import Rpc
from chain.types import Hash32
from tests.faulty import Fault, Faulty, drops_log
from tests.integration.conftest import Chain
from tests.integration.indexer.staking import NOTHING, Dump, Sessions, run
from tests.integration.payer import BROKEN, Payer


@pytest.fixture
def payer(deployed: Chain) -> Payer:
    """Play an epoch that ended well, so that there is something before what is hidden."""
    made = Payer(deployed)
    made.pay(70)
    return made


def _posted(payer: Payer) -> None:
    payer.post(70)


def _activated(payer: Payer) -> None:
    payer.post(70)
    payer.activate()


def _vetoed(payer: Payer) -> None:
    payer.post(70)
    payer.veto()


def _challenged(payer: Payer) -> None:
    payer.post(70, Hash32("0x" + keccak256(BROKEN).hex()))
    payer.challenge()


def _claimed(payer: Payer) -> None:
    payer.pay(100)


LAST = pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (_posted, Posted, "`pending` is .* by the indexed events"),
        (_activated, Activated, "`active` is .* by the indexed events"),
        (_vetoed, Vetoed, "`pending` is .* by the indexed events"),
        (_challenged, Challenged, "`pending` is .* by the indexed events"),
        (_claimed, Claimed, "30 of revenue that nobody claimed.* the node hides a claim"),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else None,
)


def _drops_last(kind: type[Mark]) -> Fault:
    return drops_log(-1, topics(kind)[0])


@LAST
def test_the_last_that_became_of_a_report_or_a_claim_cannot_be_hidden(
    payer: Payer, sessions: Sessions, dump: Dump, wipe: Callable[[], None], end: Callable[[Payer], None],
    kind: type[Mark], words: str,
) -> None:  # fmt: skip
    chain = payer.chain
    end(payer)
    chain.finalize()
    with Faulty(chain.url, _drops_last(kind)) as liar:
        with pytest.raises(MissingLogError, match=words):
            run(chain, sessions, liar.url)
        assert dump() == NOTHING
        run(chain, sessions)
        right = dump()
        wipe()
        with Rpc(f"{liar.url},{chain.url}", retries=0) as rpc:
            index(rpc, sessions, chain.deployment)
            assert rpc.standing()[liar.url]
            assert not rpc.standing()[chain.url]
    assert dump() == right


@LAST
def test_it_cannot_be_hidden_either_where_the_index_goes_on(
    payer: Payer, sessions: Sessions, dump: Dump, end: Callable[[Payer], None], kind: type[Mark], words: str
) -> None:
    chain = payer.chain
    payer.give(1_000)
    chain.finalize()
    run(chain, sessions)
    agreed = dump()
    end(payer)
    chain.finalize()
    with (
        Faulty(chain.url, _drops_last(kind)) as liar,
        pytest.raises(MissingLogError, match=f"{words}.*`haptic index --anew`"),
    ):
        run(chain, sessions, liar.url)
    assert dump() == agreed


@pytest.mark.parametrize("given", [1, 70, 5_000])
def test_tokens_that_somebody_sends_the_distributor_make_no_node_a_liar(
    payer: Payer, sessions: Sessions, given: int
) -> None:
    chain = payer.chain
    for amount in (100, 101):
        payer.give(given)
        chain.finalize()
        run(chain, sessions)
        payer.pay(amount)
        chain.finalize()
        run(chain, sessions)
    with sessions() as session:
        agreed = ledger.checkpoint(session, which=ledger.VERIFIED)
        assert agreed is not None
        assert (agreed.claimed, agreed.surplus) == (101, 2 * given)


def test_a_hole_that_is_older_than_the_last_agreement_is_closed_by_reading_anew(
    payer: Payer, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    """Whoever sends as much as the claim that is hidden hides it; until the account claims again."""
    chain = payer.chain
    payer.give(70)
    chain.finalize()
    with Faulty(chain.url, _drops_last(Claimed)) as liar:
        run(chain, sessions, liar.url)
    payer.pay(100)
    chain.finalize()
    with Rpc(chain.url, retries=0) as rpc:
        for _ in range(2):
            with pytest.raises(
                MissingLogError, match=r"was paid should be 30, but is 100.*`haptic index --anew`"
            ):
                index(rpc, sessions, chain.deployment)
    with sessions() as session:
        assert ledger.take_back(session, anew=True) is None
        session.commit()
    assert dump() == NOTHING
    run(chain, sessions)
    mended: list[Any] = dump()
    wipe()
    run(chain, sessions)
    assert dump() == mended


def test_whenever_it_is_looked_at_the_distributor_agrees_with_an_honest_node(
    payer: Payer, sessions: Sessions, dump: Dump, wipe: Callable[[], None]
) -> None:
    for step in (
        lambda: payer.post(70), payer.veto, lambda: payer.post(70, Hash32("0x" + keccak256(BROKEN).hex())),
        payer.challenge, payer.chain.add_bond, lambda: payer.post(70), payer.activate, lambda: payer.give(5),
        lambda: payer.pay(90), lambda: payer.post(90),
    ):  # fmt: skip
        step()
        last = payer.chain.finalize()
        run(payer.chain, sessions)
        with sessions() as session:
            agreed = ledger.checkpoint(session, which=ledger.VERIFIED)
            assert agreed is not None
            assert agreed.number == last.number
    followed = dump()
    wipe()
    run(payer.chain, sessions)
    assert dump()[1:] == followed[1:]
