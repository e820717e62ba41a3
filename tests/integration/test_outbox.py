"""What was stored is sent once, whatever fees and reorgs do; nothing counts before it is final."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import select

from chain import outbox
from chain.attempts import PATIENCE, Taken, hand_over, sign
from chain.contracts import Contract
from chain.devnet import mine
from chain.errors import ChainError, RevertError
from chain.fees import GWEI
from chain.ledger import TransactionRow
from chain.rpc import Rpc
from chain.signer import KeySigner, decode
from chain.transactions import price
from chain.types import Hash32, Wei
from tests.integration.postbox import ACCOUNTS, KEY, ME, Post, Sessions, is_the_same

# -- fees --------------------------------------------------------------------------------------------------------


def test_what_fees_left_behind_is_replaced_by_the_same_with_higher_fees(post: Post) -> None:
    post.send()
    post.raise_fees()
    assert post.settle() is None
    assert len(post.attempts()) == 2
    is_the_same(post)
    mine(post.rpc)
    receipt = post.settle()
    assert receipt is not None
    assert receipt.transaction_hash == post.attempts()[1].hash != post.row().hash
    assert (post.given(), post.rpc.nonce(ME), post.status()) == (1, 1, "mined")


def test_it_is_replaced_again_and_again_while_fees_rise(post: Post) -> None:
    post.send()
    for gwei in (100, 1_000, 10_000):
        post.raise_fees(gwei)
        post.settle()
    assert len(post.attempts()) == 4
    is_the_same(post)
    mine(post.rpc)
    assert post.settle() is not None
    assert (post.given(), post.nonces()) == (1, [0])


def test_an_attempt_is_given_its_blocks_before_it_is_replaced(post: Post) -> None:
    post.send()
    for _ in range(PATIENCE - 1):
        post.raise_fees(blocks=1)
        assert post.settle() is None
        assert len(post.attempts()) == 1


def test_what_a_node_forgot_is_handed_over_again_as_it_was_while_it_offers_enough(post: Post) -> None:
    sent = post.send()
    post.rpc.request("anvil_dropTransaction", sent.hash)
    mine(post.rpc, 2 * PATIENCE)
    assert post.settle() is None
    assert [each.hash for each in post.attempts()] == [sent.hash]
    mine(post.rpc)
    assert post.settle() is not None
    assert post.given() == 1


def test_a_tip_that_is_no_longer_usual_is_a_reason_too(post: Post, liar: Any) -> None:
    post.send()
    mine(post.rpc, 0)

    def lie(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_maxPriorityFeePerGas":
                answer["result"] = hex(5 * GWEI)

    liar.lie = lie
    post.rpc.request("anvil_dropTransaction", post.row().hash)
    mine(post.rpc, PATIENCE)
    with Rpc(liar.url) as rpc:
        post.settle(rpc=rpc)
    assert [decode(each.raw).content.tip for each in post.attempts()] == [GWEI, 5 * GWEI]


def test_an_attempt_that_was_replaced_and_is_mined_after_all_settles_the_row(post: Post) -> None:
    first = post.send()
    post.raise_fees()
    post.settle()
    dearer = post.attempts()[1]
    post.rpc.request("anvil_dropTransaction", dearer.hash)
    post.lower_fees()
    mine(post.rpc)
    post.lower_fees()
    assert hand_over(post.rpc, first.raw) is Taken.POOLED
    mine(post.rpc)
    receipt = post.settle()
    assert receipt is not None
    assert receipt.transaction_hash == first.hash
    mine(post.rpc, 2)
    post.settle()
    assert (post.status(), post.given(), post.nonces()) == ("final", 1, [0])


def test_the_limit_on_fees_stops_a_replacement_in_words_and_sends_nothing(post: Post, liar: Any) -> None:
    post.payer = KeySigner(ACCOUNTS[0], Wei(50 * GWEI))
    post.send()
    post.raise_fees(100)
    with Rpc(liar.url) as rpc, pytest.raises(
        ChainError, match=r"101\.\d+ gwei \(base fee 100 gwei, tip 1 gwei\), more than the limit of 50 gwei"
    ):  # fmt: skip
        post.settle(rpc=rpc)
    assert len(post.attempts()) == 1
    post.lower_fees()
    mine(post.rpc)
    post.lower_fees()
    post.settle()
    mine(post.rpc)
    assert post.settle() is not None
    assert post.given() == 1


def test_only_the_account_that_signed_a_transaction_replaces_it(post: Post) -> None:
    post.send()
    post.raise_fees()
    post.payer = ACCOUNTS[1]
    with pytest.raises(
        ChainError, match=rf"was signed by {ME}, was overtaken .* run this once more with its key"
    ):
        post.settle()
    assert len(post.attempts()) == 1


def test_the_limit_on_fees_holds_for_the_first_attempt_too(post: Post) -> None:
    post.payer = KeySigner(ACCOUNTS[0], Wei(50 * GWEI))
    post.raise_fees(60)
    with pytest.raises(ChainError, match="HAPTIC_MAX_FEE_GWEI"):
        post.send()
    assert post.nonces() == []
    post.raise_fees(30)
    post.send()
    assert decode(post.attempts()[0].raw).content.max_fee == 50 * GWEI


# -- gas ---------------------------------------------------------------------------------------------------------


def test_an_account_that_cannot_pay_is_told_what_is_missing_before_anything_is_stored(post: Post) -> None:
    post.rpc.request("anvil_setBalance", ME, hex(10**9))
    with pytest.raises(ChainError, match=rf"{ME} has 0\.000000001 ETH .* are missing"):
        post.send()
    assert post.nonces() == []


def test_an_account_that_runs_dry_while_it_waits_is_told_what_is_missing(post: Post) -> None:
    row = post.send()
    needed = decode(row.raw).content.cost
    post.rpc.request("anvil_setBalance", ME, hex(needed - 1))
    with pytest.raises(ChainError, match=rf"may need .*{needed} wei\): .*\(1 wei\) are missing"):
        post.settle()
    post.rpc.request("anvil_setBalance", ME, hex(needed))
    assert post.settle() is None


def test_an_account_that_cannot_pay_for_the_replacement_is_told_before_that_is_stored(post: Post) -> None:
    row = post.send()
    post.raise_fees()
    post.rpc.request("anvil_setBalance", ME, hex(decode(row.raw).content.cost))
    with pytest.raises(ChainError, match="are missing"):
        post.settle()
    assert len(post.attempts()) == 1


# -- finality ----------------------------------------------------------------------------------------------------


def test_nothing_is_settled_for_good_before_its_block_is_final(post: Post) -> None:
    post.send()
    assert post.status() == "sent"
    mine(post.rpc)
    for expected in ("mined", "mined", "final"):
        post.settle()
        assert post.status() == expected
        mine(post.rpc)


def test_what_a_reorg_took_out_is_sent_again_with_the_same_bytes(post: Post) -> None:
    row = post.send()
    for _ in range(3):
        mine(post.rpc)
        assert post.settle() is not None
        post.rpc.request("anvil_reorg", 1, [])
        assert post.rpc.receipt(Hash32(row.hash)) is None
        assert post.settle() is None
        assert post.status() == "sent"
    mine(post.rpc, 3)
    assert post.settle() is not None
    assert post.row().raw == row.raw
    assert (post.status(), post.given(), post.nonces(), len(post.attempts())) == ("final", 1, [0], 1)


def test_what_is_final_is_never_sent_again(post: Post, liar: Any) -> None:
    post.send()
    mine(post.rpc, 3)
    post.settle()

    def forget(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getTransactionReceipt":
                answer["result"] = None
            if call["method"] == "eth_getTransactionCount":
                answer["result"] = "0x0"

    liar.lie = forget
    with Rpc(liar.url) as rpc:
        post.settle(rpc=rpc)
        assert post.send(rpc=rpc).status == "final"
    assert "eth_sendRawTransaction" not in liar.seen


def test_a_nonce_that_another_transaction_used_is_lost_only_once_that_is_final(post: Post) -> None:
    row = post.send()
    post.rpc.request("anvil_dropTransaction", row.hash)
    foreign = sign(ACCOUNTS[0], price(post.rpc, ME, ME, b"").numbered(0))
    post.rpc.send_raw(foreign.raw)
    mine(post.rpc)
    post.settle()
    assert post.status() == "sent"
    assert post.send().id == row.id
    post.rpc.request("anvil_reorg", 1, [])
    post.settle()
    mine(post.rpc)
    assert post.settle() is not None
    assert (post.given(), post.nonces()) == (1, [0])


def test_what_lost_its_nonce_for_good_is_made_anew_with_the_next(post: Post) -> None:
    row = post.send()
    post.rpc.request("anvil_dropTransaction", row.hash)
    post.rpc.send_raw(sign(ACCOUNTS[0], price(post.rpc, ME, ME, b"").numbered(0)).raw)
    mine(post.rpc, 3)
    assert post.settle() is None
    assert post.status() == "lost"
    assert post.send().nonce == 1
    mine(post.rpc)
    assert post.settle() is not None
    assert post.given() == 1


def test_what_was_reverted_is_made_anew_only_once_that_is_final(deployed: Any, sessions: Sessions) -> None:
    token = Contract("HapticToken", deployed.deployment.token)
    deployed.act(0, token, "approve", deployed.address(2), 5)
    deployed.rpc.request("evm_setAutomine", False)  # noqa: FBT003
    data = token.encode("transferFrom", deployed.address(0), deployed.address(3), 5)

    def send() -> TransactionRow:
        with sessions() as session:
            return outbox.send(deployed.rpc, session, deployed.accounts[2], token.address, data, key=KEY)

    send()
    faster = price(deployed.rpc, ME, token.address, token.encode("approve", deployed.address(2), 0))
    faster = replace(faster, tip=Wei(9 * GWEI), max_fee=Wei(99 * GWEI))
    nonce = deployed.rpc.nonce(ME)
    deployed.rpc.send_raw(sign(deployed.accounts[0], faster.numbered(nonce)).raw)
    mine(deployed.rpc)
    with pytest.raises(ChainError, match=r"was reverted in block \d+, which is not final yet"):
        send()
    mine(deployed.rpc, 2)
    with pytest.raises(RevertError, match="would refuse"):
        send()
    with sessions() as session:
        assert [row.status for row in session.exec(select(TransactionRow))] == ["failed"]
