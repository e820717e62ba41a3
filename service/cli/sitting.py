"""A person at the terminal who ranks: shown one blind task after another, each order read, signed and sent."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from rich.panel import Panel
from rich.prompt import Confirm, Prompt

from chain.errors import HapticError
from chain.messages import Ranking
from service.client import ORDERS, Api, ApiError, Contributor, Task, parse_marks, parse_order
from service.hostile import plain
from service.terminal import out, show_time, show_wait

REASONS = {"u": "unclear", "o": "offensive", "l": "not_my_language", "t": "too_long", "x": "other"}
"""Why a task may be skipped, by the letter that is typed."""
HOW = {
    "pairwise": "Which is better? Type an order: A > B, B > A, or A = B.",
    "ranking": "Put all of them in order, best first; = is a tie: {order}.",
    "best_worst": "Name the best and the worst, with the rest tied between them: {order}.",
    "likert": "Mark each from 1 (worst) to 7 (best), in the order shown: {marks}.",
}
UNAUTHORIZED, CONFLICT = 401, 409
OVER = frozenset({404, CONFLICT, 410})
"""Answers to a ranking that no other order mends: its epoch or its lease has ended, or it was ranked elsewhere."""
OPENING_S, POLL_S = 120.0, 1.0
"""How long an epoch whose tasks are still being made is waited for, and how often it is asked about."""


class Sitting:
    """One person who agrees, signs in, and ranks until there is no task, no wish or no input any more."""

    def __init__(self, api: Api, account: LocalAccount, receipts: Path) -> None:
        self.api, self.receipts = api, receipts
        self.me = Contributor(api, account, api.domain())
        self.terms = str(api.get("/terms")["terms"])
        self.done, self._epoch_ends = 0, 0

    def run(self, count: int) -> None:
        """Ask until `count` tasks are ranked, none is left, or the person stops; what was sent is recorded by then."""
        if not self._agreed():
            out.print("Not signed in: nothing was signed.")
            return
        self._sign_in()
        out.print(f"Receipts are kept in {self.receipts}: with them a dropped ranking can be proven.")
        while self.done < count:
            task = self._next_task()
            if task is None:
                out.print(
                    "No task for you now: those left have enough judgements. Look again in the next epoch."
                )
                return
            if not self._rank(task):
                out.print(
                    f"Stopped; ranked {self.done} in all. The last task stays yours until {self._until(task)}: "
                    "`haptic rank` brings it again."
                )
                return
        out.print(f"Ranked {self.done} in all.")

    def _agreed(self) -> bool:
        """Show the terms and ask; an input that ends is a no."""
        out.print(f"[dim]{plain(self.terms)}[/]")
        asked = "Do you agree, and sign in for this epoch and those that begin while you rank?"
        try:
            return Confirm.ask(asked, console=out, default=True)
        except EOFError:
            out.print()
            return False

    def _sign_in(self) -> int:
        """Sign a Session for the running epoch, on the terms that were shown, and return the epoch."""
        info = self.api.get("/info")
        epoch, now = int(info["epoch"]), int(info["now"])
        if epoch < 0:
            raise HapticError(
                f"epoch 0 begins in {show_wait(info['genesis'] - now)}: nothing can be ranked before"
            )
        self.me.log_in(epoch=epoch, now=now, terms=self.terms)
        self._epoch_ends = info["genesis"] + (epoch + 1) * info["epoch_length"]
        return epoch

    def _next_task(self) -> Task | None:
        """Return the next task, signing in once more where the session has ended; None when there is no task."""
        try:
            return self._opened_task()
        except ApiError as error:
            if error.status != UNAUTHORIZED:
                raise
        out.print(
            f"Your session had ended: you are signed in for epoch {self._sign_in()}, on the same terms."
        )
        return self._opened_task()

    def _opened_task(self) -> Task | None:
        """Return the next task, waiting for an epoch whose tasks are still being made."""
        deadline = math.inf
        while True:
            try:
                return self.me.next_task()
            except ApiError as error:
                if error.status != CONFLICT or time.monotonic() > deadline:
                    raise
            if deadline == math.inf:
                deadline = time.monotonic() + OPENING_S
                out.print("The epoch's tasks are still being made: waiting for them (Ctrl-C stops).")
            time.sleep(POLL_S)

    def _rank(self, task: Task) -> bool:
        """Show a task and ask until an order of it is recorded or its time is over; False to stop."""
        out.rule(plain(f"epoch {task.epoch} · {task.method}"))
        out.print(Panel(plain(task.prompt), title="prompt", title_align="left"))
        for letter, text in zip("ABCDEF", task.shown, strict=False):
            out.print(Panel(plain(text), title=letter, title_align="left", border_style="cyan"))
        out.print(
            f"[dim]This task is yours until {self._until(task)}, also if you stop (q) and come back.[/]"
        )
        while True:
            skip = f", [i]s[/] to skip ({task.skips_left} left)" if task.skips_left else ""
            said = _ask(f"{_how(task)} ([i]bad[/] if all are bad{skip}, [i]q[/] to stop)")
            if said.lower() == "q":
                return False
            try:
                if said.lower() == "s":
                    if self._skip(task):
                        return True
                    continue
                ranking = self._read(task, said)
                answer = self.me.send(ranking)
            except HapticError as error:
                out.print("[yellow]not sent:[/] " + plain(str(error)))
                if isinstance(error, ApiError) and error.status in OVER:
                    return True
                continue
            self._keep(ranking, answer)
            return True

    def _skip(self, task: Task) -> bool:
        """Ask why, and give the task back; False when the person would rather not."""
        words = ", ".join(f"[i]{k}[/] {v.replace('_', ' ')}" for k, v in REASONS.items())
        reason = REASONS.get(_ask(f"Why? ({words}; anything else goes back)").lower())
        if reason is None:
            return False
        left = self.me.skip(task, reason)
        out.print(f"Skipped; it does not come again. {left} more may be skipped, and judged tasks earn more.")
        return True

    def _read(self, task: Task, said: str) -> Ranking:
        """Return the ranking that a person typed; HapticError says what is wrong with it."""
        count, now = len(task.shown), self.api.get("/info")["now"]
        if said.lower() == "bad":
            return self.me.ranking(task, [1] * count, now=now, flag="all_bad")
        if task.method == "likert":
            marks, ranks = parse_marks(said, count)
            return self.me.ranking(task, ranks, now=now, likert=marks)
        return self.me.ranking(task, parse_order(said, count), now=now)

    def _keep(self, ranking: Ranking, answer: Mapping[str, Any]) -> None:
        """Keep the receipt, and say what was recorded."""
        with self.receipts.open("a", encoding="utf-8") as kept:
            kept.write(json.dumps({"ranking": ranking.to_json(), "receipt": answer}) + "\n")
        self.done += 1
        number = answer["position"]
        out.print(
            f"[green]✓[/] recorded as number {plain(number)}: {ranking.summary} · ranked {self.done} so far"
        )
        if answer["notice"]:
            out.print(f"[yellow]{plain(answer['notice'])}[/]")

    def _until(self, task: Task) -> str:
        """Return the time of day at which a task is taken back: at the end of its lease, or of its epoch."""
        return show_time(min(task.expires_at, self._epoch_ends))


def _how(task: Task) -> str:
    """Return how this task is answered, with an example that fits it."""
    count = len(task.shown)
    return HOW[task.method].format(order=ORDERS[count], marks=" ".join("5274163"[:count]))


def _ask(question: str) -> str:
    """Return what the person types; an input that ends is a wish to stop."""
    try:
        return Prompt.ask(question, console=out).strip()
    except EOFError:
        out.print()  # the line of the prompt has not ended
        return "q"
