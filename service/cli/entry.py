"""A person's way into a service: the terms, a Session for the running epoch, and what is waited for before a task."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from eth_account.signers.local import LocalAccount
from rich.prompt import Confirm

from chain.deployment import Deployment
from chain.errors import HapticError
from chain.messages import Domain
from chain.rpc import Rpc
from service.answers import ApiError, Info, Task
from service.api import Api
from service.client import Contributor
from service.hostile import plain
from service.terminal import out, show_wait

UNAUTHORIZED, FORBIDDEN, CONFLICT = 401, 403, 409
OPENING_S, FINAL_S, POLL_S = 120.0, 1800.0, 1.0
"""How long tasks that are still being made are waited for, and stake that is not final yet; how often it is asked."""
TURN_S = 15.0
"""How long service and node may differ on the running epoch: one sees its first block before the other."""
T = TypeVar("T")


class Entry:
    """One person at one service, signed in for one epoch after the other.

    With the `chain`, nothing is signed for an epoch, contract or chain that it denies. Without it the service is believed
    in what it says of all these; they have to fit each other.
    """

    def __init__(self, api: Api, account: LocalAccount, chain: tuple[Rpc, Deployment] | None = None) -> None:
        self.api, self._chain = api, chain
        domain = Domain(chain[1].chain_id, chain[1].vault) if chain else api.domain()
        self.me = Contributor(api, account, domain)
        self.terms = api.terms()
        self.epoch, self.ends = 0, 0
        """The epoch that the person is signed in for, and when it ends by block time, Unix seconds."""

    def agreed(self) -> bool:
        """Show the terms and ask; an input that ends is a no."""
        out.print(f"[dim]{plain(self.terms)}[/]")
        asked = "Do you agree, and sign in for this epoch and those that begin while you rank?"
        try:
            return Confirm.ask(asked, console=out, default=True)
        except EOFError:
            out.print()
            return False

    def sign_in(self) -> int:
        """Sign a Session for the running epoch, on the terms that were shown, and return the epoch."""
        info = self._checked_info()
        epoch = info.epoch
        if epoch < 0:
            raise HapticError(
                f"epoch 0 begins in {show_wait(info.genesis - info.now)}: nothing can be ranked before"
            )
        self.me.log_in(epoch=epoch, now=info.now, terms=self.terms)
        self.epoch, self.ends = epoch, info.start(epoch + 1)
        return epoch

    def _checked_info(self) -> Info:
        """Return what the service says of the network; ApiError, after TURN_S, where the chain says otherwise."""
        deadline = time.monotonic() + TURN_S
        while True:
            info = self.api.info()
            if self._chain is None:
                return info
            rpc, deployment = self._chain
            now = rpc.block("latest").timestamp
            if info.epoch == deployment.epoch_at(now) or time.monotonic() > deadline:
                info.check(deployment, now)
                return info
            time.sleep(POLL_S)

    def signed_in(self, ask: Callable[[], T]) -> T:
        """Return what the service answers, signing in once more where the session has ended."""
        try:
            return ask()
        except ApiError as error:
            if error.status != UNAUTHORIZED:
                raise
        out.print(f"Your session had ended: you are signed in for epoch {self.sign_in()}, on the same terms.")
        return ask()

    def opened_task(self) -> Task | None:
        """Return the next task, waiting for an epoch whose tasks are still being made, and for stake to be final."""
        # One for each reason: a service that gives them by turns is waited for no longer.
        deadlines: dict[str, float] = {}
        told = ""
        while True:
            try:
                return self.me.next_task()
            except ApiError as error:
                patience_s, words = self._worth_waiting(error)
                if not words or time.monotonic() > deadlines.setdefault(words, time.monotonic() + patience_s):
                    raise
            if words != told:
                told = words
                out.print(f"{words} (Ctrl-C stops).")
            time.sleep(POLL_S)

    def _worth_waiting(self, error: ApiError) -> tuple[float, str]:
        """Return how long what was refused is worth waiting for, seconds, and why; no words where it is not."""
        if error.status == CONFLICT:
            return OPENING_S, "The epoch's tasks are still being made: waiting for them"
        if error.status == FORBIDDEN:
            mine, info = self.api.get(f"/contributors/{self.me.address}"), self.api.get("/info")
            try:
                staked, final = int(mine["staked"]), int(mine["staked_final"])
                least = int(info["rules"]["stake_least"])
            except (
                KeyError,
                TypeError,
                ValueError,
                ArithmeticError,
            ):  # who is not told what to wait for does not wait
                return 0.0, ""
            # Where too little is staked, no block makes it enough.
            if staked >= least > final:
                return FINAL_S, "Your stake is not final yet, and tasks go by final stake: waiting for that"
        return 0.0, ""
