"""Puts a new set of contracts on a chain, or says what that would cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NotRequired, TypedDict, Unpack

from chain.contracts import creation
from chain.deployment import Deployment
from chain.errors import DeploymentError
from chain.keys import DEVNET_CHAIN_ID, address_of
from chain.quote import Quote, Wanted, quote
from chain.rpc import Rpc
from chain.signer import Payer, signer_of
from chain.transactions import Courier
from chain.types import Address

Put = Callable[..., Address]
"""Makes the contract of a name with these constructor arguments, and returns its address."""
NOWHERE: Final = Address("0x" + "ff" * 20)
"""Stands for a contract that is not made yet: no constructor calls another contract, and no address costs more."""


class Terms(TypedDict):
    """What a set of contracts is made with; times are in seconds."""

    genesis: int
    epoch_length: int
    challenge_window: int
    cooldown: int
    bond: int
    """Native coin, in wei, that has to lie in the distributor for a root to be posted: add it before the first one."""
    poster: Address
    guardian: Address
    token: NotRequired[Address | None]
    """None: a new HapticToken, all of it the owner's."""
    payment_token: NotRequired[Address | None]
    """None: a new DevnetDollar, on the devnet only; on any other chain a DeploymentError asks for a token."""


def deploy(
    rpc: Rpc, account: Payer, *, echo: Callable[[str], None] = lambda _: None, **terms: Unpack[Terms]
) -> Deployment:
    """Deploy vault, distributor and epoch ledger, owned by `account`, and the tokens that are not given.

    `echo` gets a line per contract.
    """
    courier = Courier(rpc, account)

    def put(name: str, *args: Any) -> Address:
        receipt = courier.send(None, creation(name, *args))
        if receipt.contract_address is None:
            raise DeploymentError(f"{rpc.name} names no address for the new {name}: use another node")
        address = Address(receipt.contract_address.lower())
        echo(f"{name} {address}")
        return address

    return _make(rpc, address_of(account), put, terms)


def cost_of(rpc: Rpc, account: Payer, **terms: Unpack[Terms]) -> Quote:
    """Return what `deploy` would cost at most; nothing is sent."""
    wanted: list[Wanted] = []

    def put(name: str, *args: Any) -> Address:
        wanted.append(Wanted(None, creation(name, *args)))
        return NOWHERE

    signer = signer_of(account)
    _make(rpc, signer.address, put, terms)
    return quote(rpc, signer.address, wanted, signer.max_fee)


def _make(rpc: Rpc, owner: Address, put: Put, terms: Terms) -> Deployment:
    """Make one contract after the other."""
    chain_id = rpc.chain_id()
    token, payment_token = terms.get("token"), terms.get("payment_token")
    if payment_token is None and chain_id != DEVNET_CHAIN_ID:
        raise DeploymentError(
            f"payment_token: chain {chain_id} needs the address of the token in which revenue is paid"
        )
    for name, address in (("token", token), ("payment_token", payment_token)):
        if address is not None and not rpc.code(address):
            raise DeploymentError(f"{name}: no contract stands at {address} on {rpc.name}")
    from_block = rpc.block("latest").number + 1
    genesis, length, window = terms["genesis"], terms["epoch_length"], terms["challenge_window"]
    poster, guardian = terms["poster"], terms["guardian"]
    staked = token or put("HapticToken", owner)
    paid = payment_token or put("DevnetDollar")
    vault = put("StakeVault", staked, terms["cooldown"], owner, guardian)
    distributor = put(
        "RevenueDistributor", paid, genesis, length, window, terms["bond"], owner, poster, guardian
    )
    ledger = put("EpochLedger", distributor)
    return Deployment(chain_id, vault, distributor, ledger, staked, paid, from_block, genesis, length, window)
