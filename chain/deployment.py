"""Where a set of contracts stands and how it was set up; a JSON file that is compared with the chain."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from chain.contracts import Contract, call
from chain.errors import DeploymentError
from chain.rpc import Rpc
from chain.types import Address

_ADDRESS = re.compile(r"0x[0-9a-f]{40}\Z")
_ADDRESSES = ("vault", "distributor", "epoch_ledger", "token", "payment_token")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The contracts of one Haptic network on one chain."""

    chain_id: int
    vault: Address
    distributor: Address
    epoch_ledger: Address
    """Where epochs are committed to and closed."""
    token: Address
    """What is staked."""
    payment_token: Address
    """What revenue comes in and goes out in."""
    from_block: int
    """The first block that can hold an event of these contracts."""
    genesis: int
    """When epoch 0 began, Unix seconds."""
    epoch_length: int
    """Seconds."""
    challenge_window: int
    """Seconds between a post and the earliest activation."""

    def epoch_end(self, epoch: int) -> int:
        """Return the first second after `epoch`."""
        return self.genesis + (epoch + 1) * self.epoch_length

    def epoch_at(self, timestamp: int) -> int:
        """Return the epoch that a block time lies in; negative before genesis."""
        return (timestamp - self.genesis) // self.epoch_length

    def stake_vault(self) -> Contract:
        """Return the vault."""
        return Contract("StakeVault", self.vault)

    def ledger_contract(self) -> Contract:
        """Return the epochs' ledger."""
        return Contract("EpochLedger", self.epoch_ledger)

    def revenue_distributor(self) -> Contract:
        """Return the distributor."""
        return Contract("RevenueDistributor", self.distributor)


def read_deployment(path: Path) -> Deployment:
    """Read a deployment file; a DeploymentError names what is wrong with which field."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeploymentError(
            f"{path} cannot be read: {error.strerror}; `haptic deploy` writes it, and --deployment names it"
        ) from None
    except ValueError:
        raise DeploymentError(f"{path} holds no JSON") from None
    if not isinstance(content, dict):
        raise DeploymentError(f"{path} holds no JSON object")
    names = [field.name for field in fields(Deployment)]
    strange = sorted(set(content) - set(names))
    if strange:
        raise DeploymentError(f"{path}: there is no field {strange[0]}")
    return Deployment(**{name: _field(path, name, content.get(name)) for name in names})


def write_deployment(path: Path, deployment: Deployment) -> None:
    """Write a deployment file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(asdict(deployment), indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def check_deployment(rpc: Rpc, deployment: Deployment) -> None:
    """Compare every field with the chain; a DeploymentError names the first that differs."""
    d = deployment
    _same(rpc, "chain_id", d.chain_id, rpc.chain_id())
    for name in _ADDRESSES:
        if not rpc.code(getattr(d, name)):
            raise DeploymentError(f"{name}: no contract stands at {getattr(d, name)} on {rpc.name}")
    _same(rpc, "token", d.token, call(rpc, d.stake_vault(), "token"))
    distributor = d.revenue_distributor()
    _same(rpc, "payment_token", d.payment_token, call(rpc, distributor, "token"))
    _same(rpc, "genesis", d.genesis, call(rpc, distributor, "genesis"))
    _same(rpc, "epoch_length", d.epoch_length, call(rpc, distributor, "epochLength"))
    _same(rpc, "challenge_window", d.challenge_window, call(rpc, distributor, "challengeWindow"))
    _same(rpc, "distributor", d.distributor, call(rpc, d.ledger_contract(), "distributor"))


def _same(rpc: Rpc, name: str, said: object, found: object) -> None:
    if said != found:
        raise DeploymentError(
            f"{name}: the deployment says {said}, the chain at {rpc.name} says {found}: "
            "check the deployment file and the RPC URL"
        )


def _field(path: Path, name: str, value: Any) -> Any:
    if name in _ADDRESSES:
        if not isinstance(value, str) or not _ADDRESS.match(value.lower()):
            raise DeploymentError(f"{path}: {name} must be an address (0x and 40 hex digits), not {value!r}")
        return Address(value.lower())
    least = 1 if name in {"chain_id", "epoch_length"} else 0
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DeploymentError(f"{path}: {name} must be a whole number of at least {least}, not {value!r}")
    return value
