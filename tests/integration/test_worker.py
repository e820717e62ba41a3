"""The worker sees a child that dies, tries again, keeps its log, and never lets a job run twice at once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.database import Database, open_database
from service.ledger import queries, work
from service.ledger.tables import JobRow
from service.worker import Worker
from tests.soon import until

WAIT_S = 20.0
_until = partial(until, within_s=WAIT_S)
UNTIL_EOF = "import os, sys; print('{\"pid\": %d}' % os.getpid(), flush=True); sys.stdin.read()"
"""Works until the worker is gone, as the trainer does under --exit-with-parent."""
WORKER = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests with & has them ignore it
from service.database import open_database
from service.worker import Worker
url, logs, code = sys.argv[1:]
Worker(open_database(url), Path(logs), 3, (sys.executable, "-c", code), stale_s=1.0).run_one()
"""


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'haptic.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def queue(db: Database) -> Callable[..., None]:
    def add(*names: str) -> None:
        with db.write() as session:
            queries.add(session, *(JobRow(name=n, arguments=["--seed", "7"]) for n in names))
            session.commit()

    return add


@pytest.fixture
def worker(db: Database, tmp_path: Path) -> Callable[..., Worker]:
    def make(code: str, *more: str, **options: Any) -> Worker:
        attempts = options.pop("max_attempts", 2)
        return Worker(db, tmp_path, attempts, (sys.executable, "-c", code, *more), **options)

    return make


def _jobs(db: Database) -> list[JobRow]:
    with db.read() as session:
        return list(work.jobs(session))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_job_is_done_when_its_child_ends_well(db: Database, queue: Any, worker: Any) -> None:
    queue("retrain/1")
    assert worker("print('hello')").run_one()
    (job,) = _jobs(db)
    assert (job.state, job.attempts, job.error) == ("done", 1, "")
    assert Path(job.log).name == "retrain-1.log"
    assert not worker("").run_one()


def test_the_workers_own_log_says_which_job_runs_and_where_its_progress_is(
    db: Database, queue: Any, worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    queue("retrain/1")
    with caplog.at_level(logging.INFO, "service.worker"):
        worker("print('hello')").run_one()
    begun, done = [r.getMessage() for r in caplog.records]
    assert begun == f"job retrain/1 begins, attempt 1; its progress is in {_jobs(db)[0].log}"
    assert done.startswith("job retrain/1 is done after ")


def test_the_child_gets_the_jobs_arguments_and_is_told_to_end_with_its_parent(
    db: Database, queue: Any, worker: Any
) -> None:
    queue("one")
    worker("import sys; print(sys.argv[1:])").run_one()
    assert "['--seed', '7', '--exit-with-parent']" in Path(_jobs(db)[0].log).read_text()


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("raise SystemExit(3)", "exit status 3"),
        ("1 / 0", "exit status 1"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    ],
)
def test_a_child_that_crashes_is_seen_tried_again_and_given_up(
    db: Database, queue: Any, worker: Any, code: str, cause: str
) -> None:
    queue("one")
    crashing = worker("import sys; print('before'); print('why', file=sys.stderr); " + code)
    assert crashing.run_one()
    (job,) = _jobs(db)
    assert (job.state, job.attempts) == ("queued", 1)
    assert cause in job.error
    assert job.log in job.error
    assert crashing.run_one()
    assert not crashing.run_one()
    (job,) = _jobs(db)
    assert (job.state, job.attempts) == ("failed", 2)
    kept = [line.split(":")[0] for line in Path(job.log).read_text().splitlines()]
    assert [x for x in kept if x.startswith("--- ")] == ["--- attempt 1", "--- attempt 2"]
    assert kept.count("before") == kept.count("why") == 2


def test_a_job_that_works_the_second_time_is_done_and_its_error_is_gone(
    db: Database, queue: Any, worker: Any, tmp_path: Path
) -> None:
    queue("one")
    flaky = worker("import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.exists() or (p.touch(), sys.exit(1))", str(tmp_path / "been"))  # fmt: skip  # noqa: E501
    assert flaky.run_one()
    assert flaky.run_one()
    (job,) = _jobs(db)
    assert (job.state, job.attempts, job.error) == ("done", 2, "")


TALKER = """
import os, sys
print('{"step": 0}')
print('{"pid": %d}' % os.getpid())
print('[2]')
print('\\u2028 odd', flush=True)
sys.stdin.read(1)
"""


def test_progress_is_stored_while_the_child_works_and_other_output_is_only_kept(
    db: Database, queue: Any, worker: Any
) -> None:
    queue("one")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(worker(TALKER, stale_s=0.5).run_one)
        progress = _until(lambda: _jobs(db)[0].progress)
        assert _jobs(db)[0].state == "running"
        os.kill(progress["pid"], signal.SIGKILL)
        assert ended.result(WAIT_S)
    assert _jobs(db)[0].progress == progress


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(c) for c in (task / "children").read_text().split()]
    return found


def test_bytes_that_are_no_text_do_not_stop_the_worker(db: Database, queue: Any, worker: Any) -> None:
    queue("one")
    assert worker("import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n')").run_one()
    assert _jobs(db)[0].state == "done"


def test_when_a_worker_is_killed_its_child_ends_and_another_worker_takes_over(
    db: Database, queue: Any, worker: Any, tmp_path: Path
) -> None:
    queue("one")
    url = f"sqlite:///{tmp_path / 'haptic.db'}"
    first = subprocess.Popen([sys.executable, "-c", WORKER, url, str(tmp_path), UNTIL_EOF])
    try:
        _until(lambda: _jobs(db)[0].progress)
        (child,) = _children(first.pid)
        first.kill()
        first.wait()
        _until(lambda: not _alive(child))
        assert not worker("", stale_s=600.0).run_one(), "who was heard a moment ago is not taken for dead"
        _until(worker("", stale_s=0.5).run_one)
    finally:
        first.kill()
        first.wait()
    (job,) = _jobs(db)
    assert (job.state, job.attempts) == ("done", 2)


def test_two_workers_never_run_the_same_job(db: Database, queue: Any, worker: Any, tmp_path: Path) -> None:
    names = [f"job-{n}" for n in range(8)]
    queue(*names)
    both = [worker("import sys; open(sys.argv[1], 'a').write('x')", str(tmp_path / "ran")) for _ in range(4)]

    def empty(one: Worker) -> int:
        done = 0
        while one.run_one():
            done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(empty, both)) == len(names)
    assert (tmp_path / "ran").read_text() == "x" * len(names)
    assert {(j.state, j.attempts) for j in _jobs(db)} == {("done", 1)}


def test_a_worker_that_lost_its_job_ends_its_child_and_changes_nothing(
    db: Database, queue: Any, worker: Any
) -> None:
    queue("one")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(worker(UNTIL_EOF, stale_s=0.5).run_one)
        progress = _until(lambda: _jobs(db)[0].progress)
        with db.write() as session:
            work.jobs(session)[0].worker = "another"
            session.commit()
        try:
            assert ended.result(5)
        except TimeoutError:
            os.kill(progress["pid"], signal.SIGKILL)
            raise
    (job,) = _jobs(db)
    assert (job.state, job.worker, job.attempts) == ("running", "another", 1)


def test_a_worker_that_is_stopped_puts_its_job_back_untried(db: Database, queue: Any, tmp_path: Path) -> None:
    queue("one")
    url = f"sqlite:///{tmp_path / 'haptic.db'}"
    command = [sys.executable, "-c", WORKER, url, str(tmp_path), UNTIL_EOF]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as stopped:
        try:
            _until(lambda: _jobs(db)[0].progress)
            stopped.send_signal(signal.SIGINT)
            stopped.wait(WAIT_S)
        finally:
            stopped.kill()
    (job,) = _jobs(db)
    assert (job.state, job.attempts, job.error) == ("queued", 0, "")


def test_a_worker_stops_when_it_is_told_to(queue: Any, worker: Any, db: Database) -> None:
    queue("one", "two")
    stop = threading.Event()
    thread = threading.Thread(target=worker("").run_forever, args=(stop, 0.01))
    thread.start()
    _until(lambda: all(j.state == "done" for j in _jobs(db)))
    stop.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()


CLI = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from service.cli import main; main()"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_in_order_by_either_signal_even_started_in_the_background(
    tmp_path: Path, ending: signal.Signals
) -> None:
    environ = dict(os.environ) | {
        "HAPTIC_DATA_DIR": str(tmp_path), "HAPTIC_DATABASE_URL": f"sqlite:///{tmp_path / 'haptic.db'}",
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", CLI, "worker"], env=environ) as waiting:
        try:
            _until((tmp_path / "logs").exists)
            time.sleep(0.2)
            waiting.send_signal(ending)
            assert waiting.wait(WAIT_S) == 130
        finally:
            waiting.kill()
