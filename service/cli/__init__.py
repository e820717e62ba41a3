"""The command line `haptic`: `people` for wallets that stake and rank, `operators` for those who run the network."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

import typer

from chain.errors import HapticError, VerifyError
from service.cli import exchange, operators, people, roles, status, watch
from service.database import BUSY_ERRORS, trouble
from service.hostile import SafeConsole, visible

app = typer.Typer(
    name="haptic",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="RLHF as a network: stake, rank answers with your signature, and be paid when models get better from it.\n\n"
    "Start with [bold]haptic demo[/] (the whole loop on a devnet of its own) or [bold]haptic devnet[/] (a devnet to try by hand).",
)
people.register(app)
operators.register(app)
roles.register(app)
watch.register(app)
status.register(app)
exchange.register(app)


def main() -> None:
    """Run the command line; an error that a user can mend is one line, not a traceback."""
    # A service manager stops with SIGTERM, and a shell's `&` has its children ignore SIGINT: both end a command
    # in the same orderly way, or a worker would not put its job back.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        app()
    except HapticError as error:
        _fail("verify: FAILED" if isinstance(error, VerifyError) else "error", str(error))
    except BUSY_ERRORS as error:
        _fail("error", trouble(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(title: str, words: str) -> NoReturn:
    """Say what went wrong, and end."""
    SafeConsole(stderr=True, highlight=False).print(f"[bold red]{title}:[/] ", end="")
    # Past rich, which would break its lines; it may hold what a service or a node said.
    print(visible(words), file=sys.stderr)  # noqa: T201
    sys.exit(1)
