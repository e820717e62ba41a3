"""A job on a real Ray head ends as by a child, is never run twice, and is lost with neither its worker nor the head."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.cluster import Cluster, _entrypoint
from service.database import Database, open_database
from service.errors import ClusterError, ConfigError
from service.ledger import queries, work
from service.ledger.tables import JobRow
from service.worker import HELD, Worker
from tests.ray_head import Head, running
from tests.soon import until
from trainer.registry import Registry

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
_until = partial(until, within_s=WAIT_S)
TINY = {
    "model": {"width": 16, "layers": 1, "heads": 2, "vocabulary": 320, "answer_tokens": 12},
    "pretrain": {"documents": 60, "steps": 4, "batch": 2, "block": 16},
    "sft": {"demonstrations": 40, "steps": 4, "batch": 2},
    "evaluate": {"prompts": 8},
}
WAITING = """
import json, os, sys, time
from pathlib import Path
ran, go = map(Path, sys.argv[1:])
with ran.open("a") as file:
    file.write("x")
print(json.dumps({"pid": os.getpid()}))
while not go.exists():
    time.sleep(0.05)
print(json.dumps({"step": 2}))
"""
"""Writes down that it ran, and works until it may end."""
WORKER = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from service.cluster import Cluster
from service.database import open_database
from service.worker import Worker
url, logs, address, *command = sys.argv[1:]
cluster = Cluster(address, os.environ["TOKEN"], poll_s=0.1)
Worker(open_database(url), Path(logs), 3, tuple(command), stale_s=1.0, cluster=cluster).run_one()
"""
LOGS = re.compile(".*/logs").fullmatch
INFO = re.compile("/api/jobs/haptic-[^/]*").fullmatch
CUT = b"HTTP/1.0 200 so\r\ncontent-length: 99\r\n\r\n{"
NOT_HAD = "--- what it printed cannot be had"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    yield from running()


@pytest.fixture
def cluster(head: Head) -> Cluster:
    return Cluster(head.address, head.token, poll_s=0.1)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'haptic.db'}")
    with opened.write() as session:
        queries.add(session, JobRow(name="one", arguments=[]))
        session.commit()
    yield opened
    opened.engine.dispose()


@pytest.fixture
def worker(db: Database, tmp_path: Path, cluster: Cluster) -> Callable[..., Worker]:
    def make(*command: str, **options: Any) -> Worker:
        given = {"stale_s": 1.0, "cluster": cluster} | options
        return Worker(db, tmp_path, given.pop("max_attempts", 3), (sys.executable, *command), **given)

    return make


def _job(db: Database) -> JobRow:
    with db.read() as session:
        return next(iter(work.jobs(session)))


class Waiting:
    """A command that works until it may end, and a worker process that has it run on the cluster."""

    def __init__(self, db: Database, folder: Path, head: Head) -> None:
        self._db, self.ran, self._go = db, folder / "ran", folder / "go"
        self.command = ("-c", WAITING, str(self.ran), str(self._go))
        url = f"sqlite:///{folder / 'haptic.db'}"
        self.worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(folder), head.address, sys.executable, *self.command],
            env=os.environ | {"TOKEN": head.token}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.pid: int = _until(lambda: _job(db).progress)["pid"]

    def go(self) -> None:
        self._go.touch()

    def end(self) -> None:
        self._go.touch()
        self.worker.kill()
        self.worker.wait()


@pytest.fixture
def waiting(db: Database, tmp_path: Path, head: Head) -> Iterator[Waiting]:
    found = Waiting(db, tmp_path, head)
    yield found
    found.end()


@contextmanager
def _proxy(upstream: str, send: Callable[[str, bytes, bytes], Iterable[bytes]]) -> Iterator[str]:
    """Put a proxy in front of the head, and yield its URL.

    It sends what `send` gives for a path and the head's own headers and body; then it hangs up.
    """

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            bearer = {k: v for k, v in self.headers.items() if k.lower() == "authorization"}
            answer = httpx.request(self.command, upstream + self.path, content=body, headers=bearer)
            begun = f"HTTP/1.0 {answer.status_code} so\r\ncontent-length: {len(answer.content)}\r\n\r\n"
            with suppress(OSError):
                for part in send(self.path, begun.encode(), answer.content):
                    self.wfile.write(part)

        do_GET = do_POST = _pass_on  # noqa: N815  # so they are called

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _dripping(upstream: str, path: str, of: str) -> AbstractContextManager[str]:
    """Return a proxy that sends what is asked for under a path byte by byte."""

    def drip(asked: str, begun: bytes, body: bytes) -> Iterator[bytes]:
        slow = asked.endswith(path)
        at_once = b"" if slow and of == "headers" else begun if slow else begun + body
        yield at_once
        for byte in (begun + body)[len(at_once) :]:
            yield bytes([byte])
            time.sleep(0.02)

    return _proxy(upstream, drip)


def _answering(
    upstream: str, asked_for: Callable[[str], bool], answer: bytes, turns: range
) -> AbstractContextManager[str]:
    """Return a proxy that answers by itself what is asked for under some paths, at these turns of theirs."""
    turn = itertools.count()

    def send(path: str, begun: bytes, body: bytes) -> list[bytes]:
        return [answer] if asked_for(path) and next(turn) in turns else [begun, body]

    return _proxy(upstream, send)


def _json(text: str, status: str = "200 so") -> bytes:
    return f"HTTP/1.0 {status}\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()


def test_nothing_of_the_head_can_be_reached_from_outside(head: Head) -> None:
    listening = {
        c.laddr.ip
        for process in head.processes()
        for c in process.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_bootstrap_by_the_cluster_ends_in_the_weights_of_one_by_a_child(
    db: Database, worker: Any, tmp_path: Path
) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    same = [
        "-m",
        "trainer",
        "bootstrap",
        "--name",
        "sft-0",
        "--config",
        str(tmp_path / "tiny.json"),
        "--registry",
    ]
    assert worker(*same, str(tmp_path / "by cluster's")).run_one()
    job = _job(db)
    assert (job.state, job.error) == ("done", "")
    with db.write() as session:
        queries.add(session, JobRow(name="two", arguments=[]))
        session.commit()
    assert worker(*same, str(tmp_path / "child"), cluster=None).run_one()
    by_cluster, by_child = (Registry(tmp_path / name).get("sft-0") for name in ("by cluster's", "child"))
    assert by_cluster.weights_sha256 == by_child.weights_sha256
    assert job.progress == {"stage": "done", "entry": "sft-0", "weights_sha256": by_child.weights_sha256}
    kept = Path(job.log).read_text()
    for line in (tmp_path / "two.log").read_text().splitlines()[1:]:
        assert json.loads(line).get("stage") in kept


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_job_whose_worker_was_killed_is_followed_by_the_next_and_ran_once(
    db: Database, worker: Any, waiting: Waiting, *, meanwhile: bool
) -> None:
    waiting.worker.kill()
    waiting.worker.wait()
    if meanwhile:
        waiting.go()
        _until(lambda: not psutil.pid_exists(waiting.pid))
    assert not worker(*waiting.command, cluster=None, stale_s=0.0).run_one(), "it would run twice by a child"
    with ThreadPoolExecutor(1) as pool:
        followed = pool.submit(_until, worker(*waiting.command, max_attempts=1).run_one)
        if not meanwhile:
            _until(lambda: _job(db).attempts == 2)
            waiting.go()
        _until(lambda: _job(db).state == "done")
        assert followed.result(WAIT_S)
    job = _job(db)
    assert (job.error, job.progress) == ("", {"step": 2})
    assert waiting.ran.read_text() == "x"


def test_a_worker_that_is_stopped_ends_the_job_on_the_cluster_and_puts_it_back_untried(
    db: Database, worker: Any, waiting: Waiting
) -> None:
    waiting.worker.send_signal(signal.SIGINT)
    waiting.worker.wait(WAIT_S)
    assert not psutil.pid_exists(waiting.pid)
    job = _job(db)
    assert (job.state, job.attempts, job.error, job.worker) == ("queued", 0, "", "")
    waiting.go()
    assert worker(*waiting.command).run_one()
    assert (_job(db).state, waiting.ran.read_text()) == ("done", "xx")


def test_a_worker_that_lost_its_job_lets_it_go_on_for_the_other(
    db: Database, worker: Any, waiting: Waiting
) -> None:
    with db.write() as session:
        row = work.jobs(session)[0]
        row.worker = f"{work.submission(row.worker)} another"
        session.commit()
    assert waiting.worker.wait(WAIT_S) == 0
    assert psutil.pid_exists(waiting.pid)
    job = _job(db)
    assert (job.state, job.attempts, job.worker[-7:]) == ("running", 1, "another")
    waiting.go()
    _until(worker(*waiting.command).run_one)
    assert (_job(db).state, waiting.ran.read_text()) == ("done", "x")


def test_what_is_stopped_on_the_cluster_has_failed_and_is_tried_anew(
    db: Database, worker: Any, waiting: Waiting, cluster: Cluster
) -> None:
    cluster.client().stop_job(work.submission(_job(db).worker))
    waiting.worker.wait(WAIT_S)
    assert _job(db).error.startswith("attempt 1 was stopped on the cluster; its log is ")
    waiting.go()
    assert worker(*waiting.command).run_one()
    assert (_job(db).state, waiting.ran.read_text()) == ("done", "xx")


def test_what_its_own_worker_told_to_stop_was_not_tried_though_it_stopped_later(
    db: Database, worker: Any, waiting: Waiting, cluster: Cluster
) -> None:
    """As what waits for room on the cluster does: it stops when it has room, long after its worker is gone."""
    waiting.worker.kill()
    waiting.worker.wait()
    with db.write() as session:
        row = work.jobs(session)[0]
        row.state, row.attempts, row.error = "queued", 0, HELD
        session.commit()
    client, name = cluster.client(), work.submission(_job(db).worker)
    client.stop_job(name)
    _until(lambda: client.get_job_status(name).is_terminal())
    last = worker(*waiting.command, max_attempts=1)
    assert last.run_one()
    job = _job(db)
    assert (job.state, job.attempts, job.error, job.worker) == ("queued", 0, "", "")
    waiting.go()
    assert last.run_one()
    assert (_job(db).state, waiting.ran.read_text()) == ("done", "xx")


def test_a_job_that_crashes_is_seen_tried_again_and_given_up(db: Database, worker: Any) -> None:
    crashing = worker("-c", "import os; print('before'); os.kill(os.getpid(), 9)", max_attempts=2)
    for attempt, state in ((1, "queued"), (2, "failed")):
        assert crashing.run_one()
        job = _job(db)
        assert (job.state, job.attempts) == (state, attempt)
        assert f"attempt {attempt} was killed by signal 9" in job.error
    assert Path(job.log).read_text().splitlines().count("before") == 2


@pytest.mark.parametrize("by", [{}, {"cluster": None}], ids=["cluster", "child"])
def test_the_job_gets_no_variable_of_the_service_and_no_token(
    db: Database, worker: Any, monkeypatch: pytest.MonkeyPatch, head: Head, by: dict[str, Any]
) -> None:
    monkeypatch.setenv("HAPTIC_PASSWORD", "hunter2")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/of/the/worker's/token")
    assert worker("-c", "import os; print(dict(os.environ))", **by).run_one()
    kept = Path(_job(db).log).read_text()
    assert "'PATH': " in kept
    assert [
        each for each in ("'HAPTIC_", head.token, "hunter2", "'RAY_AUTH_TOKEN", "'s/token") if each in kept
    ] == []


def test_a_node_without_the_workers_files_refuses_and_one_with_them_runs_the_very_command(
    tmp_path: Path,
) -> None:
    said = tmp_path / "it's a log"
    command = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "a b", "$HOME", "'", "*"]
    line = _entrypoint(command, said, "haptic-0")
    for text in (None, "--- another's"):
        if text:
            said.write_text(text)
        refused = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
        assert refused.returncode == 78
        assert "HAPTIC_DATA_DIR must be shared" in refused.stdout
    said.write_text("--- attempt 1 on the cluster as haptic-0: …")
    ran = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert (ran.returncode, ran.stdout) == (0, "['a b', '$HOME', \"'\", '*']\n")


@pytest.mark.parametrize("token", ["0" * 64, ""])
def test_a_token_that_is_not_the_heads_is_refused_and_nothing_is_lost(
    db: Database, worker: Any, head: Head, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    wrong = Cluster(head.address, token)
    with pytest.raises(ClusterError, match=r"^HAPTIC_RAY_TOKEN: [^\n]*$"):
        wrong.check()
    stop = threading.Event()
    trying = threading.Thread(target=worker("-c", "", cluster=wrong).run_forever, args=(stop,))
    with caplog.at_level(logging.DEBUG):
        trying.start()
        _until(lambda: "the job waits, and is tried again" in caplog.text)
        stop.set()
        trying.join(WAIT_S)
    job = _job(db)
    assert (job.state, job.attempts, job.error) == ("queued", 0, HELD)
    assert not token or token not in caplog.text + repr(wrong)
    assert worker("-c", "").run_one()
    assert _job(db).state == "done"


def test_a_head_that_does_not_answer_is_named_by_its_setting(head: Head) -> None:
    Cluster(head.address, head.token).check()
    with pytest.raises(ClusterError, match=r"^HAPTIC_RAY_ADDRESS: [^\n]*$"):
        Cluster("http://127.0.0.1:2", head.token).check()


@pytest.mark.parametrize("of", ["headers", "body"])
def test_a_head_that_drips_is_cut_off_though_each_byte_comes_in_time(
    head: Head, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    monkeypatch.setattr("service.head.ANSWER_S", 0.5)
    with (
        _dripping(head.address, "/api/version", of) as address,
        pytest.raises(ClusterError, match=r"^HAPTIC_RAY_ADDRESS: .*TooSlowError"),
    ):
        Cluster(address, head.token).check()


@pytest.mark.parametrize("fault", ["it drips", "it is too long"])
def test_a_job_is_followed_to_its_end_though_its_log_cannot_be_had(
    db: Database, worker: Any, head: Head, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    drips = fault == "it drips"
    monkeypatch.setattr(
        "service.head.ANSWER_S" if drips else "service.head.MAX_ANSWER_BYTES", 3 if drips else 20_000
    )
    with _dripping(head.address, "/logs" if drips else "nothing", "body") as address:
        followed = worker(
            "-c", "print('a' * 30_000)", cluster=Cluster(address, head.token, gone_s=5.0, poll_s=0.1)
        )
        assert followed.run_one()
    job = _job(db)
    assert (job.state, job.error) == ("done", "")
    assert "--- what it printed cannot be had; on the cluster: ray job logs" in Path(job.log).read_text()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (CUT, NOT_HAD),
        (_json("<html>"), NOT_HAD),
        (_json("{}", "401 no"), NOT_HAD),
        (_json("{}", "404 no"), NOT_HAD),
        (_json("null"), NOT_HAD),
        (_json('{"logs": 5}'), NOT_HAD),
        (_json('{"logs": "half a \\ud800"}'), "half a ?"),
    ],
    ids=["cut off", "HTML", "401", "404", "null", "a number", "half a character"],
)
def test_what_is_wrong_with_the_log_alone_neither_ends_nor_loses_nor_forgets_a_job(
    db: Database, worker: Any, head: Head, answer: bytes, said: str
) -> None:
    """Not even where a head that is away has no time at all to come back."""
    with _answering(head.address, LOGS, answer, range(10**9)) as address:
        impatient = Cluster(address, head.token, gone_s=0.0, poll_s=0.1)
        assert worker("-c", "import time; print(1, flush=True); time.sleep(1)", cluster=impatient).run_one()
    job = _job(db)
    assert (job.state, job.error, job.attempts) == ("done", "", 1)
    assert said in Path(job.log).read_text()


def test_the_log_of_a_job_that_ended_is_asked_for_until_it_can_be_had(
    db: Database, worker: Any, head: Head
) -> None:
    with _answering(head.address, LOGS, CUT, range(20)) as address:
        assert worker("-c", "print('all of it')", cluster=Cluster(address, head.token, poll_s=0.1)).run_one()
    assert Path(_job(db).log).read_text().endswith("\nall of it\n")
    assert _job(db).state == "done"


@pytest.mark.parametrize(
    "text", ["null", "[]", "5", "{}", '{"ray_version": null}', "[" * 10**5], ids=lambda text: text[:20]
)
def test_an_answer_of_another_form_is_a_head_that_does_not_answer_as_it_should(
    db: Database, worker: Any, head: Head, text: str
) -> None:
    with (
        _answering(head.address, "/api/version".__eq__, _json(text), range(1)) as address,
        pytest.raises(ClusterError, match=r"^HAPTIC_RAY_ADDRESS: [^\n]*$"),
    ):
        Cluster(address, head.token).check()
    # The first turn is that of whoever asks whether it has to be submitted.
    with _answering(head.address, INFO, _json(text), range(1, 3)) as address:
        assert worker("-c", "", cluster=Cluster(address, head.token, poll_s=0.1)).run_one()
    assert (_job(db).state, _job(db).error, _job(db).attempts) == ("done", "", 1)


def test_a_head_behind_a_login_page_is_not_open(head: Head) -> None:
    def send(path: str, begun: bytes, body: bytes) -> list[bytes]:
        if path == "/api/jobs/":
            return [b"HTTP/1.0 302 so\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n"]
        return [_json("log in")] if path == "/login" else [begun, body]

    with _proxy(head.address, send) as address:
        Cluster(address, head.token).check()


def test_a_head_on_loopback_is_asked_through_no_proxy(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:2")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:2")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "10.0.0.0/8")
    cluster.check()


@pytest.mark.parametrize("own", [False, True])
def test_the_command_takes_the_token_of_its_own_setting_or_the_one_that_ray_finds(
    head: Head, tmp_path: Path, *, own: bool
) -> None:
    (tmp_path / "token").write_text(head.token)
    by_ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    environ = os.environ | ({"HAPTIC_RAY_TOKEN": head.token} if own else by_ray)
    done = subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", "worker", "--once"],
        env=environ | {"HAPTIC_DATA_DIR": str(tmp_path), "HAPTIC_RAY_ADDRESS": head.address + "/"},
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the worker waits for jobs" in done.stderr
    assert head.token not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_a_variable_by_which_ray_would_go_elsewhere_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=f"^{name} is set"):
        cluster.check()


@pytest.mark.parametrize(("address", "status"), [("", 0), ("http://127.0.0.1:2", 1)])
def test_without_ray_a_worker_trains_by_children_and_says_what_a_cluster_needs(
    tmp_path: Path, address: str, status: int
) -> None:
    script = "import sys; sys.modules['ray'] = None; from service.cli import main; main()"
    environ = os.environ | {"HAPTIC_DATA_DIR": str(tmp_path), "HAPTIC_RAY_ADDRESS": address}
    done = subprocess.run(
        [sys.executable, "-c", script, "worker", "--once"],
        env=environ, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    wanted = (
        "error: HAPTIC_RAY_ADDRESS needs Ray, which is an extra: pip install -e '.[ray]' in the repository\n"
    )
    assert done.stderr == wanted if address else "the worker waits for jobs" in done.stderr


@pytest.mark.parametrize(("attempts", "state"), [(2, "done"), (3, "failed")])
def test_what_the_cluster_forgot_while_nobody_followed_is_made_anew_as_often_as_a_job_is_tried(
    db: Database, worker: Any, attempts: int, state: str
) -> None:
    with db.write() as session:
        row = work.jobs(session)[0]
        row.state, row.worker, row.attempts = "running", f"haptic-{state}-forgotten dead", attempts
        session.commit()
    assert worker("-c", "print('it ran')").run_one()
    job = _job(db)
    assert (job.state, job.attempts) == (state, attempts + 1)
    assert ("it ran\n" in Path(job.log).read_text()) == (state == "done")
    assert ("attempt 4 is unknown to the cluster" in job.error) == (state == "failed")


def test_when_the_head_dies_the_attempt_fails_and_the_next_head_gets_the_job_anew(
    db: Database, worker: Any, head: Head, tmp_path: Path
) -> None:
    """The last test: what it leaves is a head without tokens, which no worker begins with."""
    code = "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); f = p.exists(); p.touch(); print('{\"on\": 1}'); time.sleep(0 if f else 600)"  # noqa: E501
    impatient = Cluster(head.address, head.token, gone_s=1.0, poll_s=0.1)
    trying = worker("-c", code, str(tmp_path / "been"), cluster=impatient)
    with ThreadPoolExecutor(1) as pool:
        followed = pool.submit(trying.run_one)
        _until(lambda: _job(db).progress)
        head.end()
        assert followed.result(WAIT_S)
    job = _job(db)
    assert job.error.startswith("attempt 1 was lost: HAPTIC_RAY_ADDRESS: the head")
    assert (job.state, bool(work.submission(job.worker))) == ("queued", True)
    head.begin("disabled")
    with pytest.raises(ConfigError, match="takes jobs from anybody"):
        impatient.check()
    assert trying.run_one()
    assert (_job(db).state, _job(db).attempts) == ("done", 2)
