"""Contract wallets of every kind on a real chain: what they accept, when, and that nothing they do is taken for a no."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account
from eth_typing import Hash32 as EthHash32

from chain.canonical import text_hash
from chain.devnet import Devnet, mine
from chain.errors import RpcError, SignatureError
from chain.keys import address_of
from chain.messages import MAX_SIGNATURE_BYTES
from chain.rpc import Rpc
from chain.types import Address
from chain.wallets import ACCEPTED, NO_CODE, REFUSED, Asked, question_of
from tests.integration.conftest import Liar
from tests.integration.contracts import data_of, predicted, put, send, wrapped

OWNER, OTHER = (Account.from_key(bytes([n]) * 32) for n in (7, 8))
DIGEST = text_hash("what is signed")
SALT = b"\x05" * 32
ODD = ("revert", "spin", "flood", "flood and revert", "short", "dirty", "empty", "greedy", "yes")


@pytest.fixture(scope="module")
def rpc() -> Iterator[Rpc]:
    with Devnet(0) as anvil, Rpc(anvil.url) as made:
        yield made


def _sign(account: Any, digest: str = DIGEST) -> str:
    return "0x" + bytes(account.unsafe_sign_hash(EthHash32(bytes.fromhex(digest[2:]))).signature).hex()


def _asked(rpc: Rpc, wallet: Address, signature: str) -> bytes:
    """Return the verdict at a block that is final by now."""
    head = rpc.block("latest").number
    mine(rpc, 2)
    found = Asked(rpc)
    assert found.finalized().number == head
    return found.verdict(wallet, DIGEST, signature, head)


def test_a_contract_accepts_its_owner_and_nobody_else(rpc: Rpc) -> None:
    wallet = put(rpc, "OwnerWallet", address_of(OWNER))
    assert _asked(rpc, wallet, _sign(OWNER)) == ACCEPTED
    assert _asked(rpc, wallet, _sign(OTHER)) == REFUSED
    assert _asked(rpc, wallet, "0x") == REFUSED


def test_an_address_without_a_contract_is_told_apart(rpc: Rpc) -> None:
    assert _asked(rpc, address_of(OWNER), _sign(OTHER)) == NO_CODE


def test_a_wallet_that_changes_hands_is_asked_as_it_was(rpc: Rpc) -> None:
    wallet = put(rpc, "OwnerWallet", address_of(OWNER))
    before = rpc.block("latest").number
    send(rpc, wallet, data_of("setOwner(address)", address_of(OTHER)))
    after = rpc.block("latest").number
    asked = Asked(rpc)
    for block, owner, stranger in ((before, OWNER, OTHER), (after, OTHER, OWNER)):
        assert asked.accepts(wallet, DIGEST, _sign(owner), block)
        assert not asked.accepts(wallet, DIGEST, _sign(stranger), block)
    assert asked.time(before) <= asked.time(after)


def test_a_wallet_that_is_not_deployed_yet_signs_and_stays_undeployed(rpc: Rpc) -> None:
    factory = put(rpc, "WalletFactory")
    wallet = predicted(rpc, factory, OWNER, SALT)
    deployment = data_of("deploy(address,bytes32)", address_of(OWNER), SALT)
    assert _asked(rpc, wallet, wrapped(factory, deployment, _sign(OWNER))) == ACCEPTED
    assert _asked(rpc, wallet, wrapped(factory, deployment, _sign(OTHER))) == REFUSED
    assert _asked(rpc, wallet, wrapped(factory, data_of("refuse()"), _sign(OWNER))) == NO_CODE
    assert _asked(rpc, wallet, _sign(OWNER)) == NO_CODE
    assert rpc.code(wallet) == b""
    send(rpc, factory, deployment)
    assert rpc.code(wallet)
    assert _asked(rpc, wallet, wrapped(factory, deployment, _sign(OWNER))) == ACCEPTED
    assert _asked(rpc, wallet, _sign(OWNER)) == ACCEPTED


def test_an_account_that_delegates_signs_by_the_code_it_delegates_to(rpc: Rpc) -> None:
    person = Account.from_key(b"\x0b" * 32)
    code = put(rpc, "SelfWallet")
    granted = person.sign_authorization({"chainId": 31337, "address": code, "nonce": 0})
    payer = Account.from_key(b"\x0c" * 32)
    rpc.request("anvil_setBalance", payer.address, hex(10**18))
    signed = payer.sign_transaction({
        "type": 4, "chainId": 31337, "nonce": 0, "to": payer.address, "value": 0, "data": "0x", "gas": 100_000,
        "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 1, "accessList": [], "authorizationList": [granted],
    })  # fmt: skip
    rpc.send_raw(bytes(signed.raw_transaction))
    wallet = address_of(person)
    assert rpc.code(wallet) == bytes.fromhex("ef0100" + code[2:])
    assert _asked(rpc, wallet, "0x07" + _sign(person)[2:]) == ACCEPTED
    assert _asked(rpc, wallet, "0x07" + _sign(OTHER)[2:]) == REFUSED


@pytest.mark.parametrize("way", range(len(ODD)), ids=ODD)
def test_whatever_a_contract_does_there_is_a_verdict_soon(rpc: Rpc, way: int) -> None:
    wallet = put(rpc, "OddWallet")
    began = time.monotonic()
    said = _asked(rpc, wallet, f"0x{way:02x}")
    assert said == (ACCEPTED if ODD[way] in {"flood", "yes"} else REFUSED)
    preparation = b"\x01".ljust(32, b"\0")
    assert _asked(rpc, wallet, wrapped(wallet, preparation, f"0x{way:02x}")) == said
    assert time.monotonic() - began < 3


def test_the_longest_signature_fits(rpc: Rpc) -> None:
    wallet = put(rpc, "OddWallet")
    longest = "0x" + "ff" * (MAX_SIGNATURE_BYTES - 32) + "08" + "ff" * 31
    assert _asked(rpc, wallet, longest) == ACCEPTED
    with pytest.raises(SignatureError, match="16384 at most"):
        question_of(longest + "ff")


@pytest.mark.parametrize(
    "body", ["", "00" * 31, "ff" * 96, "00" * 32 + "ff" * 64, "ff" * 32 + "00" * 31 + "60" + "00" * 31 + "80"]
)
def test_a_wrapping_that_is_broken_is_named(body: str) -> None:
    with pytest.raises(SignatureError, match="it ends as ERC-6492 has it"):
        question_of("0x" + body + "6492" * 16)


@pytest.mark.parametrize("signature", ["", "0x0", "0X00", "0xAB", "0xgg", "00", 7, None])
def test_what_are_no_bytes_is_no_signature(signature: Any) -> None:
    with pytest.raises(SignatureError, match="lowercase hex"):
        question_of(signature)


def test_a_node_that_keeps_no_state_that_old_is_no_refusal(liar: Liar) -> None:
    def pruned(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_call":
                answer.pop("result", None)
                answer["error"] = {"code": -32000, "message": "missing trie node 1234 (path )"}

    liar.lie = pruned
    with Rpc(liar.url, retries=0) as node, pytest.raises(RpcError, match="archive node"):
        Asked(node).accepts(address_of(OWNER), DIGEST, _sign(OWNER), 1)


@pytest.mark.parametrize("said", ["0x", "0x03", "0x0001", None, 7])
def test_a_node_that_cannot_run_creation_code_is_no_refusal(liar: Liar, said: Any) -> None:
    def odd(calls: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_call":
                answer["result"] = said

    liar.lie = odd
    with Rpc(liar.url, retries=0) as node, pytest.raises(RpcError, match="use another node"):
        Asked(node).accepts(address_of(OWNER), DIGEST, _sign(OWNER), 0)
