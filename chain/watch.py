"""Watches the roots that are posted: recomputes each as a stranger, and challenges or vetoes the one that is wrong.

It goes by the newest block, not by the finalized one: a challenge has to be in time, and one that a reorg takes
back is sent again at the next look. What is pending stands on the chain; only the trees are remembered, because
whoever published them may withhold them later. What the distributor itself can be shown is looked for first: that
takes a second and needs nothing but the leaves.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final

from chain.challenge import Fault, PostedTree, Show, find_fault
from chain.committer import epoch_record
from chain.confirmed import Confirmed
from chain.contracts import call, is_revert, revert_reason
from chain.deployment import Deployment
from chain.errors import BundleError, ChainError, HapticError, NodeError, RevertError, VersionError
from chain.fees import UNLIMITED
from chain.memory import Memory
from chain.quote import Wanted, quote
from chain.rpc import Rpc
from chain.served import Served, Source, hash_served, published_leaves
from chain.signer import Payer
from chain.transactions import Courier
from chain.transport import RpcAnswerError
from chain.types import ZERO_HASH, Address, BlockRef, Hash32, Leaf, Wei
from chain.verify import verify

log = logging.getLogger(__name__)
NOTHING: Final = Wei(0)
_NOBODY: Final = PostedTree(ZERO_HASH, NOTHING, 0, {})
"""A tree that pays nobody, or of which nothing is known."""


class Verdict(StrEnum):
    """What one look came to."""

    IDLE = "idle"
    """No root is pending."""
    RIGHT = "right"
    """The pending root is what was recomputed."""
    CHALLENGED = "challenged"
    """The pending root was proven wrong and is gone; the bond is ours."""
    VETOED = "vetoed"
    """The pending root was found wrong and thrown out by us, the guardian."""
    GONE = "gone"
    """The pending root was wrong, and somebody else was faster."""
    PLANNED = "planned"
    """The pending root is wrong, and nothing was sent: a dry run, or no key."""
    ALARM = "alarm"
    """The pending root is wrong, or cannot be checked, and nothing that we may send stops it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The root that waits in the distributor."""

    epoch: int
    root: Hash32
    sum: Wei
    depth: int
    active_at: int
    """When it can be activated, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found and did."""

    verdict: Verdict
    said: str
    """In words."""
    pending: Pending | None = None
    time: int = 0
    """Of the block that was looked at, Unix seconds."""
    transaction: Hash32 | None = None
    """What was sent, and is in a block."""
    cost: Wei = NOTHING
    """What was paid for gas, or in a dry run would be at most, in wei."""
    missing: Wei = NOTHING
    """What the account has too little to pay that, in a dry run."""
    reward: Wei = NOTHING
    """The bond that was, or would be, paid to us, in wei."""
    warning: str = ""
    """What is no alarm yet and may become one, in words."""

    @property
    def is_well(self) -> bool:
        """Tell whether no wrong or unchecked root is left waiting."""
        return self.verdict not in {Verdict.ALARM, Verdict.PLANNED}


class _UnreadError(BundleError):
    """A bundle that the source does not give; what it would say is not known."""


@dataclass(slots=True)
class _Bundles:
    """What the source gives during one look: the pending epoch's bundle once, so that all is judged by the same."""

    source: Source
    pending: int
    last: int = -1
    """The epoch that was asked for last, which is the one being checked."""
    _kept: IO[bytes] | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __call__(self, epoch: int) -> Served:
        self.last = epoch
        if epoch == self.pending and self._kept is not None:
            return nullcontext(self._kept)
        try:
            served = self.source(epoch)
        except BundleError as error:
            raise _UnreadError(f"the bundle of epoch {epoch} cannot be read: {error}") from error
        if epoch != self.pending:
            return served
        self._kept = self._stack.enter_context(served)
        return nullcontext(self._kept)

    def close(self) -> None:
        """Let go of the pending epoch's bundle."""
        self._stack.close()


def _leaves(bundles: _Bundles, epoch: int) -> list[Leaf]:
    with bundles(epoch) as file:
        return published_leaves(file)


@dataclass(slots=True)
class Watcher:
    """Somebody who looks after a distributor, with a key or without; `look` is one look, to be repeated."""

    rpc: Rpc
    deployment: Deployment
    source: Source
    sender: Address | None = None
    """Who challenges, or vetoes if it is the guardian; None only tells."""
    account: Payer | None = None
    """The key of `sender`; None only says what would be sent."""
    show: Show = str
    """How an amount of the payment token is written."""
    memory: Path | None = None
    """The folder that keeps the trees for the next process; None keeps them for this one only."""
    max_fee: Wei = UNLIMITED
    """Most that may be offered per gas, in a dry run; an account has its own."""
    _memory: Memory = field(init=False)
    _courier: Courier | None = None
    """Who sends; it remembers from look to look what waits for a block."""
    _confirmed: Confirmed = field(default_factory=Confirmed)
    """What was found right last, from which the next epoch follows."""
    _right: Finding | None = None
    """What was found right, and need not be recomputed at every look."""
    _open: Pending | None = None
    """What was not found right, and not stopped."""

    def __post_init__(self) -> None:
        self._memory = Memory(self.deployment.chain_id, self.deployment.distributor, self.memory)
        self._courier = None if self.account is None else Courier(self.rpc, self.account)

    def look(self) -> Finding:
        """Look once: recompute the pending root if it is new, and do what can be done; never raises.

        Whatever keeps it from checking, a node or a bundle server that is down included, is an alarm.
        """
        pending, time = None, 0
        try:
            head = self.rpc.block("latest")
            pending, time = self._pending(head), head.timestamp
            found = self._look(head, pending)
        except HapticError as error:
            found = Finding(Verdict.ALARM, str(error), pending)
        except Exception as error:
            log.exception("a look failed")
            found = Finding(Verdict.ALARM, f"the look failed ({type(error).__name__}: {error})", pending)
        self._right = found if found.verdict is Verdict.RIGHT else None
        if found.pending is not None:
            self._open = None if found.is_well else found.pending
        return replace(found, time=time)

    def _look(self, head: BlockRef, pending: Pending | None) -> Finding:
        if self._open is not None and pending != self._open and self._pays(head, self._open):
            lost, self._open = self._open, None
            return Finding(
                Verdict.ALARM,
                f"epoch {lost.epoch}: root {lost.root} pays now, though it was never found right: ask the guardian to "
                "pause claims, and claim what is yours",
            )
        if pending is None:
            return self._idle(head)
        if self._right is not None and pending == self._right.pending:
            return self._right
        with closing(_Bundles(self.source, pending.epoch)) as bundles:
            return self._check(head, pending, bundles)

    def _check(self, head: BlockRef, pending: Pending, bundles: _Bundles) -> Finding:
        leaves = _leaves(bundles, pending.epoch)
        posted = PostedTree.of(pending.root, pending.sum, pending.depth, leaves)
        try:
            paying = self._paying(head, bundles)
        except BundleError:
            paying = _NOBODY
        # Before it is known to be right: a wrong one that nobody stops will be the one that pays.
        self._memory.keep(posted.commitment, posted.sum, posted.depth, leaves)
        return self._judge(pending, paying, posted, bundles)

    def _idle(self, head: BlockRef) -> Finding:
        """Learn the active tree while its bundle is still there; that it is not is no alarm yet."""
        warning = ""
        try:
            self._paying(head, _Bundles(self.source, -1))
        except BundleError as error:
            warning = f"the active tree, which the next root is held against, could not be read: {error}"
            log.info(warning)
        return Finding(Verdict.IDLE, "no root is pending", warning=warning)

    def _judge(self, pending: Pending, paying: PostedTree, posted: PostedTree, bundles: _Bundles) -> Finding:
        where = f"epoch {pending.epoch}"
        fault = find_fault(paying, posted)
        if fault is not None:
            done = self._challenge(pending, fault)
            if done is not None:
                return done
        wrong, warning = self._recompute(pending, bundles)
        if wrong:
            return self._object(pending, wrong)
        if not posted.is_known or fault is not None:
            raise ChainError(
                f"{where}: the root that {self.rpc.name} says is pending, {pending.root}, is not the one that it says "
                "was posted: if this stays so, use another node"
            )
        return Finding(Verdict.RIGHT, f"{where}: root {pending.root} is right", pending, warning=warning)

    # -- reading -------------------------------------------------------------------------------------------------

    def _pending(self, head: BlockRef) -> Pending | None:
        found = Pending(*call(self.rpc, self.deployment.revenue_distributor(), "pending", block=head))
        return found if found.active_at else None

    def _is_gone(self, pending: Pending) -> bool:
        return self._pending(self.rpc.block("latest")) != pending

    def _pays(self, head: BlockRef, wrong: Pending) -> bool:
        committed = call(self.rpc, self.deployment.revenue_distributor(), "activeCommitment", block=head)
        return bool(committed == PostedTree(wrong.root, wrong.sum, wrong.depth, {}).commitment)

    def _paying(self, head: BlockRef, bundles: _Bundles) -> PostedTree:
        """Return the active tree, as it is remembered or else as its bundle says; a BundleError without either."""
        distributor = self.deployment.revenue_distributor()
        committed = call(self.rpc, distributor, "activeCommitment", block=head)
        if committed == ZERO_HASH:
            return _NOBODY
        following, total, depth = call(self.rpc, distributor, "active", block=head)
        kept = self._memory.recall(committed, total, depth)
        if kept is not None:
            return kept
        leaves = _leaves(bundles, following - 1)
        tree = self._memory.keep(committed, total, depth, leaves)
        if tree is None:
            raise _UnreadError(
                f"what is served as the bundle of epoch {following - 1} has other leaves than the root that pays"
            )
        return tree

    # -- judging -------------------------------------------------------------------------------------------------

    def _recompute(self, pending: Pending, bundles: _Bundles) -> tuple[str, str]:
        """Return the first difference between the pending root and what a stranger makes of chain and bundles, if any.

        And a warning, if any: an older bundle is withheld, but what it led to is known from when it was there.
        A HapticError where that cannot be told: a bundle that is not given, a node that fails or hides something,
        an earlier epoch that is wrong.
        """
        known = epoch_record(self.rpc, self.deployment, pending.epoch)
        with bundles(pending.epoch) as file:
            served = hash_served(file)
        if known.closed_at and served != known.data_hash:
            # A bad mirror must not cost an honest root: a person can still veto what is withheld.
            raise _UnreadError(
                f"what is served as the bundle of epoch {pending.epoch} has the hash {served}; the operator recorded "
                f"{known.data_hash} on the chain: try another source, and if none has it, ask the guardian to veto"
            )
        bundles.last = -1
        warning = ""
        try:
            try:
                self._verify(pending, bundles)
            except _UnreadError as error:
                if bundles.last == pending.epoch or self._confirmed.last < bundles.last:
                    raise
                warning = (
                    f"{error}. The root was recomputed from what was read before; nobody new can check it"
                )
                self._verify(pending, bundles, resume=True)
        except (ChainError, NodeError, VersionError, _UnreadError):
            raise  # nothing is known of the root: it may be honest
        except HapticError as error:
            if bundles.last == pending.epoch:
                return str(error), warning
            if bundles.last < 0:
                raise
            raise HapticError(
                f"epoch {pending.epoch} cannot be checked, because what comes before it is wrong already: {error}"
            ) from error
        except Exception as error:
            # The bundle is the operator's: nothing that it makes the recomputation raise may end the watch.
            log.exception("epoch %s", pending.epoch)
            raise HapticError(
                f"epoch {pending.epoch} cannot be checked: the recomputation failed ({type(error).__name__}: {error})"
            ) from error
        return "", warning

    def _verify(self, pending: Pending, bundles: _Bundles, *, resume: bool = False) -> None:
        verify(self.rpc, self.deployment, bundles, pending.epoch, confirmed=self._confirmed, resume=resume)

    # -- acting --------------------------------------------------------------------------------------------------

    def _challenge(self, pending: Pending, fault: Fault) -> Finding | None:
        """Prove the pending root wrong; None where the distributor does not accept the proof."""
        said = f"epoch {pending.epoch}: {fault.sentence(self.show)}"
        distributor = self.deployment.revenue_distributor()
        bond = Wei(call(self.rpc, distributor, "bondRequired"))
        try:
            return self._send(pending, Verdict.CHALLENGED, said, fault.function, fault.arguments(), bond)
        except RevertError as error:
            if self._is_gone(pending):
                return Finding(
                    Verdict.GONE, f"{said}. Somebody else was faster: it is not pending any more", pending
                )
            log.warning("%s, but the distributor does not accept the proof: %s", said, error)
            return None

    def _object(self, pending: Pending, wrong: str) -> Finding:
        """Veto a root that is wrong in a way that the distributor cannot be shown, or cry."""
        guardian = call(self.rpc, self.deployment.revenue_distributor(), "guardian")
        if guardian != self.sender:
            return Finding(
                Verdict.ALARM,
                f"{wrong}. The distributor can be given no proof of this: only its guardian, {guardian}, can veto",
                pending,
            )
        # A veto stops an honest root as well, and a node that lags for a moment makes one look wrong.
        with closing(_Bundles(self.source, pending.epoch)) as bundles:
            again, _ = self._recompute(pending, bundles)
        if again != wrong:
            raise ChainError(f"epoch {pending.epoch}, recomputed twice, gave two results; the first: {wrong}")
        if self._is_gone(pending):
            return Finding(Verdict.GONE, f"{wrong}. It is not pending any more", pending)
        return self._send(pending, Verdict.VETOED, wrong, "veto", (pending.root,), NOTHING)

    def _send(
        self,
        pending: Pending,
        verdict: Verdict,
        said: str,
        function: str,
        arguments: tuple[Any, ...],
        reward: Wei,
    ) -> Finding:
        """Try a call out, send it and wait for its block; a RevertError where the distributor refuses it."""
        to = self.deployment.distributor
        data = self.deployment.revenue_distributor().encode(function, *arguments)
        self._rehearse(to, data)
        if self._courier is None:
            plan = Finding(
                Verdict.PLANNED, f"{said}. Nothing was sent; {function} would stop it", pending, reward=reward
            )
            if self.sender is None:
                return plan
            found = quote(self.rpc, self.sender, [Wanted(to, data)], self.max_fee)
            return replace(plan, cost=found.cost, missing=found.missing)
        receipt = self._courier.send(to, data)
        return Finding(
            verdict, f"{said}. Root {pending.root} was {verdict} and is gone", pending,
            transaction=receipt.transaction_hash, cost=receipt.cost, reward=reward,
        )  # fmt: skip

    def _rehearse(self, to: Address, data: bytes) -> None:
        try:
            self.rpc.call(to, data, "latest", self.sender)
        except RpcAnswerError as error:
            if is_revert(error):
                raise RevertError(f"the distributor would refuse: {revert_reason(error.data)}") from None
            raise
