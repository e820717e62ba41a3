"""Our EIP-712 is everybody's: digests and signatures of eth-account by property, of viem by fixed vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from chain.hashing import keccak256
from chain.keys import address_of
from chain.messages import MAX_INT, Domain, Message, Ranking, Receipt, Session, recover, sign

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "eip712.json").read_text(encoding="utf-8"))
KINDS: dict[str, type[Message]] = {"Session": Session, "Ranking": Ranking, "Receipt": Receipt}
STRUCTS = {
    "Session": "address wallet,address key,uint64 epoch,uint32 maxJudgements,uint64 notAfter,"
    "bytes32 termsHash",
    "Ranking": (
        "address wallet,uint64 epoch,bytes32 task,string method,string summary,bytes32[] shown,uint8[] ranks,"
        "uint8[] likert,string flag,bytes32 commentHash,uint16 revision,uint64 signedAt"
    ),
    "Receipt": "bytes32 digest,uint64 epoch,uint64 position,uint64 receivedAt",
}
"""The structs of the protocol, written out a second time."""


def _hex(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(lambda b: "0x" + b.hex())


addresses, hashes, keys = _hex(20), _hex(32), st.integers(1, 2**255)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
domains = st.builds(Domain, chain_id=st.integers(1, 2**64), vault=addresses)


def _values(kind: str) -> st.SearchStrategy[Any]:
    if kind.endswith("[]"):
        return st.lists(_values(kind[:-2]), max_size=6)
    if kind.startswith("uint"):
        return st.integers(0, min(2 ** int(kind[4:]) - 1, MAX_INT))
    return {"address": addresses, "bytes32": hashes, "string": texts}[kind]


def _fields(name: str) -> list[tuple[str, str]]:
    return [(n, t) for t, n in (field.split() for field in STRUCTS[name].split(","))]


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(STRUCTS)))
    return name, {n: draw(_values(t)) for n, t in _fields(name)}


def _theirs(domain: Domain, name: str, value: dict[str, Any]) -> Any:
    """Return the message as eth-account encodes it."""
    where = {"name": "Haptic", "version": "1", "chainId": domain.chain_id, "verifyingContract": domain.vault}
    return encode_typed_data(where, {name: [{"name": n, "type": t} for n, t in _fields(name)]}, value)


def _digest(encoded: Any) -> str:
    return "0x" + keccak256(b"\x19" + encoded.version + encoded.header + encoded.body).hex()


@given(messages(), domains)
def test_a_digest_is_the_one_of_eth_account(message: tuple[str, dict[str, Any]], domain: Domain) -> None:
    name, value = message
    ours = KINDS[name].parse(value)
    assert ours.digest(domain) == _digest(_theirs(domain, name, value))
    assert ours.to_json() == value
    assert _digest(encode_typed_data(full_message=domain.typed_data(ours))) == ours.digest(domain)


@given(messages(), domains, keys)
def test_signatures_of_either_are_recovered_by_the_other(
    message: tuple[str, dict[str, Any]], domain: Domain, key: int
) -> None:
    name, value = message
    ours, account = KINDS[name].parse(value), Account.from_key(key.to_bytes(32, "big"))
    theirs = _theirs(domain, name, value)
    signature = sign(ours, domain, account)
    assert Account.recover_message(theirs, signature=signature) == account.address
    assert "0x" + bytes(account.sign_message(theirs).signature).hex() == signature
    assert recover(ours.digest(domain), signature) == address_of(account)


@given(messages(), domains, st.data())
def test_whatever_changes_in_a_message_or_domain_changes_the_digest(
    message: tuple[str, dict[str, Any]], domain: Domain, data: st.DataObject
) -> None:
    name, value = message
    field, kind = data.draw(st.sampled_from(_fields(name)))
    other = data.draw(_values(kind).filter(lambda v: v != value[field]))
    before = KINDS[name].parse(value)
    assert KINDS[name].parse({**value, field: other}).digest(domain) != before.digest(domain)
    assert before.digest(Domain(domain.chain_id + 1, domain.vault)) != before.digest(domain)


@pytest.mark.parametrize("number", range(len(VECTORS["vectors"])))
def test_digests_and_signatures_are_those_of_viem(number: int) -> None:
    known = VECTORS["vectors"][number]
    message, domain = KINDS[known["kind"]].parse(known["message"]), Domain(known["chain_id"], known["vault"])
    assert message.digest(domain) == known["digest"]
    assert sign(message, domain, Account.from_key(VECTORS["key"])) == known["signature"]
    assert recover(known["digest"], known["signature"]) == VECTORS["signer"]
