"""Events are decoded as the ABI says, and anything that no contract of ours sends is refused."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from chain.contracts import abi
from chain.errors import ChainError
from chain.events import Posted, decode, topics
from chain.hashing import keccak256
from chain.types import Address, Hash32
from chain.wire import Log

HASH = Hash32("0x" + "ab" * 32)
EVENTS = {
    entry["name"]: entry
    for name in ("StakeVault", "RevenueDistributor")
    for entry in abi(name)
    if entry["type"] == "event"
}
OURS = (
    "Staked",
    "UnstakeRequested",
    "UnstakeCancelled",
    "Withdrawn",
    "Funded",
    "Posted",
    "Activated",
    "Vetoed",
    "Challenged",
    "Claimed",
)


def _values(kind: str) -> st.SearchStrategy[Any]:
    if kind == "address":
        return st.binary(min_size=20, max_size=20).map(lambda b: "0x" + b.hex())
    if kind == "bytes32":
        return st.binary(min_size=32, max_size=32)
    top = (1 << int(kind[4:])) - 1
    return st.one_of(st.integers(0, 3), st.integers(0, top), st.just(top))


def _topic0(name: str) -> str:
    kinds = ",".join(each["type"] for each in EVENTS[name]["inputs"])
    return "0x" + keccak256(f"{name}({kinds})".encode()).hex()


def _log(topic_list: tuple[str, ...], data: str) -> Log:
    return Log(Address("0x" + "11" * 20), topic_list, data, "0x10", HASH, HASH, "0x3")


@st.composite
def _encoded(draw: st.DrawFn) -> tuple[str, Log, list[Any]]:
    """Draw a log as eth_abi encodes it, and what eth_abi decodes from it, in the order of the ABI."""
    name = draw(st.sampled_from(OURS))
    inputs = EVENTS[name]["inputs"]
    drawn = [(each, draw(_values(each["type"]))) for each in inputs]
    indexed = [abi_encode([each["type"]], [value]) for each, value in drawn if each["indexed"]]
    words = [(each["type"], value) for each, value in drawn if not each["indexed"]]
    data = abi_encode([kind for kind, _ in words], [value for _, value in words])
    expected = [
        abi_decode([each["type"]], word)[0]
        for each, word in zip([e for e in inputs if e["indexed"]], indexed, strict=True)
    ] + list(abi_decode([kind for kind, _ in words], data))
    topic_list = (_topic0(name), *("0x" + topic.hex() for topic in indexed))
    plain = ["0x" + value.hex() if isinstance(value, bytes) else value for value in expected]
    return name, _log(topic_list, "0x" + data.hex()), plain


@given(_encoded())
def test_slicing_decodes_what_eth_abi_decodes(case: tuple[str, Log, list[Any]]) -> None:
    name, log, expected = case
    event = decode(log, 77)
    assert type(event).__name__ == name
    assert astuple(event) == (16, 3, HASH, 77, *expected)


@given(_encoded(), st.integers(-64, 64).filter(bool))
def test_data_of_another_length_is_refused(case: tuple[str, Log, list[Any]], by: int) -> None:
    _, log, _ = case
    data = log.data + "0" * by if by > 0 else log.data[:by]
    if len(data) < 2:
        return
    with pytest.raises(ChainError, match="wrong length"):
        decode(_log(log.topics, data), 0)


@given(_encoded())
def test_a_topic_more_or_less_is_refused(case: tuple[str, Log, list[Any]]) -> None:
    _, log, _ = case
    for topic_list in ((*log.topics, HASH), log.topics[:-1]):
        with pytest.raises(ChainError):
            decode(_log(topic_list, log.data), 0)


@pytest.mark.parametrize("topic_list", [(), (HASH,)])
def test_an_unknown_topic_is_refused(topic_list: tuple[str, ...]) -> None:
    with pytest.raises(ChainError, match="unknown topic"):
        decode(_log(topic_list, "0x"), 0)


@pytest.mark.parametrize("word", ["f" * 64, "1" + "0" * 40, "0" * 63 + "z", "0" * 62 + "  "])
def test_an_address_of_more_than_twenty_bytes_is_refused(word: str) -> None:
    with pytest.raises(ChainError, match="out of range"):
        decode(_log((_topic0("Staked"), "0x" + word.rjust(64, "1")), "0x" + "0" * 128), 0)


def test_a_sum_of_more_than_96_bits_is_refused() -> None:
    topic_list = (_topic0("Activated"), "0x" + "0" * 64, HASH)
    assert decode(_log(topic_list, "0x" + f"{(1 << 96) - 1:064x}"), 0)
    with pytest.raises(ChainError, match="out of range"):
        decode(_log(topic_list, "0x" + f"{1 << 96:064x}"), 0)


def test_the_topics_are_those_of_the_contracts() -> None:
    assert sorted(topics()) == sorted(_topic0(name) for name in OURS)


def test_the_fields_are_named_as_in_the_contracts() -> None:
    named = [each["name"].lower() for each in EVENTS["Posted"]["inputs"]]
    assert [field.replace("_", "") for field in list(Posted.__struct_fields__)[4:]] == named
