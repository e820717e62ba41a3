"""Receipts that somebody kept, held against an epoch's log: what the operator dropped or moved is proven by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chain.bundle import Evidence
from chain.errors import HapticError, SignatureError
from chain.messages import Domain, Receipt, parse_hash, recover
from chain.types import Hash32


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    """A receipt as it was given out, with the operator's signature, and the line of the file that it stands in."""

    receipt: Receipt
    signature: str
    line: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of the ranking that a receipt is for."""

    kept: KeptReceipt
    fault: str
    """Empty where it stands in the log as promised; else what is wrong, in words."""


def read_receipts(lines: Iterable[str]) -> Iterator[KeptReceipt]:
    """Yield the receipts in a file as `haptic rank` keeps it; SignatureError names the line that is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found: Mapping[str, Any] = json.loads(line)["receipt"]
            fields = {
                "digest": parse_hash(found["digest"]), "epoch": found["epoch"],
                "position": found["position"], "receivedAt": found["received_at"],
            }  # fmt: skip
            yield KeptReceipt(Receipt.parse(fields), str(found["signature"]), number)
        except (ValueError, KeyError, TypeError, RecursionError, HapticError) as error:
            raise SignatureError(
                f"line {number} of the receipts is none that haptic keeps: {error}"
            ) from error


def check_receipts(
    kept: Iterable[KeptReceipt], evidence: Evidence, digests: Mapping[int, Hash32], domain: Domain
) -> tuple[Finding, ...]:
    """Return what became of each receipt of the evidence's epoch; those of other epochs are left out."""
    logged = {r.position: (digests[r.position], r.received_at) for r in evidence.rankings}
    places = {digest: position for position, digest in digests.items()}
    return tuple(
        Finding(k, _fault(k, logged, places, evidence, domain))
        for k in kept
        if k.receipt.epoch == evidence.header.epoch
    )


def _fault(
    kept: KeptReceipt,
    logged: Mapping[int, tuple[Hash32, int]],
    places: Mapping[Hash32, int],
    evidence: Evidence,
    domain: Domain,
) -> str:
    """Return what is wrong with the log by a receipt, or with the receipt; nothing where both agree."""
    receipt = kept.receipt
    if logged.get(receipt.position) == (receipt.digest_of, receipt.received_at):
        return ""
    name = f"the ranking {receipt.digest_of}, received at {receipt.received_at} as number {receipt.position},"
    try:
        signer = recover(receipt.digest(domain), kept.signature)
    except SignatureError as error:
        return f"{name} has a receipt that proves nothing: {error}"
    if signer != evidence.header.receipt_signer:
        return (
            f"{name} has a receipt signed by {signer}, and is not in the log so; "
            f"the operator names {evidence.header.receipt_signer} as signer of its receipts"
        )
    if receipt.digest_of in places:
        place = places[receipt.digest_of]
        return f"{name} stands in the log as number {place}, received at {logged[place][1]}: it was moved"
    return f"{name} was DROPPED: it is not among the {len(logged)} rankings of the log"
