"""Refusals of contracts come out as words, whichever contract raised them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from eth_abi.abi import encode

from chain.contracts import Contract, abi, revert_reason
from chain.deployment import Deployment, read_deployment, write_deployment
from chain.errors import ChainError, DeploymentError, RevertError
from chain.hashing import keccak256
from chain.types import Address

HOME = Address("0x" + "1f" * 20)
FOREIGN = (
    "ECDSA",
    "ERC20",
    "InvalidAccountNonce",
    "InvalidShortString",
    "Ownable",
    "Reentrancy",
    "Safe",
    "StringToo",
)
VAULT = Contract("StakeVault", HOME)
DEPLOYMENT = Deployment(31337, HOME, HOME, HOME, HOME, HOME, 1, 1_700_000_000, 600, 60)


def _revert(signature: str, kinds: list[str], *values: object) -> bytes:
    return keccak256(signature.encode())[:4] + encode(kinds, values)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            _revert(
                "InsufficientStake(address,uint256,uint256)", ["address", "uint256", "uint256"], HOME, 7, 5
            ),
            f"{HOME} asked for 7 but has only 5 (InsufficientStake)",
        ),
        (
            _revert(
                "ERC20InsufficientBalance(address,uint256,uint256)", ["address"] + ["uint256"] * 2, HOME, 0, 5
            ),
            f"ERC20InsufficientBalance (sender {HOME}, balance 0, needed 5)",
        ),
        (
            _revert("OwnableUnauthorizedAccount(address)", ["address"], HOME),
            f"{HOME} is not the contracts' owner, who alone may do this (OwnableUnauthorizedAccount)",
        ),
        (_revert("NothingPending()", []), "No report is pending (NothingPending)"),
        (_revert("Error(string)", ["string"], "no"), "no"),
        (_revert("Panic(uint256)", ["uint256"], 0x11), "an amount overflowed"),
        (_revert("Panic(uint256)", ["uint256"], 0x99), "panic 0x99"),
        (b"", "without a reason"),
        (None, "without a reason"),
        (b"\x01\x02\x03\x04\x05", "an unknown error 0x0102030405"),
        (_revert("Error(string)", ["string"], "no")[:40], "an unknown error 0x08c379a0"),
    ],
)
def test_a_revert_is_put_into_words(data: bytes | None, words: str) -> None:
    assert revert_reason(data).startswith(words)
    error = VAULT.revert_error(data)
    assert isinstance(error, RevertError)
    assert str(error).startswith(f"StakeVault refused: {words}")


def test_every_error_of_our_contracts_has_words_and_they_name_only_its_arguments() -> None:
    """OpenZeppelin's errors come without a notice; ours are the others."""
    for name in ("StakeVault", "RevenueDistributor", "EpochLedger"):
        ours = [e for e in abi(name) if e["type"] == "error" and not e["name"].startswith(FOREIGN)]
        assert ours
        for entry in ours:
            kinds = [each["type"] for each in entry["inputs"]]
            values = [bytes(32) if k == "bytes32" else HOME if k == "address" else 7 for k in kinds]
            said = revert_reason(_revert(f"{entry['name']}({','.join(kinds)})", kinds, *values))
            assert said.endswith(f" ({entry['name']})")
            assert "`" not in said


def test_structs_in_an_array_are_encoded_as_the_abi_says() -> None:
    distributor = Contract("RevenueDistributor", HOME)
    path = bytes(range(44))
    selector = keccak256(b"claimMany((address,uint96,uint256,bytes)[])")[:4]
    claims = [(HOME, 9, 1, path), (HOME, 8, 0, b"")]
    expected = selector + encode(["(address,uint96,uint256,bytes)[]"], [claims])
    assert distributor.encode("claimMany", claims) == expected
    hexed = [(HOME, 9, 1, "0x" + path.hex()), (HOME, 8, 0, "0x")]
    assert distributor.encode("claimMany", hexed) == expected


@pytest.mark.parametrize("args", [(), (1, 2), (-1,), (1 << 96,), ("x",)])
def test_wrong_arguments_are_refused_with_the_right_types(args: tuple[object, ...]) -> None:
    with pytest.raises(ChainError, match=r"StakeVault.stake takes \(uint96\)"):
        VAULT.encode("stake", *args)


def test_an_unknown_function_is_named() -> None:
    with pytest.raises(ChainError, match="StakeVault has no function steal"):
        VAULT.encode("steal")


def test_an_answer_of_something_else_is_no_deployment() -> None:
    assert VAULT.decode("pendingOf", encode(["uint96", "uint64"], [3, 4])) == (3, 4)
    with pytest.raises(DeploymentError, match="token"):
        VAULT.decode("token", b"")


def test_a_deployment_survives_its_file(tmp_path: Path) -> None:
    write_deployment(tmp_path / "new" / "deployment.json", DEPLOYMENT)
    assert read_deployment(tmp_path / "new" / "deployment.json") == DEPLOYMENT
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["deployment.json"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vault", "0x12"),
        ("vault", None),
        ("distributor", 7),
        ("token", "0x" + "zz" * 20),
        ("payment_token", ""),
        ("chain_id", 0),
        ("chain_id", True),
        ("epoch_length", 0),
        ("genesis", -1),
        ("genesis", "1"),
        ("from_block", 1.5),
        ("challenge_window", None),
    ],
)
def test_a_bad_field_of_a_deployment_is_named(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(asdict(DEPLOYMENT) | {name: value}))
    with pytest.raises(DeploymentError, match=f"{name} must be"):
        read_deployment(path)


def test_a_strange_or_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"none\.json.*haptic deploy"):
        read_deployment(tmp_path / "none.json")
    path = tmp_path / "deployment.json"
    for content, words in (("{", "no JSON"), ("[]", "no JSON object"), ('{"valut": 1}', "no field valut")):
        path.write_text(content)
        with pytest.raises(DeploymentError, match=words):
            read_deployment(path)


def test_epochs_are_half_open() -> None:
    d = replace(DEPLOYMENT, genesis=100, epoch_length=10)
    assert [d.epoch_at(t) for t in (99, 100, 109, 110)] == [-1, 0, 0, 1]
    assert d.epoch_end(0) == 110
