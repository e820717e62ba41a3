"""Puts a new set of contracts on a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eth_account.signers.local import LocalAccount

from chain.contracts import creation
from chain.deployment import Deployment
from chain.errors import DeploymentError
from chain.keys import DEVNET_CHAIN_ID, address_of
from chain.rpc import Rpc
from chain.transactions import submit
from chain.types import Address


def deploy(
    rpc: Rpc,
    account: LocalAccount,
    *,
    genesis: int,
    epoch_length: int,
    challenge_window: int,
    cooldown: int,
    bond: int,
    poster: Address,
    guardian: Address,
    token: Address | None = None,
    payment_token: Address | None = None,
    echo: Callable[[str], None] = lambda _: None,
) -> Deployment:
    """Deploy vault, distributor and epoch ledger, owned by `account`, and the tokens that are not given.

    Times are in seconds; `bond` is the native coin, in wei, that has to lie in the distributor for a root to be
    posted: add it before the first one.

    A new HapticToken is minted to `account`. A new DevnetDollar is for the devnet only: on any other chain a
    DeploymentError asks for `payment_token`. `echo` gets a line per contract.
    """
    chain_id = rpc.chain_id()
    if payment_token is None and chain_id != DEVNET_CHAIN_ID:
        raise DeploymentError(
            f"payment_token: chain {chain_id} needs the address of the token in which revenue is paid"
        )
    for name, address in (("token", token), ("payment_token", payment_token)):
        if address is not None and not rpc.code(address):
            raise DeploymentError(f"{name}: no contract stands at {address} on {rpc.name}")
    owner = address_of(account)
    from_block = rpc.block("latest").number + 1

    def put(name: str, *args: Any) -> Address:
        receipt = submit(rpc, account, None, creation(name, *args))
        if receipt.contract_address is None:
            raise DeploymentError(f"{rpc.name} names no address for the new {name}: use another node")
        address = Address(receipt.contract_address.lower())
        echo(f"{name} {address}")
        return address

    staked = token or put("HapticToken", owner)
    paid = payment_token or put("DevnetDollar")
    vault = put("StakeVault", staked, cooldown, owner, guardian)
    distributor = put(
        "RevenueDistributor", paid, genesis, epoch_length, challenge_window, bond, owner, poster, guardian
    )
    ledger = put("EpochLedger", distributor)
    return Deployment(
        chain_id,
        vault,
        distributor,
        ledger,
        staked,
        paid,
        from_block,
        genesis,
        epoch_length,
        challenge_window,
    )
