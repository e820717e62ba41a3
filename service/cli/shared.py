"""What the commands share: options, amounts, wallets, and the chain that they are asked of."""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from eth_account.signers.local import LocalAccount

from chain import types
from chain.contracts import Contract, call
from chain.deployment import Deployment, check_deployment, read_deployment
from chain.errors import BusyIndexError, HapticError
from chain.indexer import IndexResult, index
from chain.keys import PASSWORD_VARIABLE, check_private, load_keyfile, read_password
from chain.messages import checksum, parse_address
from chain.rpc import Rpc
from chain.types import Address
from service.database import Database
from service.terminal import out

MAX_EPOCH, MAX_PORT = types.MAX_EPOCH, 65_535
"""Largest epoch that the tables hold, and the largest port."""
INDEX_WAIT_S, INDEX_POLL_S = 60.0, 1.0
"""How long another process that indexes is waited for, and how often it is looked whether it is done."""
DEFAULT_DEPLOYMENT = Path(".haptic/deployment.json")

RpcUrl = Annotated[
    str,
    typer.Option(
        "--rpc",
        envvar="HAPTIC_RPC_URL",
        help="JSON-RPC URL of a node; several, separated by commas, stand in for each other",
    ),
]
DeploymentFile = Annotated[
    Path, typer.Option("--deployment", envvar="HAPTIC_DEPLOYMENT", help="File with the contracts' addresses")
]
KeyFile = Annotated[
    Path,
    typer.Option(
        "--keyfile",
        envvar="HAPTIC_KEYFILE",
        help="Your wallet: an encrypted keystore file (see `haptic wallet`)",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        envvar="HAPTIC_PASSWORD_FILE",
        help="File with its password; else HAPTIC_PASSWORD, else you are asked",
    ),
]
ServiceUrl = Annotated[
    str, typer.Option("--service", envvar="HAPTIC_SERVICE", help="URL of the feedback service")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before sending")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it costs at most, and stop")
]
RPC, SERVICE, KEYFILE = "http://127.0.0.1:8545", "http://127.0.0.1:8000", Path("wallet.json")


class AmountError(HapticError):
    """An amount that cannot be read exactly."""


def parse_amount(text: str, decimals: int) -> int:
    """Return a decimal text in smallest units, exactly: "1.5" with 6 decimals is 1500000."""
    whole, _, part = text.strip().replace("_", "").partition(".")
    if not (whole + part).isdecimal() or not (whole + part).isascii() or len(part) > decimals:
        raise AmountError(f"{text!r} is not an amount with at most {decimals} decimals, such as 12.5")
    units: int = int(whole or "0") * 10**decimals + int(part.ljust(decimals, "0") or "0")
    if not 0 < units < 1 << 96:
        raise AmountError(f"{text} is not an amount above 0 that fits the contracts (uint96)")
    return units


def show_amount(units: int, decimals: int) -> str:
    """Return smallest units as a decimal text without trailing zeros."""
    whole, part = divmod(units, 10**decimals)
    tail = str(part).rjust(decimals, "0").rstrip("0")
    return f"{whole:,}" + (f".{tail}" if tail else "")


NATIVE_DECIMALS = 18
"""Of the chain's own coin, which pays for gas."""


def show_native(wei: int) -> str:
    """Return an amount of the chain's own coin, as most chains call it."""
    return f"{show_amount(wei, NATIVE_DECIMALS)} ETH"


@dataclass(frozen=True, slots=True)
class Coin:
    """An ERC-20 token with what people call it."""

    contract: Contract
    symbol: str
    decimals: int

    def show(self, units: int) -> str:
        """Return an amount with its symbol."""
        return f"{show_amount(units, self.decimals)} {self.symbol}"


def _symbol(said: object) -> str:
    """Return a token's symbol where it is a word; a contract may say anything."""
    return str(said) if re.fullmatch(r"[\w.$-]{1,20}", str(said)) else "tokens"


def read_coin(rpc: Rpc, address: Address) -> Coin:
    """Return a token with its symbol and decimals as the chain says them."""
    contract = Contract("HapticToken", address)
    return Coin(contract, _symbol(call(rpc, contract, "symbol")), int(call(rpc, contract, "decimals")))


def coin_of(info: Mapping[str, Any], kind: str) -> Coin:
    """Return the staked token ("token") or the payment token ("payment") as a service's /v1/info names it."""
    address = info["token" if kind == "token" else "payment_token"]
    contract = Contract("HapticToken", parse_address(address, kind))
    return Coin(contract, _symbol(info[f"{kind}_symbol"]), int(info[f"{kind}_decimals"]))


def connect(rpc_url: str, deployment: Path) -> tuple[Rpc, Deployment]:
    """Return a node and the contracts, compared with what stands on the chain."""
    found = read_deployment(deployment)
    rpc = Rpc(rpc_url, chain_id=found.chain_id)
    check_deployment(rpc, found)
    return rpc, found


def index_beside(
    rpc: Rpc, db: Database, deployment: Deployment, progress: Callable[[int, int], None] | None = None
) -> IndexResult:
    """Bring the ledger up to the finalized block; where another process moves the index too, go on from where it is.

    A BusyIndexError where the other is not done in INDEX_WAIT_S.
    """
    deadline = math.inf
    while True:
        try:
            return index(rpc, db.write, deployment, progress)
        except BusyIndexError:
            if time.monotonic() > deadline:
                raise
        if deadline == math.inf:
            deadline = time.monotonic() + INDEX_WAIT_S
            out.print(
                "Another process, such as the running service, is indexing too: waiting for it, "
                f"{INDEX_WAIT_S:.0f} s at most (Ctrl-C stops)."
            )
        time.sleep(INDEX_POLL_S)


def open_wallet(
    path: Path, password_file: Path | None, chain_id: int, environ: Mapping[str, str] = os.environ
) -> LocalAccount:
    """Return the wallet of a keystore; the password comes from a file, from HAPTIC_PASSWORD, or is asked for.

    A KeyFileError where others may read it, unless it is for the devnet.
    """
    check_private(path, chain_id)
    if password_file is None and PASSWORD_VARIABLE not in environ:
        return load_keyfile(path, typer.prompt(f"Password of {path}", hide_input=True))
    return load_keyfile(path, read_password(password_file, environ))


def check_balance(rpc: Rpc, coin: Coin, holder: Address, amount: int) -> int:
    """Return the holder's balance, or say how much is missing."""
    balance = int(call(rpc, coin.contract, "balanceOf", holder))
    if balance < amount:
        raise AmountError(
            f"{checksum(holder)} has {coin.show(balance)}, {coin.show(amount - balance)} too little for {coin.show(amount)}"
        )
    return balance


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Raise before anything starts when somebody else listens at this address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise HapticError(
                f"port {port} on {host} cannot be used ({error.strerror}): stop what runs there, or choose another with {option}"
            ) from error
