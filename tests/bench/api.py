"""Rankings accepted per second, end to end, against their floor: `python -m tests.bench.api [--small]`.

One process serves and one sends, on loopback. What is sent are signed rankings, each by its wallet's session key, of
tasks that were handed out before; what comes back is a receipt, after signature, lease, method, order and revision
were checked and the row is committed. The floor, in the same run and with the same durability, recovers the same
signatures with libsecp256k1 and commits one insert of the same row for each, in a loop.

throughput   as fast as the service answers to 64 connections
latency      sent at half that rate, whatever comes back (no coordinated omission)
kill         kill -9 in the middle of 50,000; every receipt that was given must be in the ledger afterwards
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import secrets
import signal
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from coincurve import PrivateKey
from eth_account import Account
from sqlmodel import select

from chain.assignment import display_order, method_of
from chain.bundle import SignedSession
from chain.contracts import Contract
from chain.devnet import Devnet, mine
from chain.feedback import Task, summary_of
from chain.indexer import index
from chain.messages import Domain, Ranking, Session, parse_address, recover, sign, sign_with
from chain.rpc import Rpc
from chain.rules import Rules
from chain.transactions import transact
from chain.types import Address
from chain.wallets import Asked
from service import auth
from service.arena import Plan, methods_for
from service.database import Database, open_database
from service.devnet import COIN, Site, prepare, process, wait_until_served
from service.epochs import Place, open_epoch
from service.ledger import queries
from service.ledger.tables import LeaseRow, RankingRow
from tests.postgres import Postgres
from tests.worlds import NO_COMMENT

EPOCH_S: Final = 10_000_000
WALLETS: Final = 500
CONNECTIONS: Final = 64
RULES: Final = Rules(lease_s=EPOCH_S)
DURABLE: Final = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass(frozen=True, slots=True)
class Signed:
    """A ranking that is ready to be sent."""

    ranking: Ranking
    signature: str
    signer: Address

    def body(self) -> bytes:
        return msgspec.json.encode({"ranking": self.ranking.to_json(), "signature": self.signature})


@dataclass(frozen=True, slots=True)
class Stand:
    """A service on a devnet, with an open epoch whose tasks are all in somebody's hands."""

    site: Site
    db: Database
    domain: Domain
    rankings: Sequence[Signed]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def stand(database: str, count: int) -> Iterator[Stand]:
    """Yield a service's data and `count` rankings for it; nothing is served yet."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haptic-bench-")))
        rpc = stack.enter_context(Rpc(stack.enter_context(Devnet(port=0)).url))
        genesis, port = rpc.block("latest").timestamp - 1, _port()
        url = database or f"sqlite:///{folder / 'haptic.db'}"
        rules = folder / "rules.json"
        rules.write_text(json.dumps(RULES.to_json()))
        environ = {
            "HAPTIC_PORT": str(port),
            "HAPTIC_DATABASE_URL": url,
            "HAPTIC_ARENA": "false",
            "HAPTIC_RULES_FILE": str(rules),
        }
        site = prepare(
            rpc, folder, genesis=genesis, epoch_length=EPOCH_S, window=600, cooldown=600, extra=environ,
        )  # fmt: skip
        place = Place(site.deployment, site.environ["HAPTIC_SECRET"].encode(), folder / "bundles")
        db = open_database(url)
        stack.callback(db.engine.dispose)
        now = rpc.block("latest").timestamp
        per_wallet = -(-count // WALLETS)
        made = [
            Task.of(
                f"prompt {n}", [f"{n} {i}: {'text ' * 40}" for i in range(2 + 2 * (n % 2))], _methods(n)
            ).sealed(place.seed(0))
            for n in range(2 * per_wallet)
        ]
        with db.write() as session:
            open_epoch(session, place, 0, [Plan(t, ("m",) * len(t.responses)) for t in made], RULES, now)
            row = queries.epoch_row(session, 0)
            assert row is not None
            row.committed_at = now
            rankings = _hand_out(session, site, place, made, count, now)
            session.commit()
        _stake(site, {r.ranking.wallet for r in rankings})
        mine(rpc, 3)
        index(rpc, db.write, site.deployment)
        yield Stand(site, db, place.domain, rankings, port)


def _stake(site: Site, wallets: Iterable[Address]) -> None:
    vault = site.deployment.stake_vault()
    token = Contract("HapticToken", site.deployment.token)
    transact(site.rpc, site.owner, token, "approve", vault.address, 10**24)
    sender = parse_address(site.owner.address)
    nonce = site.rpc.nonce(sender)
    for place, wallet in enumerate(sorted(wallets)):
        data = "0x" + vault.encode("stakeFor", wallet, COIN).hex()
        asked = {
            "from": sender,
            "to": vault.address,
            "data": data,
            "gas": "0x40000",
            "nonce": hex(nonce + place),
        }
        site.rpc.request("eth_sendTransaction", asked)


def _methods(number: int) -> tuple[str, ...]:
    return methods_for(2 + 2 * (number % 2), RULES.methods)


def _hand_out(
    session: Any, site: Site, place: Place, tasks: Sequence[Task], count: int, now: int
) -> list[Signed]:
    """Log wallets in, give each tasks that its method fits, and return their signed rankings, well mixed."""
    seed, master = place.seed(0), site.environ["HAPTIC_SECRET"].encode()
    made: list[Signed] = []
    for _ in range(WALLETS):
        wallet, key = Account.from_key(secrets.token_bytes(32)), PrivateKey()
        address, signer = parse_address(wallet.address), parse_address(Account.from_key(key.secret).address)
        granted = Session(address, signer, 0, 1_000_000, now + EPOCH_S // 2, auth.terms_hash())
        signed = SignedSession(granted, sign(granted, place.domain, wallet))
        auth.log_in(session, signed, place.domain, 0, now, master, Asked(site.rpc))
        method = method_of(seed, address, RULES.methods)
        held = [t for t in tasks if method in t.methods][: -(-count // WALLETS)]
        session.connection().execute(
            LeaseRow.__table__.insert(),
            [
                {
                    "epoch": 0,
                    "wallet": address,
                    "task": t.hash(),
                    "expires_at": now + EPOCH_S,
                    "done": False,
                    "live": True,
                    "skipped": False,
                    "number": 0,
                }
                for t in held
            ],
        )
        made += [_signed(place, seed, address, signer, key, t, method, now) for t in held]
    random.Random(1).shuffle(made)
    return made[:count]


def _signed(
    place: Place,
    seed: bytes,
    wallet: Address,
    signer: Address,
    key: PrivateKey,
    task: Task,
    method: str,
    now: int,
) -> Signed:
    shown = display_order(seed, wallet, task.hash(), task.hashes)
    k = len(shown)
    ranks = (1, *[2] * (k - 2), 3) if method == "best_worst" else tuple(range(1, k + 1))
    likert = tuple(7 - i for i in range(k)) if method == "likert" else ()
    ranking = Ranking(
        wallet, 0, task.hash(), method, summary_of(ranks), shown, ranks, likert, "", NO_COMMENT, 0, now
    )
    return Signed(ranking, sign_with(ranking, place.domain, key), signer)


@contextmanager
def served(found: Stand) -> Iterator[int]:
    """Serve in a process of its own; yields its number."""
    with process("serve", ["serve", "--no-clock"], found.site) as child:
        wait_until_served(found.url, child, found.site.folder / "serve.log")
        yield child.pid


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- sending -----------------------------------------------------------------------------------------------------


class Sender(asyncio.Protocol):
    """A kept-alive connection that sends a body at a time; a client library would cost more than the service."""

    HEAD = "POST /v1/rankings HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"

    def __init__(self) -> None:
        self._data, self._answer = bytearray(), None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the service is gone"))

    async def post(self, body: bytes) -> tuple[int, bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            raise ConnectionError("the service is gone")
        self._transport.write(self.HEAD.format(len(body)).encode() + body)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[:end]).lower()
        size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(self._data) >= end + 4 + size and self._answer is not None:
            body = bytes(self._data[end + 4 : end + 4 + size])
            self._data.clear()
            self._answer.set_result((int(head[9:12]), body))


async def flood(
    port: int, bodies: Sequence[bytes], given: dict[int, bytes], connections: int = CONNECTIONS
) -> None:
    """Send all bodies as fast as they are answered; `given` gets each receipt by the body's place."""
    waiting = iter([i for i in range(len(bodies)) if i not in given])

    async def one() -> None:
        _, sender = await asyncio.get_running_loop().create_connection(Sender, "127.0.0.1", port)
        for i in waiting:
            status, answer = await sender.post(bodies[i])
            if status not in {200, 201}:
                raise SystemExit(f"the service refused a ranking: {status} {answer.decode()}")
            given[i] = answer
        sender._transport.close()

    await asyncio.gather(*(one() for _ in range(connections)))


async def paced(port: int, bodies: Sequence[bytes], rate: float) -> list[float]:
    """Send so many a second and return the seconds that each took from when it was due, ascending."""
    free: asyncio.Queue[Sender] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for _ in range(4 * CONNECTIONS):
        free.put_nowait((await loop.create_connection(Sender, "127.0.0.1", port))[1])
    took: list[float] = []

    async def one(body: bytes, due: float) -> None:
        sender = await free.get()
        status, answer = await sender.post(body)
        took.append(time.perf_counter() - due)
        free.put_nowait(sender)
        if status != 201:
            raise SystemExit(f"the service refused a ranking: {status} {answer.decode()}")

    gc.collect()
    gc.freeze()  # or what its search for garbage takes now and then would count as the service's
    began = time.perf_counter()
    tasks = []
    for i, body in enumerate(bodies):
        due = began + i / rate
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        tasks.append(asyncio.create_task(one(body, due)))
    await asyncio.gather(*tasks)
    return sorted(took)


# -- the floor ---------------------------------------------------------------------------------------------------

COLUMNS: Final = (
    "epoch int, position int, digest text, wallet text, signer text, task text, revision int, message text, "
    "signature text, comment text, received_at bigint, receipt text, primary key (epoch, position)"
)


def floor(found: Stand, database: str, rankings: Sequence[Signed]) -> tuple[float, float]:
    """Return wall and CPU seconds to recover each signature and commit one insert, in a loop of one process."""
    begun = time.perf_counter(), time.process_time()
    rows = [(i, r) for i, r in enumerate(rankings)]
    if database:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(f"create table floor ({COLUMNS})")  # type: ignore[call-overload]
            statement = "insert into floor values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            begun = time.perf_counter(), time.process_time()
            for i, r in rows:
                connection.execute(statement, _row(found.domain, i, r))  # type: ignore[call-overload]
    else:
        connection = sqlite3.connect(found.site.folder / "floor.db", isolation_level=None)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        connection.execute(f"create table floor ({COLUMNS})")
        statement = "insert into floor values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        begun = time.perf_counter(), time.process_time()
        for i, r in rows:
            connection.execute(statement, _row(found.domain, i, r))
        connection.close()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def _row(domain: Domain, position: int, signed: Signed) -> tuple[Any, ...]:
    r = signed.ranking
    digest = r.digest(domain)
    signer = recover(digest, signed.signature)
    message = msgspec.json.encode(r.to_json()).decode()
    return (0, position, digest, r.wallet, signer, r.task, 0, message, signed.signature, "", r.signed_at, "")


# -- what is measured --------------------------------------------------------------------------------------------


def throughput(name: str, database: str, count: int) -> None:
    with stand(database, 2 * count) as found:
        first, second = found.rankings[:count], found.rankings[count:]
        wall, cpu = floor(found, database, first)
        with served(found) as pid:
            bodies, given = [r.body() for r in first], {}
            asyncio.run(flood(found.port, bodies[: count // 10], given))
            warm, used, began = len(given), cpu_s(pid), time.perf_counter()
            asyncio.run(flood(found.port, bodies, given))
            took, used = time.perf_counter() - began, cpu_s(pid) - used
            ours, bare = (count - warm) / took, count / wall
            print(
                f"{name:<11} accepted  {ours:8.0f}/s   floor {bare:8.0f}/s   {100 * ours / bare:5.0f} %   by the wall"
            )
            ours, bare = (count - warm) / used, count / cpu
            print(
                f"{'':<11}           {ours:8.0f}/s   floor {bare:8.0f}/s   {100 * ours / bare:5.0f} %   by its CPU"
            )
            rate = (count - warm) / took / 2
            times = asyncio.run(paced(found.port, [r.body() for r in second], rate))
            shown = ", ".join(f"{p} % {1000 * times[int(len(times) * p / 100) - 1]:.0f} ms" for p in (50, 99))
            print(
                f"{'':<11} answered  at {rate:.0f}/s: {shown}, the slowest {1000 * times[-1]:.0f} ms",
                flush=True,
            )


def kill(name: str, database: str, count: int) -> None:
    """Kill the service while it takes rankings in, start it again, send the rest, and look for every receipt."""
    with stand(database, count) as found:
        bodies = [r.body() for r in found.rankings]
        given: dict[int, bytes] = {}
        kills = 0
        for part in (count // 3, 2 * count // 3):
            with served(found) as pid:
                try:
                    asyncio.run(_until(found.port, bodies, given, part, pid))
                except (ConnectionError, OSError):
                    kills += 1
        before = dict(given)
        with served(found):
            asyncio.run(flood(found.port, bodies, given))
        with found.db.read() as session:
            found_rows = session.exec(select(RankingRow.digest, RankingRow.position, RankingRow.received_at))
            rows = {digest: (position, received_at) for digest, position, received_at in found_rows}
        receipts = [msgspec.json.decode(x) for x in given.values()]
        lost = sum(1 for r in receipts if rows.get(r["digest"]) != (r["position"], r["received_at"]))
        twice = len(receipts) - len({r["digest"] for r in receipts})
        print(
            f"{name:<11} killed    {kills} times by kill -9, {len(before):,} receipts before, {len(receipts):,} after; "
            f"in the ledger {len(rows):,}, receipts without their row {lost}, given twice {twice}",
            flush=True,
        )
        if kills != 2 or lost or twice or len(rows) != count:
            raise SystemExit("a ranking was lost")


async def _until(port: int, bodies: Sequence[bytes], given: dict[int, bytes], part: int, pid: int) -> None:
    """Send until so many receipts are there, and kill the service while the others are under way."""

    async def watch() -> None:
        while len(given) < part:  # noqa: ASYNC110  # what fills it waits for sockets, not for us
            await asyncio.sleep(0.002)
        os.kill(pid, signal.SIGKILL)

    watching = asyncio.create_task(watch())
    try:
        await flood(port, bodies, given)
    finally:
        watching.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a look: a tenth of everything")
    small = parser.parse_args().small
    count, many = (2_000, 5_000) if small else (10_000, 50_000)
    with Postgres() as server:
        for name in DURABLE:
            server.run(f"ALTER SYSTEM SET {name} = on")
        server.run("SELECT pg_reload_conf()")
        for name, database in (("SQLite", str), ("PostgreSQL", server.new)):
            throughput(name, database(), count)
            kill(name, database(), many)


if __name__ == "__main__":
    main()
