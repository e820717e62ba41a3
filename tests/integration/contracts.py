"""Contracts that only tests have, compiled from contracts/test/support and put on a test's chain."""

from __future__ import annotations

import json
import os
import subprocess
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eth_abi.abi import decode, encode
from eth_account.signers.local import LocalAccount

from chain.devnet import mine
from chain.hashing import keccak256
from chain.keys import address_of
from chain.rpc import Rpc
from chain.types import Address

CONTRACTS = Path(__file__).parents[2] / "contracts"


@lru_cache
def built() -> dict[str, bytes]:
    """Return the creation code of each contract in SignatureWallets.sol."""
    with TemporaryDirectory() as folder:
        forge = CONTRACTS / "node_modules" / ".bin" / "forge"
        subprocess.run(
            [forge, "build", "test/support/SignatureWallets.sol", "--out", folder, "--cache-path", f"{folder}/cache"],
            cwd=CONTRACTS, check=True, capture_output=True, env=os.environ | {"FOUNDRY_PROFILE": "quick"},
        )  # fmt: skip
        found = Path(folder, "SignatureWallets.sol").glob("*.json")
        return {f.stem: bytes.fromhex(json.loads(f.read_text())["bytecode"]["object"][2:]) for f in found}


def send(rpc: Rpc, to: Address | None, data: bytes, **more: Any) -> dict[str, Any]:
    """Send a transaction of Anvil's own first account, and return its receipt."""
    sender = rpc.request("eth_accounts")[0]
    wanted = {"from": sender, "data": "0x" + data.hex(), **({"to": to} if to else {}), **more}
    hashed = rpc.request("eth_sendTransaction", wanted)
    mine(rpc, 1)  # Anvil makes its block a moment after it has answered
    receipt: dict[str, Any] = rpc.request("eth_getTransactionReceipt", hashed)
    assert receipt["status"] == "0x1"
    return receipt


def put(rpc: Rpc, name: str, *owner: Address) -> Address:
    """Deploy a contract, for an owner where it takes one, and return its address."""
    code = built()[name] + (encode(["address"], list(owner)) if owner else b"")
    return Address(send(rpc, None, code)["contractAddress"].lower())


def data_of(signature: str, *args: Any) -> bytes:
    """Return the call data of a function such as `setOwner(address)`."""
    kinds = [k for k in signature.partition("(")[2].rstrip(")").split(",") if k]
    return keccak256(signature.encode())[:4] + encode(kinds, list(args))


def predicted(rpc: Rpc, factory: Address, owner: LocalAccount, salt: bytes) -> Address:
    """Return where the factory would deploy an owner's wallet."""
    asked = data_of("predict(address,bytes32)", address_of(owner), salt)
    return Address(decode(["address"], rpc.call(factory, asked))[0])


def wrapped(factory: Address, preparation: bytes, inner: str) -> str:
    """Return a signature as ERC-6492 wraps it."""
    body = encode(["address", "bytes", "bytes"], [factory, preparation, bytes.fromhex(inner[2:])])
    return "0x" + body.hex() + "6492" * 16
