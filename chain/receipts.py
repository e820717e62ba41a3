"""Promises that somebody kept, held against an epoch's log: what the operator dropped or moved is proven by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from chain.assignment import display_order
from chain.bundle import Evidence
from chain.canonical import text_hash
from chain.errors import HapticError, SignatureError
from chain.feedback import Task
from chain.messages import Domain, Handout, Ranking, Receipt, parse_hash, recover
from chain.types import Address, Hash32

REFUSED = "refused"
"""Under this name a line keeps an answer that was no promise of what was asked, `why` beside it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A promise as it was given out, with the operator's signature, and the line of the file that it stands in."""

    promise: Receipt | Handout
    signature: str
    line: int
    ranking: Ranking | None = None
    """What the receipt is of, where the line has it."""

    @property
    def epoch(self) -> int:
        """The epoch in whose log it has to stand: the ranking's own, for the service dates the receipt alone."""
        return self.promise.epoch if self.ranking is None else self.ranking.epoch


@dataclass(frozen=True, slots=True)
class Unread:
    """A line of the file that holds no promise, and why."""

    fault: str
    line: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of the ranking or the hand-out that a promise is of."""

    kept: Kept
    fault: str
    """Empty where it stands in the log as promised; else what is wrong, in words."""


def read_promises(lines: Iterable[str]) -> Iterator[Kept | Unread]:
    """Yield what each line of a file holds as `haptic rank` keeps it; one that is spoiled takes no other with it."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _read(json.loads(line), number)
        except (ValueError, KeyError, TypeError, RecursionError, HapticError) as error:
            yield Unread(f"is none that haptic keeps: {error}", number)


def _read(kept: Mapping[str, Any], number: int) -> Kept | Unread:
    if REFUSED in kept:
        return Unread(f"keeps an answer that was refused: {kept['why']}", number)
    if "handout" in kept:
        found = kept["handout"]
        return Kept(handout_of(found), str(found["signature"]), number)
    found = kept["receipt"]
    ranking = Ranking.parse(kept["ranking"]) if "ranking" in kept else None
    return Kept(receipt_of(found), str(found["signature"]), number, ranking)


def handout_of(found: Any) -> Handout:
    """Return the promise among other fields that stand beside it; SignatureError where it is none."""
    names = ("wallet", "epoch", "task", "prompt", "shown", "number", "at")
    return Handout.parse({name: _field(found, name) for name in names})


def receipt_of(found: Any) -> Receipt:
    """Return the receipt among the fields of a service's answer; SignatureError where it is none."""
    fields = {
        "digest": parse_hash(_field(found, "digest")), "epoch": _field(found, "epoch"),
        "position": _field(found, "position"), "receivedAt": _field(found, "received_at"),
    }  # fmt: skip
    return Receipt.parse(fields)


def _field(found: Any, name: str) -> Any:
    if not isinstance(found, Mapping) or name not in found:
        raise SignatureError(f"{name} is missing in a promise")
    return found[name]


class _Log(NamedTuple):
    """An epoch's log, as its promises name what stands in it."""

    rankings: Mapping[int, tuple[Hash32, int]]
    """By position: digest and time of arrival."""
    places: Mapping[Hash32, int]
    """Positions by digest."""
    handouts: Mapping[int, tuple[Address, Hash32, int]]
    """By number: wallet, task and time."""
    tasks: Mapping[Hash32, Task]
    seed: bytes
    """Draws the order on each screen."""
    signer: Address
    """Whose promises the operator says are its own."""


def check_promises(
    kept: Iterable[Kept], evidence: Evidence, digests: Mapping[int, Hash32], domain: Domain
) -> tuple[Finding, ...]:
    """Return what became of each promise of the evidence's epoch; those of other epochs are left out."""
    log = _Log(
        {r.position: (digests[r.position], r.received_at) for r in evidence.rankings},
        {digest: position for position, digest in digests.items()},
        {h.number: (h.wallet, h.task, h.at) for h in evidence.handouts},
        evidence.tasks,
        bytes.fromhex(evidence.header.seed[2:]),
        evidence.header.receipt_signer,
    )
    return tuple(Finding(k, _fault(k, log, domain)) for k in kept if k.epoch == evidence.header.epoch)


def _fault(kept: Kept, log: _Log, domain: Domain) -> str:
    """Return what is wrong with the log by a promise, or with the promise; nothing where both agree."""
    promise = kept.promise
    if isinstance(promise, Receipt):
        fault = _fault_beside(promise, kept.ranking, domain) or _fault_of_ranking(promise, log)
        name = f"the ranking {promise.digest_of}, received at {promise.received_at} as number {promise.position},"
        word = "receipt"
    else:
        fault = _fault_of_handout(promise, log) or _fault_of_texts(promise, log)
        name = f"the hand-out of task {promise.task} to {promise.wallet} at {promise.at}, number {promise.number},"
        word = "promise"
    if not fault:
        return ""
    try:
        signer = recover(promise.digest(domain), kept.signature)
    except SignatureError as error:
        return f"{name} has a {word} that proves nothing: {error}"
    if signer != log.signer:
        return (
            f"{name} has a {word} signed by {signer}, and is not in the log so; "
            f"the operator names {log.signer} as signer of its {word}s"
        )
    return f"{name} {fault}"


def _fault_beside(receipt: Receipt, ranking: Ranking | None, domain: Domain) -> str:
    """Return how a receipt differs from the ranking that was kept with it."""
    if ranking is None:
        return ""
    if ranking.digest(domain) != receipt.digest_of:
        return "is not the one that is kept with its receipt"
    if ranking.epoch != receipt.epoch:
        return f"was sent for epoch {ranking.epoch}, and is promised to the log of epoch {receipt.epoch}: MISDATED"
    return ""


def _fault_of_ranking(receipt: Receipt, log: _Log) -> str:
    if log.rankings.get(receipt.position) == (receipt.digest_of, receipt.received_at):
        return ""
    if receipt.digest_of in log.places:
        place = log.places[receipt.digest_of]
        return f"stands in the log as number {place}, received at {log.rankings[place][1]}: it was moved"
    return f"was DROPPED: it is not among the {len(log.rankings)} rankings of the log"


def _fault_of_handout(promise: Handout, log: _Log) -> str:
    # A task may be handed to the same wallet again when its time is over: only the number tells which of them it was.
    if log.handouts.get(promise.number) == (promise.wallet, promise.task, promise.at):
        return ""
    return f"was LEFT OUT: it is not so among the {len(log.handouts)} hand-outs of the log"


def _fault_of_texts(promise: Handout, log: _Log) -> str:
    """Return how what was shown differs from the task, whose hash nobody can take before its salt is published."""
    task = log.tasks.get(promise.task)
    if task is None:
        return ""
    prompt = text_hash(task.prompt)
    if promise.prompt != prompt:
        return f"was SHOWN with another prompt: its hash is {promise.prompt}, the task's is {prompt}"
    if sorted(promise.shown) != list(task.hashes):
        return "was SHOWN with other responses than the task has"
    if promise.shown != display_order(log.seed, promise.wallet, promise.task, task.hashes):
        return "was SHOWN with its responses in another order than the seed draws for this wallet"
    return ""
