"""The commands `status` and `index`: where the network stands, and a backfill that one can watch."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chain import ledger
from chain.deployment import Deployment, check_deployment
from chain.keys import keyfile_address
from chain.rpc import Rpc
from service.answers import legible
from service.api import Api
from service.cli import plan, shared
from service.cli.shared import DryRun, ServiceUrl, Yes
from service.context import Pulse
from service.database import Database, open_database
from service.epochs import Place
from service.hostile import plain
from service.settings import Settings, load
from service.status import Status, status_of
from service.terminal import out, show_wait, show_when


def status(
    service: ServiceUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: one JSON object, amounts in smallest units")] = False,
) -> None:  # fmt: skip
    """Show where the network stands: blocks, epoch, what is done next, the models, stake, revenue, and what fails.

    With --service, or HAPTIC_SERVICE, it is what that service says; without either (`--service ""`), database and node
    are read as HAPTIC_* name them, so that it works while the service is down.
    """
    if not service:
        _tell(*_read(load()), as_json=as_json)
        return
    with Api(service) as api, legible(service):
        found, info = Status(**api.get("/status")), api.get("/info")
        _tell(found, (shared.coin_of(info, "token"), shared.coin_of(info, "payment")), as_json=as_json)


def _tell(found: Status, coins: tuple[shared.Coin, shared.Coin], *, as_json: bool) -> None:
    if as_json:
        out.print(found.model_dump_json(), soft_wrap=True, markup=False)
    else:
        _show(found, *coins)


def _read(settings: Settings) -> tuple[Status, tuple[shared.Coin, shared.Coin]]:
    deployment = settings.load_deployment()
    db = open_database(settings.database)
    with Rpc(settings.rpc_url) as rpc, db.read() as session:
        check_deployment(rpc, deployment)
        coins = shared.read_coin(rpc, deployment.token), shared.read_coin(rpc, deployment.payment_token)
        keyfile = settings.poster_keyfile
        poster = keyfile_address(keyfile) if keyfile.exists() else None
        place = Place(deployment, settings.master, settings.data_dir / "bundles")
        return status_of(rpc, session, place, poster, Pulse(), time.time(), settings), coins


def _show(s: Status, token: shared.Coin, payment: shared.Coin) -> None:
    if s.lag_s is None:
        indexed = "nothing indexed yet"
    else:
        indexed = f"indexed {s.indexed}" + (
            f", {show_wait(s.lag_s)} behind" if s.indexed < s.finalized else ""
        )
    funded, committed, claimed = (payment.show(int(x)) for x in (s.funded, s.committed, s.claimed))
    gas = shared.show_native(int(s.poster_balance or 0))
    rows = {
        "Chain": f"{s.chain_id} at {s.node}",
        "Blocks": f"head {s.head}, finalized {s.finalized}, {indexed}",
        "Epoch": f"{s.epoch}, ends {show_when(s.epoch_ends, s.now)}, {s.judgements} rankings",
        "Next": s.next_step,
        "Models": s.models,
        "Stake": f"{token.show(int(s.staked))} in all",
        "Revenue": f"{funded} funded, {committed} committed, {claimed} claimed",
        "Bond": f"{shared.show_native(int(s.bond))}; a post needs {shared.show_native(int(s.bond_required))}",
        "Poster": "no key here" if s.poster is None else f"{s.poster} has {gas} for gas",
    }
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", plain(value))
    if s.stalled:
        table.add_row("[bold red]Stalled[/]", plain(s.stalled))
    for name, said in s.errors.items():
        table.add_row(f"[bold red]{plain(name)}[/]", plain(f"FAILED: {said}"))
    out.print(table)


def index(
    anew: Annotated[bool, typer.Option("--anew", help="Forget all that is indexed first, and read it again from the deployment's first block")] = False,
    dry_run: DryRun = False, yes: Yes = False,
) -> None:  # fmt: skip
    """Copy the contracts' events into the database, up to the last finalized block; the service does it too.

    It can be stopped and run again at any time. Settings come from HAPTIC_* variables. With --anew nothing is believed
    that was read before: for when nodes that you trust say that an event is missing.
    """
    settings = load()
    deployment = settings.load_deployment()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = open_database(settings.database)
    with Rpc(settings.rpc_url) as rpc:
        check_deployment(rpc, deployment)
        with db.read() as session:
            known = ledger.checkpoint(session, deployment)
            held = ledger.count_events(session)
        first = deployment.from_block if anew or known is None else known.number + 1
        last = rpc.block("finalized").number
        rows = {
            "Reads": f"{max(last - first + 1, 0):,} blocks up to {last:,}, from {rpc.name}",
            "Forgets": f"{held:,} events" if anew else "nothing",
        }
        if anew:
            rows["Until it is done"] = "the service shows too little stake and revenue, and closes no epoch"
        if (anew or dry_run) and not plan.agree("Index", rows, None, yes=yes, dry_run=dry_run):
            return
        if anew:
            with db.write() as session:
                ledger.take_back(session, anew=True)
                session.commit()
        _index(rpc, db, deployment)


def _index(rpc: Rpc, db: Database, deployment: Deployment) -> None:
    columns = TextColumn("block"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("index", total=None)
        found = shared.index_beside(
            rpc, db, deployment, lambda done, of: bar.update(task, completed=done, total=of)
        )
    out.print(
        f"[green]✓[/] {found.events:,} new events; indexed to block {found.indexed_to:,}, the last that is final "
        f"(head {found.head:,})"
    )


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (status, index):
        app.command(rich_help_panel="For operators")(command)
