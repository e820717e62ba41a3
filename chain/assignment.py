"""Who is asked what, how and in which order on the screen: drawn from a seed that is secret until close."""

from __future__ import annotations

from collections.abc import Sequence

from chain.hashing import keccak256
from chain.types import Address, Epoch, Hash32


def _draw(seed: bytes, purpose: bytes, *parts: str) -> bytes:
    return keccak256(seed + purpose + b"".join(bytes.fromhex(p[2:]) for p in parts))


def seed_commitment(seed: bytes) -> Hash32:
    """Return what is published of the seed before the first task of the epoch."""
    return Hash32("0x" + keccak256(seed).hex())


def method_of(seed: bytes, wallet: Address, methods: Sequence[str]) -> str:
    """Return the one method by which a wallet is asked in the epoch of this seed."""
    return methods[int.from_bytes(_draw(seed, b"method", wallet), "big") % len(methods)]


def display_order(
    seed: bytes, wallet: Address, task: Hash32, responses: Sequence[Hash32]
) -> tuple[Hash32, ...]:
    """Return a task's responses in the order in which this wallet sees them."""
    return tuple(sorted(responses, key=lambda r: _draw(seed, b"display", wallet, task, r)))


def task_point(seed: bytes, wallet: Address, turn: int) -> Hash32:
    """Return where among the names of all tasks a wallet's turn begins; nobody, the operator included, chooses.

    `turn` is how many tasks it was handed before in this epoch. By the wallet's own count, and not by the log's,
    because the operator could put off a request until the log has the number that it wants.
    """
    return Hash32("0x" + _draw(seed, b"task", wallet, f"0x{turn:064x}").hex())


def seal_of(seed: bytes, task: Hash32) -> Hash32:
    """Return the salt within a task's name; `task` is the hash that it has without one."""
    return Hash32("0x" + _draw(seed, b"seal", task).hex())


def epoch_seed(master: bytes, chain_id: int, distributor: Address, epoch: Epoch) -> bytes:
    """Return the epoch's secret seed, 32 bytes, from the operator's master secret.

    It is bound to one deployment: a seed revealed on a test chain must say nothing about another's.
    """
    place = chain_id.to_bytes(32, "big") + bytes.fromhex(distributor[2:]) + epoch.to_bytes(8, "big")
    return keccak256(b"haptic/seed" + keccak256(master) + place)
