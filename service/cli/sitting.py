"""A person at the terminal who ranks: shown one blind task after another, each order read, signed, sent, corrected."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from eth_account.signers.local import LocalAccount
from rich.panel import Panel
from rich.prompt import Confirm, Prompt
from rich.table import Table

from chain.errors import HapticError
from chain.messages import Ranking, checksum
from chain.receipts import REFUSED
from service.client import (
    ORDERS,
    Api,
    ApiError,
    BrokenPromiseError,
    Contributor,
    Recorded,
    Task,
    UnknownError,
    parse_marks,
    parse_order,
)
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
UNAUTHORIZED, FORBIDDEN, CONFLICT = 401, 403, 409
OVER = frozenset({404, CONFLICT, 410})
"""Answers to a ranking that no other order mends: its epoch or its lease has ended, or it was ranked elsewhere."""
OPENING_S, FINAL_S, POLL_S = 120.0, 1800.0, 1.0
"""How long tasks that are still being made are waited for, and stake that is not final yet; how often it is asked."""
LISTED = 20
"""Rankings that are listed to choose from; older ones are there by the numbers that were told."""
COMMENT = "[i]#[/] begins a comment"
T = TypeVar("T")


class Sitting:
    """One person who agrees, signs in, and ranks until there is no task, no wish or no input any more."""

    def __init__(self, api: Api, account: LocalAccount, receipts: Path) -> None:
        self.api, self.receipts = api, receipts
        self.me = Contributor(api, account, api.domain())
        self.terms = str(api.get("/terms")["terms"])
        self.done, self._epoch, self._epoch_ends = 0, 0, 0

    def run(self, count: int) -> None:
        """Ask until `count` tasks are ranked, none is left, or the person stops; what was sent is recorded by then."""
        if not self._entered():
            return
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

    def correct(self) -> None:
        """Let the person correct what they ranked in the running epoch, until they wish to correct no more."""
        if self._entered():
            while self._correct_one():
                pass

    def _entered(self) -> bool:
        """Sign in with the person's consent, and say what is kept; False where there is none."""
        if not self._agreed():
            out.print("Not signed in: nothing was signed.")
            return False
        self._sign_in()
        out.print(
            f"The service's promises are kept in {self.receipts}: with them a dropped ranking, or a task that you were "
            f"handed and the log leaves out, can be proven. Each is checked as it comes: {checksum(self.me.receipt_signer)} "
            "signs them."
        )
        return True

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
        self._epoch, self._epoch_ends = epoch, info["genesis"] + (epoch + 1) * info["epoch_length"]
        return epoch

    def _next_task(self) -> Task | None:
        """Return the next task, the promise of it kept; None when there is no task."""
        try:
            task = self._signed_in(self._opened_task)
        except BrokenPromiseError as error:
            self._keep({REFUSED: error.answer, "why": str(error)})
            raise
        if task is not None:
            self._keep({"handout": task.promise})
        return task

    def _signed_in(self, ask: Callable[[], T]) -> T:
        """Return what the service answers, signing in once more where the session has ended."""
        try:
            return ask()
        except ApiError as error:
            if error.status != UNAUTHORIZED:
                raise
        out.print(
            f"Your session had ended: you are signed in for epoch {self._sign_in()}, on the same terms."
        )
        return ask()

    def _opened_task(self) -> Task | None:
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
            except (KeyError, TypeError, ValueError):  # who is not told what to wait for does not wait
                return 0.0, ""
            # Where too little is staked, no block makes it enough.
            if staked >= least > final:
                return FINAL_S, "Your stake is not final yet, and tasks go by final stake: waiting for that"
        return 0.0, ""

    def _rank(self, task: Task) -> bool:
        """Show a task and ask until an order of it is recorded or its time is over; False to stop."""
        self._show(task)
        while True:
            skip = f", [i]s[/] to skip ({task.skips_left} left)" if task.skips_left else ""
            said = _ask(
                f"{_how(task)} ([i]bad[/] if all are bad, {COMMENT}{skip}, [i]c[/] to correct one you sent, [i]q[/] to stop)"
            )
            match said.lower():
                case "q":
                    return False
                case "s" if self._skip(task):
                    return True
                case "s":
                    continue
                case "c":
                    self._correct_one()
                    self._show(task)
                case _ if self._send(task, said):
                    return True

    def _show(self, task: Task) -> None:
        out.rule(plain(f"epoch {task.epoch} · {task.method}"))
        out.print(Panel(plain(task.prompt), title="prompt", title_align="left"))
        for letter, text in zip("ABCDEF", task.shown, strict=False):
            out.print(Panel(plain(text), title=letter, title_align="left", border_style="cyan"))
        if task.expires_at:
            out.print(
                f"[dim]This task is yours until {self._until(task)}, also if you stop (q) and come back.[/]"
            )

    def _correct_one(self) -> bool:
        """Let the person choose a ranking and send it anew; False where they choose none, or there is none."""
        chosen = self._chosen()
        if chosen is None:
            return False
        self._show(chosen.task)
        out.print(
            f"You said {_said(chosen)}. What you say now counts in its place, until the epoch ends; that you said "
            "something else before stays in the log."
        )
        stays = ", or the one you gave stays" if chosen.comment else ""
        how = f"{_how(chosen.task)} ([i]bad[/] if all are bad, {COMMENT}{stays}, [i]q[/] to change nothing)"
        while (said := _ask(how)).lower() not in {"", "q"}:
            if self._send(chosen.task, said, chosen):
                break
        return True

    def _chosen(self) -> Recorded | None:
        """List what was ranked in the running epoch and ask for a number; any that was told counts, if it is older too."""
        found = self._signed_in(lambda: list(self.me.recorded(self._epoch)))
        latest: dict[str, Recorded] = {}
        for one in found:
            latest.setdefault(one.task.task, one)
        if not latest:
            out.print(
                f"Nothing that you ranked is recorded in epoch {self._epoch}, which is the one that runs."
            )
            return None
        table = Table("number", "said", "prompt")
        for one in list(latest.values())[:LISTED]:
            table.add_row(str(one.position), _said(one), plain(" ".join(one.task.prompt.split())[:60]))
        out.print(table)
        if len(latest) > LISTED:
            out.print(f"{len(latest) - LISTED} older ones are there by the numbers that you were told.")
        while (said := _ask("Which number do you correct? ([i]q[/] for none)")).lower() not in {"", "q"}:
            for one in found:
                if str(one.position) == said:
                    return latest[one.task.task]
            out.print(f"[yellow]{plain(said)} is no number of yours in epoch {self._epoch}[/]")
        return None

    def _skip(self, task: Task) -> bool:
        """Ask why, and give the task back; False where it is still to be judged."""
        words = ", ".join(f"[i]{k}[/] {v.replace('_', ' ')}" for k, v in REASONS.items())
        reason = REASONS.get(_ask(f"Why? ({words}; anything else goes back)").lower())
        if reason is None:
            return False
        try:
            left = self.me.skip(task, reason)
        except HapticError as error:
            return _not_sent(error)
        out.print(f"Skipped; it does not come again. {left} more may be skipped, and judged tasks earn more.")
        return True

    def _send(self, task: Task, said: str, before: Recorded | None = None) -> bool:
        """Sign and send what a person typed, in place of what they said before; False where typing anew may mend it."""
        order, marked, comment = (part.strip() for part in said.partition("#"))
        if before is not None and not marked:
            comment = before.comment
        try:
            ranking = self._read(task, order, comment, 0 if before is None else before.ranking.revision + 1)
            answer = self.me.send(ranking, comment)
        except BrokenPromiseError as error:
            self._keep(
                {"ranking": ranking.to_json(), "comment": comment, REFUSED: error.answer, "why": str(error)}
            )
            out.print(
                f"[bold red]sent, and not promised:[/] {plain(str(error))}. It is kept in {self.receipts}."
            )
            return True
        except UnknownError as error:
            out.print(
                f"[yellow]perhaps recorded:[/] {plain(str(error))}. Type it again: a ranking is recorded once at most."
            )
            return False
        except HapticError as error:
            if self._stands_already(error, task, before):
                return True
            return _not_sent(error)
        self._keep({"ranking": ranking.to_json(), "comment": comment, "receipt": answer})
        if before is None:
            self.done += 1
            far = f"ranked {self.done} so far"
        else:
            far = f"in place of number {before.position}"
        out.print(f"[green]✓[/] recorded as number {plain(answer['position'])}: {ranking.summary} · {far}")
        if notice := answer.get("notice"):
            out.print(f"[yellow]{plain(notice)}[/]")
        return True

    def _stands_already(self, error: HapticError, task: Task, before: Recorded | None) -> bool:
        """Say where a first ranking of this task was refused because an earlier one is recorded; return whether so."""
        if before is not None or not isinstance(error, ApiError) or error.status != CONFLICT:
            return False
        try:
            found = next((one for one in self.me.recorded(task.epoch) if one.task.task == task.task), None)
        except ApiError:  # what was refused is told in the service's words then
            return False
        if found is None:
            return False
        out.print(
            f"[yellow]an earlier one is recorded[/] as number {found.position}: {_said(found)}. What you typed now was not "
            "taken; [i]c[/] corrects it."
        )
        return True

    def _read(self, task: Task, order: str, comment: str, revision: int) -> Ranking:
        """Return the ranking that a person typed; HapticError says what is wrong with it."""
        count, flag = len(task.shown), "all_bad" if order.lower() == "bad" else ""
        marks: tuple[int, ...] = ()
        if flag:
            ranks: tuple[int, ...] = (1,) * count
        elif task.method == "likert":
            marks, ranks = parse_marks(order, count)
        else:
            ranks = parse_order(order, count)
        now = self.api.get("/info")["now"]
        return self.me.ranking(
            task, ranks, now=now, likert=marks, flag=flag, comment=comment, revision=revision
        )

    def _keep(self, promise: Mapping[str, Any]) -> None:
        """Keep a promise of the service's in a line of the file, once: a task that one comes back to is promised again."""
        line = json.dumps(promise).encode() + b"\n"
        with self.receipts.open("ab+") as kept:
            kept.seek(0)
            there = kept.read()
            if b"\n" + line in b"\n" + there:
                return
            # A line that was torn, by a crash or a full disk, must not take this one with it.
            torn = bool(there) and not there.endswith(b"\n")
            kept.write(b"\n" * torn + line)
            kept.flush()
            os.fsync(kept.fileno())

    def _until(self, task: Task) -> str:
        """Return the time of day at which a task is taken back: at the end of its lease, or of its epoch."""
        return show_time(min(task.expires_at, self._epoch_ends))


def _how(task: Task) -> str:
    """Return how this task is answered, with an example that fits it."""
    count = len(task.shown)
    return HOW[task.method].format(order=ORDERS[count], marks=" ".join("5274163"[:count]))


def _said(one: Recorded) -> str:
    """Return what a person said, as it is typed, with the comment."""
    said, comment = one.ranking, plain(" ".join(one.comment.split()))
    order = "bad" if said.flag == "all_bad" else said.flag or " ".join(map(str, said.likert)) or said.summary
    return plain(order) + (f" # {comment}" if comment else "")


def _not_sent(error: HapticError) -> bool:
    """Say why nothing was sent; return whether nothing that is typed mends it."""
    out.print("[yellow]not sent:[/] " + plain(str(error)))
    return isinstance(error, ApiError) and error.status in OVER


def _ask(question: str) -> str:
    """Return what the person types; an input that ends is a wish to stop."""
    try:
        return Prompt.ask(question, console=out).strip()
    except EOFError:
        out.print()  # the line of the prompt has not ended
        return "q"
