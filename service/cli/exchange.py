"""The commands `export` and `import`: labels and rankings for those who train elsewhere, and feedback from elsewhere."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from chain.served import bundles
from service import exports, imports, judged, rowfile
from service.cli import shared
from service.cli.shared import DryRun
from service.errors import BadRequestError
from service.exports import Kind, Row
from service.hostile import SafeConsole, plain
from service.imports import Tally, Target
from service.judged import FeedbackFileError, Format, Judged
from service.outfile import check_absent, write_whole
from service.rowfile import Form
from service.terminal import out

Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there")]
SHOWN_BAD = 5
"""Bad lines that are shown one by one; the rest are counted."""
SKIPPED = 141
"""Exit status when whoever reads the output has had enough (128 and SIGPIPE), as of any other program."""


def export(
    kind: Annotated[Kind, typer.Option(help="preference: chosen and rejected, as TRL wants them; unpaired: single responses, good or bad (KTO); rankings: all that was signed")] = "preference",
    bundle: Annotated[str, typer.Option(envvar="HAPTIC_SERVICE", help="URL of a service, a URL with {epoch}, a folder of bundles, or one bundle file")] = shared.SERVICE,
    epochs: Annotated[str, typer.Option(help="Such as 2, 0..3 or 2..; default: all that are published")] = "",
    form: Annotated[Form, typer.Option("--as", help="Form of the file")] = "jsonl",
    file: Annotated[Path | None, typer.Option("--out", help="File to write; default: standard output, for jsonl")] = None,
    confidence: Annotated[float, typer.Option("--min-confidence", min=0.5, max=1.0, help="Leave out labels that are less sure: .5 is a coin")] = 0.5,
    force: Force = False, dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many rows there are and stop")] = False,
) -> None:  # fmt: skip
    """Write what people ranked as training data, from the published bundles; anybody can.

    It checks the bundles' form only: run `haptic verify` on the same bundles to know that they are right.
    """
    if file is None and form == "parquet" and not dry_run:
        raise BadRequestError("Parquet is no text: name a file with --out")
    if file is not None and not dry_run:
        check_absent(file, force=force)
    first, last = _range(epochs)
    told = SafeConsole(stderr=True, highlight=False)
    columns = TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=told, transient=True, disable=not told.is_terminal) as bars:
        counted = _Counted(bars)
        rows = counted.rows(kind, bundle, first, last, confidence)
        if dry_run:
            for _ in rows:
                pass
        elif file is None:
            _to_stdout(rowfile.jsonl(rows))
        else:
            write_whole(file, rowfile.parts(form, kind, rows), force=force)
    if dry_run:
        for epoch, count in counted.by_epoch.items():
            out.print(f"epoch {epoch}: {count:,} rows")
    where = "Dry run: nothing was written." if dry_run else f"written to {file or 'standard output'}"
    told.print(
        f"{sum(counted.by_epoch.values()):,} rows; epochs: {len(counted.by_epoch)}. {plain(where)}",
        soft_wrap=True,
    )


class _Counted:
    """Rows of epoch after epoch, counted as they go by."""

    EVERY = 500
    """Rows between two looks at the terminal."""

    def __init__(self, bars: Progress) -> None:
        self.by_epoch: dict[int, int] = {}
        self._bars, self._bar = bars, bars.add_task("looking for bundles")

    def rows(
        self, kind: Kind, where: str, first: int | None, last: int | None, confidence: float
    ) -> Iterator[Row]:
        """Yield the rows of a kind of the bundles at a place."""
        for epoch, served in bundles(where, first, last):
            self.by_epoch[epoch] = 0
            with served as bundle:
                for row in exports.rows(kind, bundle, confidence):
                    if not self.by_epoch[epoch] % self.EVERY:
                        self._tell(epoch)
                    self.by_epoch[epoch] += 1
                    yield row
            self._tell(epoch)

    def _tell(self, epoch: int) -> None:
        self._bars.update(self._bar, description=f"epoch {epoch}: {self.by_epoch[epoch]:,} rows")


def _range(text: str) -> tuple[int | None, int | None]:
    """Return first and last of epochs such as 2, 0..3 or 2..; None where an end is left open."""
    if not text:
        return None, None
    found = re.fullmatch(r"(\d{1,9})(\.\.(\d{1,9})?)?", text, re.ASCII)
    if found is None:
        raise BadRequestError(f"epochs {text!r}: expected such as 2, 0..3 or 2..")
    first = int(found[1])
    last = first if found[2] is None else int(found[3]) if found[3] else None
    if last is not None and last < first:
        raise BadRequestError(f"epochs {text!r}: the last one is before the first")
    return first, last


def _to_stdout(parts: Iterable[bytes]) -> None:
    try:
        sys.stdout.buffer.writelines(parts)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(SKIPPED) from None


def import_(
    file: Annotated[Path, typer.Argument(help="JSON lines of feedback that people gave elsewhere")],
    to: Annotated[Target, typer.Option(help="preferences: a data file for the trainer; tasks: for HAPTIC_TASKS_FILE; gold: for HAPTIC_GOLD_FILE")],
    file_out: Annotated[Path | None, typer.Option("--out", help="File to write")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="rankings: responses with judgements, rankings or pairs; dialogues: chosen and rejected (HH-RLHF); pairs: prompt, chosen, rejected. Default: what each line's fields say")] = None,
    min_people: Annotated[int, typer.Option(min=1, max=1000, help="Of gold: so many people at least, and all of one mind")] = 3,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out lines that cannot be used, and count them")] = False,
    force: Force = False, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Make training data, tasks or gold of feedback that was given elsewhere.

    No wallet signed it, so it never earns a score, and `haptic verify` knows nothing of it.
    """
    if file_out is None and not dry_run:
        raise BadRequestError("name a file to write with --out, or try it with --dry-run")
    if file_out is not None and not dry_run:
        check_absent(file_out, force=force)
    bad: list[FeedbackFileError] = []
    found = judged.read(file, form, bad.append) if skip_bad else judged.read(file, form)
    tally, digest = Tally(), sha256()
    lines = _hashed(_lines(found, to, min_people, tally), digest.update, f"{file} gives no {to}")
    try:
        if dry_run or file_out is None:
            for _ in lines:
                pass
        else:
            write_whole(file_out, lines, force=force)
    finally:
        if tally.records:
            _report(tally, bad, to)
    if dry_run or file_out is None:
        out.print("Dry run: nothing was written.")
        return
    out.print(f"[green]✓[/] {plain(str(file_out))}, sha256 {digest.hexdigest()}", soft_wrap=True)
    out.print("Nobody's wallet signed this: it is paid for in no epoch.")


def _lines(found: Iterable[Judged], to: Target, min_people: int, tally: Tally) -> Iterator[bytes]:
    rows: Iterable[object]
    if to == "preferences":
        rows = map(asdict, imports.preferences(found, tally))
    else:
        rows = imports.tasks(found, tally) if to == "tasks" else imports.gold(found, tally, min_people)
    return (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _hashed(parts: Iterable[bytes], update: Callable[[bytes], object], when_none: str) -> Iterator[bytes]:
    """Yield all parts; a FeedbackFileError where there are none, so that no empty file is made."""
    empty = True
    for part in parts:
        empty = False
        update(part)
        yield part
    if empty:
        raise FeedbackFileError(when_none)


def _report(tally: Tally, bad: list[FeedbackFileError], to: Target) -> None:
    """Say what became of the file's lines."""
    for error in bad[:SHOWN_BAD]:
        out.print(f"[yellow]skipped:[/] {plain(str(error))}", soft_wrap=True)
    if len(bad) > SHOWN_BAD:
        out.print(f"[yellow]skipped:[/] {len(bad) - SHOWN_BAD} more lines")
    out.print(f"{tally.records + len(bad):,} lines, {len(bad):,} of them bad; {tally.made:,} {to} made")
    if tally.repeated:
        out.print(
            f"{tally.repeated:,} lines are of a prompt and responses that an earlier line has, and count with it"
        )
    for reason, count in tally.left_out.most_common():
        out.print(f"left out {count:,}: {reason}")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    panel = "For whoever trains models"
    app.command(rich_help_panel=panel)(export)
    app.command("import", rich_help_panel=panel)(import_)
