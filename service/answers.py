"""What a service answers a contributor, refusals included: each field is parsed, or said to be none, before it is used.

Nothing in an answer is trusted for its form. What is signed or kept is parsed here field by field; what is only shown
is read within `legible`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from chain.deployment import Deployment
from chain.errors import HapticError
from chain.messages import MAX_INT, Domain, Ranking, parse_address, parse_hash, recover
from chain.receipts import receipt_of
from chain.rules import METHODS, SIZES
from chain.types import Address, Hash32

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,4096}=*", re.ASCII)
"""A bearer token as RFC 6750 has it; what it is made of is the service's own."""


class ApiError(HapticError):
    """The service refused, cannot be reached, or answers what no Haptic service does."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0 when there was no answer."""


class UnsentError(ApiError):
    """No connection was opened, so the service knows nothing of what was to be sent."""


class UnknownError(ApiError):
    """No answer says whether a ranking was recorded."""


class BrokenPromiseError(ApiError):
    """The service's answer is no promise of what was asked; it is evidence."""

    def __init__(self, message: str, answer: Any) -> None:
        super().__init__(message)
        self.answer = answer


@contextmanager
def legible(url: str) -> Iterator[None]:
    """Read answers that are only shown: an ApiError, and no traceback, where a field is missing or of another kind."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ApiError(f"{url} answers what no Haptic service does ({said})") from error


@dataclass(frozen=True, slots=True)
class Info:
    """What `/v1/info` says of the network and of its time; the running epoch follows from it."""

    domain: Domain
    """What is signed is signed for this chain and vault (EIP-712)."""
    genesis: int
    """Unix seconds."""
    epoch_length: int
    """Seconds."""
    now: int
    """Block time of the chain's head, Unix seconds."""
    receipt_signer: Address

    @classmethod
    def parse(cls, found: Any) -> Info:
        """Return what an answer says; ApiError where a field is none, or the epoch not the one that its times give."""
        domain = Domain(number(found, "chain_id"), address(found, "vault"))
        genesis, length, now = (number(found, name) for name in ("genesis", "epoch_length", "now"))
        info = cls(domain, genesis, length, now, address(found, "receipt_signer"))
        if not info.epoch_length:
            raise ApiError("the service's epoch_length is 0, no length")
        if type(said := found.get("epoch")) is not int or said != info.epoch:
            raise ApiError(
                f"the service says that epoch {said!r} runs, and by its own genesis, length and time it is {info.epoch}"
            )
        return info

    @property
    def epoch(self) -> int:
        """The running epoch; negative before genesis."""
        return (self.now - self.genesis) // self.epoch_length

    def start(self, epoch: int) -> int:
        """Return when an epoch begins, Unix seconds."""
        return self.genesis + epoch * self.epoch_length

    def check(self, deployment: Deployment, now: int) -> None:
        """Raise an ApiError naming both values where the chain says otherwise; `now` is the time of its last block."""
        for name, said, found in (
            ("the chain's id", self.domain.chain_id, deployment.chain_id),
            ("the StakeVault", self.domain.vault, deployment.vault), ("genesis", self.genesis, deployment.genesis),
            ("the length of an epoch", self.epoch_length, deployment.epoch_length),
            ("the running epoch", self.epoch, deployment.epoch_at(now)),
        ):  # fmt: skip
            if said != found:
                raise ApiError(
                    f"{name} is {said} by the service and {found} by the chain, so nothing was signed: check --service, "
                    "--rpc and --deployment; where they are right, the service is wrong"
                )


@dataclass(frozen=True, slots=True)
class Nonce:
    """What a message of Sign-In with Ethereum has to say to a service."""

    domain: str
    nonce: str
    statement: str
    now: int
    """Block time, Unix seconds."""

    @classmethod
    def parse(cls, found: Any) -> Nonce:
        """Return what an answer asks for; ApiError where a field is none."""
        domain, nonce, statement = (text(found, name) for name in ("domain", "nonce", "statement"))
        return cls(domain, nonce, statement, number(found, "now"))


@dataclass(frozen=True, slots=True)
class Task:
    """A blind task as the service hands it out."""

    epoch: int
    task: Hash32
    prompt: str
    method: str
    shown: tuple[str, ...]
    expires_at: int
    """Block time, Unix seconds; 0 of one that was ranked already."""
    skips_left: int = 0
    promise: Mapping[str, Any] = field(default_factory=dict)
    """The fields of its Handout with the service's `signature` and `signer`: with it one can prove to have been asked
    just that, which at the close is held against the task (`chain.receipts`)."""

    @classmethod
    def parse(cls, found: Mapping[str, Any], epoch: int, task: Hash32, method: Any) -> Task:
        """Return the task whose texts are in an answer; ApiError where it cannot be shown and answered."""
        prompt, shown = texts(found)
        if method not in METHODS or len(shown) not in SIZES:
            raise ApiError(f"{method!r} of {len(shown)} responses is no way to judge")
        return cls(epoch, task, prompt, method, shown, expires_at=0)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A ranking that this wallet sent, as the service has it."""

    position: int
    """Its place in the epoch's log, which its receipt names."""
    ranking: Ranking
    comment: str
    task: Task
    receipt: Mapping[str, Any]
    """What the service says that it promised of it, in the fields of its first answer; not held against anything yet."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A claim's proof, every field checked for form."""

    account: Address
    epoch: int
    cumulative: int
    index: int
    nodes: tuple[tuple[Hash32, int], ...]

    @property
    def path(self) -> bytes:
        """The siblings as the contract takes them: 44 bytes each, leaf first."""
        return b"".join(bytes.fromhex(h[2:]) + s.to_bytes(12, "big") for h, s in self.nodes)

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Proof:
        """Return the proof in a service's answer; HapticError when it is not one."""
        try:
            nodes = tuple((parse_hash(h), _sum(s)) for h, s in value["proof"])
            return cls(
                parse_address(value["account"]),
                int(value["epoch"]),
                int(value["cumulative"]),
                int(value["index"]),
                nodes,
            )
        except (KeyError, TypeError, ValueError, ArithmeticError, HapticError) as error:
            raise HapticError(f"the service's proof cannot be read: {error}") from error


def _sum(value: Any) -> int:
    """Return a node's sum, wei; ValueError where it is no uint96."""
    if not 0 <= (found := int(value)) < 2**96:
        raise ValueError(f"{found} is no uint96")
    return found


def check_receipt(answer: Any, ranking: Ranking, domain: Domain, signer: Address) -> None:
    """Raise a BrokenPromiseError unless an answer is a receipt for this ranking that `signer` signed."""
    try:
        receipt = receipt_of(answer)
        found = recover(receipt.digest(domain), answer["signature"])
        # The digest holds the ranking's epoch, but the log that a receipt is held against goes by the receipt's.
        if (receipt.digest_of, receipt.epoch, found) != (ranking.digest(domain), ranking.epoch, signer):
            raise ApiError(f"it is of {receipt.digest_of} in epoch {receipt.epoch}, signed by {found}")
    except (KeyError, HapticError) as error:
        raise BrokenPromiseError(
            f"the service's receipt is not for what was sent ({error}); keep this answer as evidence: {answer}",
            answer,
        ) from error


def texts(found: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return a task's prompt and its responses, in the order of the screen; ApiError where they are none."""
    prompt, shown = found["prompt"], found["shown"]
    if not isinstance(shown, list) or not all(isinstance(each, str) for each in (prompt, *shown)):
        raise ApiError("its texts are no texts")
    return prompt, tuple(shown)


def number(found: Any, name: str) -> int:
    """Return a number of an answer; ApiError where it is none."""
    value = found.get(name) if isinstance(found, dict) else None
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise ApiError(f"the service's {name} is {value!r}, no number")
    return value


def text(found: Any, name: str) -> str:
    """Return a text of an answer; ApiError where it is none."""
    value = found.get(name) if isinstance(found, dict) else None
    try:
        if isinstance(value, str):
            value.encode()  # a lone surrogate can be neither hashed nor signed
            return value
    except UnicodeEncodeError:
        pass
    raise ApiError(f"the service's {name} is {value!r}, no text")


def address(found: Any, name: str) -> Address:
    """Return an address of an answer; HapticError where it is none."""
    return parse_address(found.get(name) if isinstance(found, dict) else None, f"the service's {name}")


def token(found: Any) -> str:
    """Return the bearer token of an answer; ApiError where it is none that a request can carry."""
    if not _TOKEN.fullmatch(value := text(found, "token")):
        raise ApiError("the service's token holds what no token does (RFC 6750)")
    return value
