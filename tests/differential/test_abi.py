"""The ABI and bytecode in `chain/abi/` are what the sources in `contracts/` compile to, byte for byte."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / "contracts"
COMMITTED = ROOT / "chain" / "abi"
FORGE = CONTRACTS / "node_modules" / ".bin" / "forge"
NAMES = {
    "DevnetDollar.json",
    "DevnetWallet.json",
    "EpochLedger.json",
    "HapticToken.json",
    "RevenueDistributor.json",
    "SignatureProbe.json",
    "StakeVault.json",
}


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=CONTRACTS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def recompiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    node = shutil.which("node")
    assert node, "Node is missing: install Node 20 or newer, then run `make contracts`"
    assert FORGE.exists(), f"{FORGE.relative_to(ROOT)} is missing: run `make contracts`"
    work = tmp_path_factory.mktemp("forge")
    _run(FORGE, "build", "src", "--force", "--out", work / "out", "--cache-path", work / "cache")
    _run(node, "script/export.mjs", work / "out", work / "abi")
    return work / "abi"


def test_every_contract_and_nothing_else_is_exported(recompiled: Path) -> None:
    assert {path.name for path in recompiled.iterdir()} == NAMES
    assert {path.name for path in COMMITTED.glob("*.json")} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_committed_file_is_what_the_source_compiles_to(recompiled: Path, name: str) -> None:
    same = (COMMITTED / name).read_bytes() == (recompiled / name).read_bytes()

    assert same, f"chain/abi/{name} is not what contracts/src compiles to: run `make contracts` and commit it"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_committed_file_names_its_contract_and_can_be_deployed(name: str) -> None:
    exported = json.loads((COMMITTED / name).read_text())

    assert exported.keys() == {"contractName", "abi", "bytecode", "errors"}
    assert exported["contractName"] == name.removesuffix(".json")
    assert len(bytes.fromhex(exported["bytecode"].removeprefix("0x"))) > 100
