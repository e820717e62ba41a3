"""Opens, closes and abandons epochs on the chain's EpochLedger: what is committed to, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from chain.contracts import call
from chain.deployment import Deployment
from chain.errors import ChainError, HapticError, NodeError, RpcError
from chain.hashing import keccak256
from chain.logs import asked_for
from chain.merkle import EMPTY_ROOT
from chain.opening import Opening
from chain.outbox import TransactionKey
from chain.ranges import read_ranges
from chain.rpc import Block, Rpc
from chain.signer import Payer
from chain.step import Outcome, Step, about
from chain.types import Hash32, Ratio


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What the EpochLedger knows of an epoch; zeros before it is opened."""

    opening: Hash32
    opened_at: int
    """Block time, Unix seconds."""
    closed_at: int
    """Block time, Unix seconds; 0 while it is open."""
    amended_at: int
    """Block time, Unix seconds, at which the bundle was last replaced; 0 if it never was."""
    abandoned: bool
    """Closed without what it was opened with: no ranking of it counts."""
    ledger_root: Hash32
    data_hash: Hash32


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes to the EpochLedger, and where it remembers what it sent."""

    rpc: Rpc
    session: Session
    """Committed before anything is sent."""
    deployment: Deployment
    account: Payer
    """The poster's."""
    dry_run: bool = False
    timeout_s: float = 120.0

    def step(self, kind: str, epoch: int, data: bytes) -> Step:
        """Return the one transaction of a kind for an epoch."""
        key = TransactionKey(kind, epoch, about(data))
        to = self.deployment.epoch_ledger
        return Step(self.rpc, self.session, to, self.account, key, data, self.dry_run, self.timeout_s)


def epoch_record(rpc: Rpc, deployment: Deployment, epoch: int, block: Block = "latest") -> EpochRecord:
    """Return what the EpochLedger knows of an epoch at a block."""
    return EpochRecord(*call(rpc, deployment.ledger_contract(), "recordOf", epoch, block=block))


def committed_lambda(rpc: Rpc, deployment: Deployment, epoch: int, opening: Hash32) -> Ratio:
    """Return the λ in what an epoch was opened with, whose hash the EpochLedger keeps as `opening`.

    Each node is asked by itself until one announces such an opening; where none does, a NodeError names the first that
    hides it or made it up.
    """
    lies: list[HapticError] = []
    silent: list[HapticError] = []
    for node in rpc.each():
        try:
            return _announced(node, deployment, epoch, opening)
        except NodeError as error:
            rpc.distrust(str(error), node.name)
            lies.append(error)
        except RpcError as error:
            silent.append(error)
    raise next(iter(lies + silent), NodeError(f"{rpc.name}: no node is left that may be believed"))


def _announced(rpc: Rpc, deployment: Deployment, epoch: int, opening: Hash32) -> Ratio:
    topic = "0x" + keccak256(b"EpochOpened(uint64,bytes32,bytes32,bytes32,uint256,uint256)").hex()
    end = rpc.block("latest").number
    for found in read_ranges(rpc, [deployment.epoch_ledger], [topic], deployment.from_block, end):
        try:
            for log in asked_for(found, [deployment.epoch_ledger]):
                _, number = (int(word, 16) for word in log.topics)
                data = bytes.fromhex(log.data.removeprefix("0x"))
                # What is announced is what was hashed: the five words of the opening.
                if number == epoch and keccak256(data).hex() == opening[2:]:
                    return Ratio(int.from_bytes(data[-64:-32]), int.from_bytes(data[-32:]))
        except (ChainError, ValueError) as error:
            raise NodeError(
                f"{found.source} sent what the EpochLedger cannot have announced: {error}"
            ) from error
    raise NodeError(
        f"{rpc.source} has no EpochOpened of epoch {epoch} that was hashed to {opening}, which the EpochLedger keeps: it "
        "hides or invents events, so use another node"
    )


def open_epoch(writer: Writer, epoch: int, opening: Opening) -> Outcome:
    """Commit to an epoch, unless it is; a ChainError where something else was committed to."""
    data = writer.deployment.ledger_contract().encode("open", epoch, opening.arguments())
    step = writer.step("open", epoch, data)
    step.resume()
    known = epoch_record(writer.rpc, writer.deployment, epoch)
    what = f"open epoch {epoch}: {opening.hash()}"
    if known.opened_at:
        if known.opening != opening.hash():
            raise ChainError(
                f"epoch {epoch} was opened on the chain with {known.opening}, here its seed, gold, rules and lambda "
                f"come to {opening.hash()}: is this the database, and HAPTIC_SECRET, that it was opened with?"
            )
        return Outcome(what, done=True)
    return step.take(what)


def close_epoch(
    writer: Writer, epoch: int, seed: bytes, opening: Opening, ledger_root: Hash32, data_hash: Hash32
) -> Outcome:
    """Reveal an epoch's secrets and anchor its rankings and its bundle, unless they are.

    A bundle that was made anew replaces the hash of the one before; a ChainError where the rankings differ.
    """
    contract = writer.deployment.ledger_contract()
    data = contract.encode("close", epoch, "0x" + seed.hex(), opening.arguments(), ledger_root, data_hash)
    what = f"close epoch {epoch}: rankings {ledger_root}, bundle {data_hash}"
    return _finish(writer, writer.step("close", epoch, data), what, ledger_root, data_hash)


def abandon_epoch(writer: Writer, epoch: int, data_hash: Hash32) -> Outcome:
    """Close an epoch without rankings, whether it was closed before or not; what was abandoned already is amended."""
    data = writer.deployment.ledger_contract().encode("abandon", epoch, data_hash)
    what = f"abandon epoch {epoch}: no ranking of it counts, bundle {data_hash}"
    return _finish(writer, writer.step("abandon", epoch, data), what, EMPTY_ROOT, data_hash)


def _finish(writer: Writer, step: Step, what: str, ledger_root: Hash32, data_hash: Hash32) -> Outcome:
    """Take the step that ends an epoch; where it ended before, only its bundle's hash can still be replaced."""
    epoch, abandons = step.key.epoch, step.key.kind == "abandon"
    known = epoch_record(writer.rpc, writer.deployment, epoch)
    if not known.closed_at or (abandons and not known.abandoned):
        step.resume()
        known = epoch_record(writer.rpc, writer.deployment, epoch)
    if not known.closed_at or (abandons and not known.abandoned):
        return step.take(what)
    if known.abandoned and not abandons:
        raise ChainError(
            f"epoch {epoch} was abandoned on the chain: it cannot be closed any more; give it up here too with "
            f"`haptic epoch abandon --epoch {epoch}`"
        )
    if known.ledger_root != ledger_root:
        raise ChainError(
            f"epoch {epoch} was closed on the chain with the rankings {known.ledger_root}, here they come to "
            f"{ledger_root}: restore the database that it was closed from"
        )
    if known.data_hash == data_hash:
        return Outcome(what, done=True)
    contract = writer.deployment.ledger_contract()
    amended = writer.step("amend", epoch, contract.encode("amend", epoch, data_hash))
    amended.resume()
    if epoch_record(writer.rpc, writer.deployment, epoch).data_hash == data_hash:
        return Outcome(what, done=True)
    return amended.take(f"amend epoch {epoch}: bundle {data_hash}")
