"""A whole Haptic on one machine: contracts on a devnet, wallets with tokens, service and worker as processes."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
from eth_account.signers.local import LocalAccount
from filelock import FileLock, Timeout

from chain.contracts import Contract
from chain.deploy import deploy
from chain.deployment import Deployment, write_deployment
from chain.devnet import DevnetError
from chain.keys import create_keyfile, devnet_accounts, load_keyfile
from chain.messages import parse_address
from chain.rpc import Rpc
from chain.transactions import transact
from chain.types import Address

PASSWORD = "devnet"  # noqa: S105  # of throw-away key files on a devnet
COIN = 10**18
DOLLAR = 10**6
BOND = 10**18
"""What answers for the poster, in wei."""


@dataclass(frozen=True, slots=True)
class Site:
    """A deployed devnet: its folder, its contracts, its owner, and the environment its processes run in."""

    folder: Path
    deployment: Deployment
    owner: LocalAccount
    rpc: Rpc
    environ: Mapping[str, str]

    def wallet(self, name: str, *, staking: int = 0, dollars: int = 0) -> LocalAccount:
        """Return a wallet with gas, staking tokens (wei) and devnet dollars (units); its key file is kept."""
        path = self.folder / "wallets" / f"{name}.json"
        account = (
            load_keyfile(path, PASSWORD) if path.exists() else create_keyfile(path, PASSWORD, light=True)
        )
        address = parse_address(account.address)
        give_gas(self.rpc, address)
        if staking:
            transact(
                self.rpc,
                self.owner,
                Contract("HapticToken", self.deployment.token),
                "transfer",
                address,
                staking,
            )
        if dollars:
            transact(
                self.rpc,
                self.owner,
                Contract("DevnetDollar", self.deployment.payment_token),
                "mint",
                address,
                dollars,
            )
        return account


def give_gas(rpc: Rpc, address: Address, coins: int = 100) -> None:
    """Set an account's balance of the devnet's own coin."""
    rpc.request("anvil_setBalance", address, hex(coins * COIN))


MARKER = ".haptic-devnet"
"""Stands in every folder that a devnet made, so that no other is ever cleared."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a folder for this process; DevnetError where a running devnet has it, whose files would be cleared."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DevnetError(f"a running devnet uses {folder}: stop it, or name another --folder") from None
    try:
        yield
    finally:
        lock.release()


def clear(folder: Path) -> bool:
    """Make a folder ready for a new devnet and remove what an earlier one left: its chain is gone.

    The first model, made from scratch, stays. A folder that no devnet made is refused unless it is empty.
    Return whether an earlier one had left anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = (folder / MARKER).exists()
    if not left and any(folder.iterdir()):
        raise DevnetError(
            f"{folder} holds files that no devnet made, and would be cleared: name another --folder"
        )
    models = folder / "models"
    kept = models / "sft-0"
    for path in list(folder.iterdir()):
        if path == models and kept.is_dir():
            for entry in models.iterdir():
                if entry != kept and entry.is_dir():
                    shutil.rmtree(entry)
        elif path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
    (folder / MARKER).touch()
    return left


def prepare(
    rpc: Rpc,
    folder: Path,
    *,
    genesis: int,
    epoch_length: int,
    window: int,
    cooldown: int,
    extra: Mapping[str, str],
) -> Site:
    """Deploy everything on the devnet of `rpc` and write addresses and keys into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = devnet_accounts(rpc.chain_id())[0]
    keys = {
        name: create_keyfile(folder / f"{name}.json", PASSWORD, light=True) for name in ("poster", "receipt")
    }
    poster = parse_address(keys["poster"].address)
    give_gas(rpc, poster)
    deployment = deploy(
        rpc, owner, genesis=genesis, epoch_length=epoch_length, challenge_window=window, cooldown=cooldown,
        bond=BOND, poster=poster, guardian=parse_address(owner.address),
    )  # fmt: skip
    transact(rpc, owner, deployment.revenue_distributor(), "addBond", value=BOND)
    write_deployment(folder / "deployment.json", deployment)
    environ = {
        "HAPTIC_RPC_URL": rpc_url(rpc), "HAPTIC_DEPLOYMENT": str(folder / "deployment.json"),
        "HAPTIC_DATA_DIR": str(folder), "HAPTIC_PASSWORD": PASSWORD, "HAPTIC_SECRET": secrets.token_hex(32),
        "HAPTIC_POSTER_KEYFILE": str(folder / "poster.json"),
        "HAPTIC_RECEIPT_KEYFILE": str(folder / "receipt.json"),
        "HAPTIC_DEVNET_GOLD": "true", **extra,
    }  # fmt: skip
    return Site(folder, deployment, owner, rpc, environ)


def rpc_url(rpc: Rpc) -> str:
    """Return the URL of a devnet's node, which holds no key."""
    return rpc.name


@contextmanager
def process(name: str, arguments: list[str], site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """Run a `haptic` command of this installation in the site's environment; its output goes to a log."""
    log_path = site.folder / f"{name}.log"
    with log_path.open("ab") as log:
        child = _start(arguments, site.environ, log)
        try:
            yield child
        finally:
            stop(child)


def _start(arguments: list[str], environ: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HAPTIC_")}
    command = [sys.executable, "-c", "from service.cli import main; main()", *arguments]
    return subprocess.Popen(
        command, env={**kept, **environ}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )


def stop(child: subprocess.Popen[bytes], timeout_s: float = 15.0) -> None:
    """End a process politely, then not."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_until_served(url: str, child: subprocess.Popen[bytes], log: Path, timeout_s: float = 60.0) -> None:
    """Return when the service answers; DevnetError with the end of its log when it stopped or is silent."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and child.poll() is None:
        try:
            if httpx.get(f"{url}/v1/info", timeout=2).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-1500:] if log.exists() else ""
    raise DevnetError(f"the service did not start at {url}; the end of {log}:\n{tail}")
