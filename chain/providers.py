"""Several nodes of one chain: who is asked next, who rests after a fault, who lied, who is on another chain."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from chain.errors import RpcError
from chain.exchange import public_url
from chain.transport import (
    Call,
    RpcAnswerError,
    RpcTimeoutError,
    Transport,
    UnknownBlockError,
    check_url,
)

T = TypeVar("T")
Read = Callable[[str, list[msgspec.Raw]], T]
"""Makes something of a node's raw results; gets the node's name for the errors that it raises."""

FIRST_REST_S = 5.0
LONGEST_REST_S = 300.0
LIE_REST_S = 3_600.0
LONGEST_LIE_REST_S = 86_400.0
FEW_RETRIES = 2
"""Further attempts at a node while others wait to be asked."""
LOOK_S = 30.0
"""How often the nodes' heights are compared."""
LAG_BLOCKS = 16
"""How far a node's head may be behind the furthest; between good providers it differs by a few blocks."""

_DOUBLINGS = 16
"""Bound of the exponent, long after a rest has reached its own."""
_MAYBE = (RpcAnswerError, UnknownBlockError)
"""What may be no fault of the node's: there may be no such block."""

log = logging.getLogger(__name__)


def split_urls(text: str) -> list[str]:
    """Return the URLs in a text, which are separated by commas or spaces, each once."""
    return list(dict.fromkeys(text.replace(",", " ").split()))


@dataclass(slots=True, eq=False)
class Node:
    """One node, and what is held against it."""

    transport: Transport
    chain_id: int | None = None
    """As it said before its first answer was believed; asked again after a fault."""
    refused: str = ""
    """Why it is never used."""
    lie: str = ""
    """The last that it told while there were others; a node that lied comes after them for good."""
    lies: int = 0
    told: str = ""
    """The last that was logged."""
    faults: int = 0
    """In a row."""
    fault: str = ""
    rests_until: float = 0.0
    lags: bool = False

    @property
    def name(self) -> str:
        """Its URL without keys."""
        return self.transport.name


class Providers:
    """The nodes behind an Rpc.

    They are asked in the given order. One that fails rests for a while, longer each time, and is then tried
    again; meanwhile the next is used. A JSON-RPC error that any node would give is an answer.
    """

    def __init__(
        self, nodes: Sequence[Node], *, retries: int, clock: Callable[[], float], chain_id: int | None
    ) -> None:
        self.nodes = tuple(nodes)
        self.name = ", ".join(node.name for node in nodes)
        self.chain_id = chain_id
        """Of which all must be; without one, the first that is seen."""
        self._retries = retries
        self._clock = clock
        self._compared_at: float | None = None
        self._lock = threading.Lock()
        self._latest = self.nodes[0]
        self._mine = threading.local()

    @classmethod
    def open(
        cls,
        urls: str,
        timeout_s: float,
        *,
        retries: int,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        chain_id: int | None = None,
    ) -> Providers:
        """Return the nodes at `urls`; an RpcError where one is no URL."""
        found = split_urls(urls) or [""]
        for url in found:
            check_url(url)
        same = Counter(map(public_url, found))
        nodes = []
        for number, url in enumerate(found, start=1):
            name = public_url(url)
            # Two keys at one provider: their number tells them apart.
            name += f" (URL {number})" if same[name] > 1 else ""
            nodes.append(Node(Transport(url, timeout_s, retries=retries, sleep=sleep, name=name)))
        return cls(nodes, retries=retries, clock=clock, chain_id=chain_id)

    def close(self) -> None:
        """Let go of all connections."""
        for node in self.nodes:
            node.transport.close()

    def each(self) -> list[Providers]:
        """Return each node by itself; those that must not be believed are left out."""
        return [
            Providers([node], retries=self._retries, clock=self._clock, chain_id=self.chain_id)
            for node in self._usable()
        ]

    @property
    def source(self) -> str:
        """Name of the node that gave the last answer, in this thread if it got one."""
        node: Node = getattr(self._mine, "node", self._latest)
        return node.name

    def standing(self) -> dict[str, str]:
        """Return what is held against each node, in words; nothing where it is in order."""
        now, found = self._clock(), {}
        for node in self.nodes:
            said = node.refused or (f"is distrusted: {node.lie}" if node.lie else node.fault)
            if not said and node.lags:
                said = f"is more than {LAG_BLOCKS} blocks behind"
            rest = node.rests_until - now
            found[node.name] = said + (f"; rests {rest:.0f} s" if said and rest > 0 else "")
        return found

    # -- asking ----------------------------------------------------------------------------------------------

    def ask(self, calls: Sequence[Call], read: Read[T]) -> T:
        """Return what `read` makes of the results, all from one node: the first that has them.

        An RpcError names every node that was asked and what it said.
        """
        failed: list[tuple[Node, RpcError]] = []
        for node, retries in self._turns():
            try:
                self._check_chain(node, retries)
                found = read(node.name, node.transport.results(calls, retries))
            except _MAYBE as error:
                if isinstance(error, RpcAnswerError) and not error.local:
                    self._succeeded(node, failed)
                    raise
                # Whether this is a fault shows only when another node knows better.
                failed.append((node, error))
            except RpcError as error:
                failed.append((node, error))
                self._rest(node, str(error))
            else:
                self._succeeded(node, failed)
                return found
        raise self._error(failed)

    def compare(self) -> None:
        """Look, every LOOK_S seconds, which nodes' heads are behind: they are asked after the others."""
        now = self._clock()
        if len(self.nodes) == 1 or (self._compared_at is not None and now < self._compared_at + LOOK_S):
            return
        self._compared_at = now
        heights: dict[Node, int] = {}
        for node in self._usable():
            if node.rests_until > now:
                continue
            try:
                self._check_chain(node, 0)
                heights[node] = _quantity(node, "eth_blockNumber", 0)
            except RpcError as error:
                self._rest(node, str(error))
        for node, height in heights.items():
            behind = max(heights.values()) - height > LAG_BLOCKS
            if behind and not node.lags:
                log.warning("%s is at block %s, another node at %s", node.name, height, max(heights.values()))
            node.lags = behind

    def _usable(self) -> list[Node]:
        """Return the nodes that may be believed, the best first."""
        now = self._clock()
        fit = [n for n in self.nodes if not n.refused and not (n.lie and n.rests_until > now)]
        return sorted(fit, key=lambda n: (bool(n.lie), n.rests_until * (n.rests_until > now), n.lags))

    def _turns(self) -> list[tuple[Node, int]]:
        """Return whom to ask, with how many further attempts: none at one that failed, most at the last that did not."""
        usable = self._usable()
        sound = [n for n in usable if not n.faults] or usable[:1]
        few = min(self._retries, FEW_RETRIES)
        return [(n, self._retries if n is sound[-1] else few if n in sound else 0) for n in usable]

    def _check_chain(self, node: Node, retries: int) -> None:
        """Believe no node before it has said that it is of the right chain."""
        if node.chain_id is not None or (len(self.nodes) == 1 and self.chain_id is None):
            return
        found = _quantity(node, "eth_chainId", retries)
        with self._lock:
            self.chain_id = self.chain_id or found
        if found != self.chain_id:
            node.refused = f"is chain {found}, not {self.chain_id}"
            log.error("%s %s: it is not used", node.name, node.refused)
            raise RpcError(f"{node.name} {node.refused}: check the RPC URL and the deployment file")
        node.chain_id = found

    # -- judging ---------------------------------------------------------------------------------------------

    def distrust(self, reason: str, source: str | None = None) -> bool:
        """Put the node that lied (`source`, or that of the last answer) behind all others, after a long rest.

        False where no other is left: then nothing can be believed, and the caller has to stop.
        """
        name = source or self.source
        liar = next((node for node in self.nodes if node.name == name), self._latest)
        now, usable = self._clock(), self._usable()
        others = any(node is not liar for node in usable)
        if liar.told != reason:
            liar.told = reason
            log.error(
                "%s is not believed (%s); %s", name, reason, "the next is" if others else "no other is left"
            )
        # One that nobody asks any more has been found out already.
        if others and liar in usable:
            rest = min(LIE_REST_S * 2 ** min(liar.lies, _DOUBLINGS), LONGEST_LIE_REST_S)
            liar.lie, liar.lies, liar.rests_until = reason, liar.lies + 1, now + rest
        return others

    def _succeeded(self, node: Node, failed: Sequence[tuple[Node, RpcError]]) -> None:
        self._latest = self._mine.node = node
        node.faults, node.fault = 0, ""
        for other, error in failed:
            if isinstance(error, _MAYBE):
                self._rest(other, str(error))

    def _rest(self, node: Node, why: str) -> None:
        if len(self.nodes) == 1 or node.refused:
            return
        if not node.fault:
            log.warning("%s; another node is asked", why)
        node.fault, node.chain_id = why, None
        rest = min(FIRST_REST_S * 2 ** min(node.faults, _DOUBLINGS), LONGEST_REST_S)
        node.faults += 1
        node.rests_until = max(node.rests_until, self._clock() + rest)

    def _error(self, failed: Sequence[tuple[Node, RpcError]]) -> RpcError:
        """Return what all nodes together said, as the kind of error that tells most."""
        asked = {node for node, _ in failed}
        said = [str(error) for _, error in failed]
        said += [f"{n.name} {why} and is not asked" for n, why in self._left_out() if n not in asked]
        errors = [error for _, error in failed]
        if len(said) == 1 and errors:
            return errors[0]
        text = "no node gives an answer: " + "; ".join(said)
        for error in errors:
            if isinstance(error, RpcAnswerError):
                return RpcAnswerError(text, code=error.code, text=error.text, data=error.data, local=True)
        for kind in (RpcTimeoutError, UnknownBlockError):
            if any(isinstance(error, kind) for error in errors):
                return kind(text)
        return RpcError(text)

    def _left_out(self) -> list[tuple[Node, str]]:
        return [(n, n.refused or f"is distrusted ({n.lie})") for n in self.nodes if n.refused or n.lie]


def _quantity(node: Node, method: str, retries: int) -> int:
    """Return a number from one node."""
    raw = node.transport.results([(method, [])], retries)[0]
    try:
        return int(msgspec.json.decode(raw, type=str), 16)
    except (ValueError, msgspec.DecodeError):
        raise RpcError(f"{node.name} answered {method} with {bytes(raw)[:40]!r}: use another node") from None
