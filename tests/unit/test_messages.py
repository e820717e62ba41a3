"""What is not exactly a message or a signature is refused, and the refusal names the field and the value."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account

from chain.errors import SignatureError
from chain.keys import address_of
from chain.messages import MAX_INT, Domain, Ranking, Session, checksum, parse_address, recover, sign

ACCOUNT = Account.from_key(b"\x07" * 32)
DOMAIN = Domain(31_337, "0x" + "5f" * 20)
HASH = "0x" + "ab" * 32
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
GOOD: dict[str, Any] = {
    "wallet": "0x" + "a1" * 20, "epoch": 3, "task": HASH, "method": "ranking", "summary": "B > A",
    "shown": [HASH, HASH], "ranks": [2, 1], "likert": [], "flag": "", "commentHash": HASH, "revision": 0,
    "signedAt": 1_800_000_000,
}  # fmt: skip


def _refused(match: str, **changes: Any) -> None:
    with pytest.raises(SignatureError, match=match):
        Ranking.parse({**GOOD, **changes})


def test_a_whole_message_is_read_and_written_back() -> None:
    assert Ranking.parse(GOOD).to_json() == GOOD


def test_a_checksummed_address_is_read_as_lowercase() -> None:
    mixed = checksum(address_of(ACCOUNT))
    assert mixed == ACCOUNT.address
    assert parse_address(mixed) == mixed.lower()


def test_an_extra_field_is_refused() -> None:
    _refused("missing or unknown field nonce", nonce=1)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_field_is_refused(name: str) -> None:
    with pytest.raises(SignatureError, match=f"missing or unknown field {name}"):
        Ranking.parse({k: v for k, v in GOOD.items() if k != name})


@pytest.mark.parametrize("value", [None, [], "{}", 7])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(SignatureError, match="expected an object with wallet, epoch, task"):
        Ranking.parse(value)


@pytest.mark.parametrize(
    "value", ["0x" + "ab" * 31, "0x" + "ab" * 33, "ab" * 32, "0x", "0x" + "gg" * 32, 7, b"ab"]
)
def test_32_bytes_are_32_bytes(value: object) -> None:
    _refused("Ranking.task: .* is not 32 bytes", task=value)
    _refused(r"Ranking.shown\[1\]: .* is not 32 bytes", shown=[HASH, value])


def test_a_hash_in_uppercase_is_refused() -> None:
    _refused("Ranking.commentHash: .* lowercase", commentHash=HASH.upper().replace("X", "x"))


@pytest.mark.parametrize("value", ["7", 7.0, True, None, -1, 2**16])
def test_an_integer_is_an_integer_in_range(value: object) -> None:
    _refused(r"Ranking.revision: .* is not an integer in 0\.\.2\^16-1", revision=value)


@pytest.mark.parametrize("value", ["1", True, 256, -1])
def test_a_rank_is_an_integer_in_range(value: object) -> None:
    _refused(r"Ranking.ranks\[1\]: .* is not an integer in 0\.\.2\^8-1", ranks=[1, value])


def test_an_integer_that_canonical_json_cannot_hold_is_refused() -> None:
    assert Ranking.parse({**GOOD, "signedAt": MAX_INT}).signed_at == MAX_INT
    _refused(r"Ranking.signedAt: 9007199254740992 is not an integer in 0\.\.2\^53-1", signedAt=MAX_INT + 1)


@pytest.mark.parametrize("value", ["0x" + "a1" * 19, "a1" * 20, "0x" + "a1" * 21, "vitalik.eth", 7, None])
def test_an_address_has_20_bytes(value: object) -> None:
    _refused("Ranking.wallet: .* is not an address", wallet=value)


def test_a_wrong_checksum_is_refused() -> None:
    good = ACCOUNT.address
    letter = next(i for i, c in enumerate(good) if c in "ABCDEF")
    _refused(
        f"Ranking.wallet: {good[:letter]}.* wrong EIP-55 checksum",
        wallet=good[:letter] + good[letter:].swapcase(),
    )


@pytest.mark.parametrize("value", ["\ud800", "A > \udfff"])
def test_a_lone_surrogate_is_refused(value: str) -> None:
    _refused("Ranking.summary: the text holds a lone surrogate", summary=value)


@pytest.mark.parametrize("value", [7, None, b"A", ["A"], "A" * 4097])
def test_a_text_is_a_text_of_limited_length(value: object) -> None:
    _refused("Ranking.flag: .* is not a text of at most 4096", flag=value)


@pytest.mark.parametrize("value", ["12", {"0": 1}, None, 1, [1] * 256])
def test_a_list_is_a_list_of_limited_length(value: object) -> None:
    _refused("Ranking.ranks: .* is not a list of at most 255", ranks=value)


def _signed() -> tuple[str, bytes]:
    message = Session(address_of(ACCOUNT), "0x" + "b2" * 20, 1, 2, 3, HASH)
    return message.digest(DOMAIN), bytes.fromhex(sign(message, DOMAIN, ACCOUNT)[2:])


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()


def test_a_signature_with_high_s_is_refused_though_it_recovers() -> None:
    digest, raw = _signed()
    assert recover(digest, _hex(raw)) == address_of(ACCOUNT)
    mirrored = raw[:32] + (N - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big") + bytes([55 - raw[64]])
    with pytest.raises(SignatureError, match="lower half"):
        recover(digest, _hex(mirrored))


@pytest.mark.parametrize("v", [0, 1, 2, 26, 29, 255])
def test_v_is_27_or_28(v: int) -> None:
    digest, raw = _signed()
    with pytest.raises(SignatureError, match=f"v is {v}, expected 27 or 28"):
        recover(digest, _hex(raw[:64] + bytes([v])))


@pytest.mark.parametrize("size", [0, 64, 66])
def test_a_signature_has_65_bytes(size: int) -> None:
    digest, raw = _signed()
    with pytest.raises(SignatureError, match="expected 65 bytes"):
        recover(digest, _hex((raw + b"\x1b")[:size]))


def test_a_signature_in_uppercase_is_refused() -> None:
    digest, raw = _signed()
    with pytest.raises(SignatureError, match="lowercase"):
        recover(digest, "0x" + raw.hex().upper())


@pytest.mark.parametrize(("r", "s"), [(0, 1), (N, 1), (1, 0)])
def test_r_and_s_are_in_range(r: int, s: int) -> None:
    digest, _ = _signed()
    with pytest.raises(SignatureError, match="out of range"):
        recover(digest, _hex(r.to_bytes(32, "big") + s.to_bytes(32, "big") + b"\x1b"))


def test_a_signature_of_no_key_is_refused() -> None:
    digest, _ = _signed()
    with pytest.raises(SignatureError, match="no key gives this signature"):
        recover(digest, _hex((5).to_bytes(32, "big") + (1).to_bytes(32, "big") + b"\x1b"))


def test_the_key_of_another_chain_is_another_signer() -> None:
    message = Session(address_of(ACCOUNT), "0x" + "b2" * 20, 1, 2, 3, HASH)
    signature = sign(message, DOMAIN, ACCOUNT)
    assert recover(message.digest(Domain(1, DOMAIN.vault)), signature) != address_of(ACCOUNT)


def test_a_compact_signature_is_told_to_be_written_out() -> None:
    digest, raw = _signed()
    compact = raw[:32] + bytes([raw[32] | (raw[64] - 27) << 7]) + raw[33:64]
    with pytest.raises(SignatureError, match="the 64 bytes of EIP-2098 have to be written out"):
        recover(digest, _hex(compact))
