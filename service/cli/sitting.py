"""A person at the terminal who ranks: shown one blind task after another, each order read, signed, sent, corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from rich.panel import Panel
from rich.prompt import Prompt
from rich.table import Table

from chain.deployment import Deployment
from chain.errors import HapticError
from chain.messages import Ranking, checksum
from chain.rpc import Rpc
from service.answers import ApiError, BrokenPromiseError, Recorded, Task, UnknownError, UnsentError
from service.api import Api
from service.cli.entry import Entry
from service.cli.promises import PromiseFile
from service.cli.typed import how, parse_judgement, said_of
from service.hostile import plain
from service.terminal import out, show_time

REASONS = {"u": "unclear", "o": "offensive", "l": "not_my_language", "t": "too_long", "x": "other"}
"""Why a task may be skipped, by the letter that is typed."""
CONFLICT = 409
OVER = frozenset({404, CONFLICT, 410})
"""Answers to a ranking that no other order mends: its epoch or its lease has ended, or it was ranked elsewhere."""
LISTED = 20
"""Rankings that are listed to choose from; older ones are there by the numbers that were told."""
COMMENT = "[i]#[/] begins a comment"


class Sitting:
    """One person who agrees, signs in, and ranks until there is no task, no wish or no input any more."""

    def __init__(
        self, api: Api, account: LocalAccount, receipts: Path, chain: tuple[Rpc, Deployment] | None = None
    ) -> None:
        self.api, self.entry, self.receipts = api, Entry(api, account, chain), PromiseFile(receipts)
        self.me, self.done = self.entry.me, 0
        self._unanswered: dict[tuple[str, int, str], Ranking] = {}
        """What was signed and not answered, by task, revision and what was typed: it is sent again as it was signed."""

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
        if not self.entry.agreed():
            out.print("Not signed in: nothing was signed.")
            return False
        self.entry.sign_in()
        out.print(
            f"The service's promises are kept in {self.receipts}: with them a dropped ranking, or a task that you were "
            f"handed and the log leaves out, can be proven. Each is checked as it comes: {checksum(self.me.receipt_signer)} "
            "signs them."
        )
        return True

    def _next_task(self) -> Task | None:
        """Return the next task, the promise of it kept; None when there is no task."""
        try:
            task = self.entry.signed_in(self.entry.opened_task)
        except BrokenPromiseError as error:
            self.receipts.keep_refused(error)
            raise
        if task is not None:
            self.receipts.keep({"handout": task.promise})
        return task

    def _rank(self, task: Task) -> bool:
        """Show a task and ask until an order of it is recorded or its time is over; False to stop."""
        self._show(task)
        while True:
            skip = f", [i]s[/] to skip ({task.skips_left} left)" if task.skips_left else ""
            said = _ask(
                f"{how(task)} ([i]bad[/] if all are bad, {COMMENT}{skip}, [i]c[/] to correct one you sent, [i]q[/] to stop)"
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
            f"You said {said_of(chosen)}. What you say now counts in its place, until the epoch ends; that you said "
            "something else before stays in the log."
        )
        stays = ", or the one you gave stays" if chosen.comment else ""
        asked = f"{how(chosen.task)} ([i]bad[/] if all are bad, {COMMENT}{stays}, [i]q[/] to change nothing)"
        while (said := _ask(asked)).lower() not in {"", "q"}:
            if self._send(chosen.task, said, chosen):
                break
        return True

    def _chosen(self) -> Recorded | None:
        """List what was ranked in the running epoch and ask for a number; any that was told counts, if it is older too."""
        found = self.entry.signed_in(lambda: list(self.me.recorded(self.entry.epoch)))
        latest: dict[str, Recorded] = {}
        for one in found:
            latest.setdefault(one.task.task, one)
        if not latest:
            out.print(
                f"Nothing that you ranked is recorded in epoch {self.entry.epoch}, which is the one that runs."
            )
            return None
        table = Table("number", "said", "prompt")
        for one in list(latest.values())[:LISTED]:
            table.add_row(str(one.position), said_of(one), plain(" ".join(one.task.prompt.split())[:60]))
        out.print(table)
        if len(latest) > LISTED:
            out.print(f"{len(latest) - LISTED} older ones are there by the numbers that you were told.")
        while (said := _ask("Which number do you correct? ([i]q[/] for none)")).lower() not in {"", "q"}:
            for one in found:
                if str(one.position) == said:
                    return latest[one.task.task]
            out.print(f"[yellow]{plain(said)} is no number of yours in epoch {self.entry.epoch}[/]")
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
        revision = 0 if before is None else before.ranking.revision + 1
        typed = task.task, revision, said
        try:
            ranking = self._unanswered.pop(typed, None) or self._read(task, order, comment, revision)
        except HapticError as error:
            return _not_sent(error)
        try:
            answer = self.me.send(ranking, comment)
        except BrokenPromiseError as error:
            self._keep_refused(error, {"ranking": ranking.to_json(), "comment": comment})
            return True
        except (UnsentError, UnknownError) as error:
            self._unanswered[typed] = ranking
            what = "not sent" if isinstance(error, UnsentError) else "perhaps recorded"
            out.print(
                f"[yellow]{what}:[/] {plain(str(error))}. Type the same again: what you signed is sent as it is, and "
                "recorded once at most."
            )
            return False
        except HapticError as error:
            return self._stands_already(error, ranking) or _not_sent(error)
        self.receipts.keep({"ranking": ranking.to_json(), "comment": comment, "receipt": answer})
        if before is None:
            self.done += 1
            far = f"ranked {self.done} so far"
        else:
            far = f"in place of number {before.position}"
        out.print(f"[green]✓[/] recorded as number {plain(answer['position'])}: {ranking.summary} · {far}")
        if notice := answer.get("notice"):
            out.print(f"[yellow]{plain(notice)}[/]")
        return True

    def _stands_already(self, error: HapticError, ranking: Ranking) -> bool:
        """Say where a ranking was refused because another is recorded in its place; return whether so.

        The receipts of what is there are kept: the answer that brought one may have been lost.
        """
        if not isinstance(error, ApiError) or error.status != CONFLICT:
            return False
        try:
            found = [one for one in self.me.recorded(ranking.epoch) if one.ranking.task == ranking.task]
        except ApiError:  # what was refused is told in the service's words then
            return False
        if not found or found[0].ranking.revision < ranking.revision:
            return False
        out.print(
            f"[yellow]an earlier one is recorded[/] as number {found[0].position}: {said_of(found[0])}. What you typed "
            "now was not taken; [i]c[/] corrects it."
        )
        for one in found:
            self._keep_receipt(one)
        return True

    def _keep_receipt(self, one: Recorded) -> None:
        """Keep the first receipt of a ranking as it is read back, unless it came when the ranking was sent."""
        beside = {"ranking": one.ranking.to_json(), "comment": one.comment}
        try:
            self.me.check_receipt(one.receipt, one.ranking)
        except BrokenPromiseError as error:
            self._keep_refused(error, beside)
        else:
            self.receipts.keep({**beside, "receipt": one.receipt}, unless=one.receipt["signature"])

    def _keep_refused(self, error: BrokenPromiseError, beside: dict[str, Any]) -> None:
        self.receipts.keep_refused(error, **beside)
        out.print(f"[bold red]sent, and not promised:[/] {plain(str(error))}. It is kept in {self.receipts}.")

    def _read(self, task: Task, order: str, comment: str, revision: int) -> Ranking:
        """Return the ranking that a person typed; HapticError says what is wrong with it."""
        flag, marks, ranks = parse_judgement(order, task)
        now = self.api.info().now
        return self.me.ranking(
            task, ranks, now=now, likert=marks, flag=flag, comment=comment, revision=revision
        )

    def _until(self, task: Task) -> str:
        """Return the time of day at which a task is taken back: at the end of its lease, or of its epoch."""
        return show_time(min(task.expires_at, self.entry.ends))


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
