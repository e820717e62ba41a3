"""A chain with hundreds of thousands of our events, made by real calls of the real contracts on Anvil."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx
import msgspec

from chain.contracts import Contract
from chain.deploy import deploy
from chain.deployment import Deployment
from chain.devnet import Devnet, mine
from chain.keys import address_of, devnet_accounts
from chain.rpc import Rpc
from chain.transactions import transact
from chain.types import Address

PER_BLOCK: Final = 200
GENESIS: Final = 1_800_000_000
UNIT: Final = 10**15
# Gas costs nothing, anybody's transactions need no signature, and a block is mined when it is asked for.
OPTIONS: Final = (
    "--auto-impersonate", "--base-fee", "0", "--gas-price", "0", "--order", "fifo", "--gas-limit", "3000000000",
)  # fmt: skip


@contextmanager
def world(accounts: int, rounds: int, idle_blocks: int = 0) -> Iterator[tuple[Devnet, Deployment]]:
    """Yield a chain on which each account acted once a round, with so many empty blocks after each block of theirs.

    An account stakes, asks some of it back, takes that back and stakes again; now and then revenue comes in.
    """
    with Devnet(0, timestamp=GENESIS, options=OPTIONS) as devnet, Rpc(devnet.url, 120.0) as rpc:
        owner = devnet_accounts(31337)[0]
        me = address_of(owner)
        deployment = deploy(
            rpc, owner, genesis=GENESIS, epoch_length=600, challenge_window=60, cooldown=900, bond=0,
            poster=me, guardian=me,
        )  # fmt: skip
        dollar = Contract("DevnetDollar", deployment.payment_token)
        transact(rpc, owner, Contract("HapticToken", deployment.token), "approve", deployment.vault, 2**200)
        transact(rpc, owner, dollar, "mint", me, 2**90)
        transact(rpc, owner, dollar, "approve", deployment.distributor, 2**90)
        rpc.request("evm_setAutomine", False)  # noqa: FBT003  # as JSON-RPC has it
        crowd = [Address("0x" + (0x1000 + i).to_bytes(20, "big").hex()) for i in range(accounts)]
        nonces = dict.fromkeys(crowd, 0) | {me: rpc.nonce(me)}
        with httpx.Client(timeout=120, headers={"content-type": "application/json"}) as http:
            for turn in range(rounds):
                for start in range(0, accounts, PER_BLOCK):
                    _send(
                        http,
                        devnet.url,
                        _acts(deployment, me, crowd[start : start + PER_BLOCK], turn),
                        nonces,
                    )
                    mine(rpc, 1 + idle_blocks)
        mine(rpc, 3)
        yield devnet, deployment


def _acts(
    deployment: Deployment, owner: Address, some: Sequence[Address], turn: int
) -> Iterator[tuple[Address, Address, bytes]]:
    """Yield sender, receiver and data of what these accounts do in a round."""
    vault = deployment.stake_vault()
    for place, account in enumerate(some):
        if turn % 4 == 1:
            yield account, vault.address, vault.encode("requestUnstake", UNIT // 2)
        elif turn % 4 == 2:
            yield account, vault.address, vault.encode("cancelUnstake", UNIT // 4)
        elif turn % 4 == 3 and place % 20 == 0:
            yield owner, deployment.distributor, deployment.revenue_distributor().encode("fund", turn, 7)
        else:
            yield owner, vault.address, vault.encode("stakeFor", account, UNIT)


def _send(
    http: httpx.Client, url: str, acts: Iterator[tuple[Address, Address, bytes]], nonces: dict[Address, int]
) -> None:
    calls: list[dict[str, Any]] = []
    for number, (sender, to, data) in enumerate(acts):
        wanted = {
            "from": sender,
            "to": to,
            "gas": "0x40000",
            "gasPrice": "0x0",
            "data": "0x" + data.hex(),
            "nonce": hex(nonces[sender]),
        }
        nonces[sender] += 1
        calls.append({"jsonrpc": "2.0", "id": number, "method": "eth_sendTransaction", "params": [wanted]})
    for answer in http.post(url, content=msgspec.json.encode(calls)).json():
        if "result" not in answer:
            raise SystemExit(f"Anvil refused a transaction of the bench: {answer}")
