"""Training as jobs on a Ray cluster (`pip install -e '.[ray]'`): submitted, followed, stopped, and found again.

A submission goes on when its worker dies. Its name stands in the job's row, so that whoever takes the job over follows
it instead of starting it twice; it stays there until the cluster has said that the submission ended.
"""

from __future__ import annotations

import io
import logging
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service import head
from service.child import cause
from service.errors import ClusterError, ConfigError
from service.ledger.tables import JobRow
from service.ledger.work import submission
from service.settings import Settings

log = logging.getLogger(__name__)
STOP_S = 15.0
"""What a submission has to end in when it is told to: Ray kills what is left of it after 3 s."""
NOT_SHARED = 78
"""Exit status where the node does not see the worker's files (EX_CONFIG)."""
STOPPED = "was stopped on the cluster"
FORGOTTEN = "is unknown to the cluster, whose head was started anew"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster: where its head answers, and what one job needs of it."""

    address: str
    """HTTP(S) URL of the head's dashboard, which takes jobs."""
    token: str = field(default="", repr=False)
    """Empty: Ray looks for one itself (RAY_AUTH_MODE, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH)."""
    cpus: float = 1.0
    gpus: float = 0.0
    gone_s: float = 300.0
    """How long the head may be away in the middle of a job before the attempt has failed."""
    poll_s: float = 1.0

    def check(self) -> None:
        """Refuse to begin with a cluster that cannot be used, or that anybody may use.

        Raises:
            ConfigError: Ray is not installed, its own settings contradict, or the head takes jobs without a token.
            ClusterError: the head does not answer, or not to this token.
        """
        self.client()
        if head.is_open(self.address):
            raise ConfigError(
                "HAPTIC_RAY_ADDRESS: the cluster's head takes jobs from anybody, without a token; start it with "
                "RAY_AUTH_MODE=token (service/README.md says how)"
            )

    def client(self) -> Any:
        """Return Ray's client of its jobs, connected."""
        return head.client(self.address, self.token)

    def start(self, job: JobRow, command: Sequence[str], *, anew: bool) -> Submission:
        """Follow the submission that the job's row names, or make it where the cluster does not know it.

        Args:
            job: as it was claimed; its log has a line with the submission's name by now.
            command: the same as a child's, by paths that every node sees.
            anew: whether it may be made; otherwise one that is unknown has failed.
        """
        name, client = submission(job.worker), self.client()
        found = Submission(client, name, self.gone_s, self.poll_s)
        with head.asking():
            try:
                client.get_job_info(name)
                log.info("job %s: %s is on the cluster, and is followed", job.name, name)
            except LookupError:
                if not anew:
                    found.forget()
                    return found
                client.submit_job(
                    entrypoint=_entrypoint(command, Path(job.log).resolve(), name), submission_id=name,
                    entrypoint_num_cpus=self.cpus, entrypoint_num_gpus=self.gpus,
                    metadata={"haptic_job": job.name, "haptic_attempt": str(job.attempts)},
                )  # fmt: skip
                log.info("job %s: submitted to the cluster as %s", job.name, name)
        return found


class Submission:
    """One job on the cluster, as a `service.child.Run`."""

    def __init__(self, client: Any, name: str, gone_s: float, poll_s: float) -> None:
        self._client, self._name = client, name
        self._gone_s, self._poll_s = gone_s, poll_s
        self._lost = threading.Event()
        self._ended = False
        self._outcome: str | None = None

    def forget(self) -> None:
        """Note that the cluster does not know it."""
        self._ended, self._outcome = True, FORGOTTEN

    def lines(self) -> Iterator[str]:
        """Yield all that it has printed from its beginning, also where another worker began to follow it."""
        seen, heard, due = 0, time.monotonic(), 0.0
        while not (self._lost.is_set() or self._ended):
            text: str | None = ""
            try:
                with head.asking():
                    info = self._client.get_job_info(self._name)
                    over = info.status.is_terminal()
            except LookupError:
                self.forget()
                return
            except ClusterError as error:
                if time.monotonic() - heard > self._gone_s:
                    self._outcome = f"was lost: {error} (tried for {self._gone_s:.0f} s)"
                    return
                self._lost.wait(self._poll_s)
                continue
            heard = time.monotonic()
            if over:
                text = self._all()
            elif heard >= due:
                text = head.printed(self._client, self._name)
                # All of it is sent each time: the longer that takes, the more seldom it is asked for.
                due = time.monotonic() + 10 * (time.monotonic() - heard)
            fresh = (text or "")[seen:]
            fresh = fresh if over else fresh[: fresh.rfind("\n") + 1]
            seen += len(fresh)
            yield from io.StringIO(fresh)
            if over:
                self._ended, self._outcome = True, _outcome(info)
                if text is None:
                    yield f"--- what it printed cannot be had; on the cluster: ray job logs {self._name}\n"
                if info.driver_exit_code is None and info.message:
                    yield f"--- the cluster says: {info.message}\n"
            self._lost.wait(self._poll_s if not over else 0)

    def _all(self) -> str | None:
        """Return all that it printed, once it has ended; None where that cannot be had for so long as a head's return."""
        began = time.monotonic()
        while True:
            asked = time.monotonic()
            text = head.printed(self._client, self._name)
            now = time.monotonic()
            if text is not None or self._lost.is_set() or now - began > self._gone_s:
                return text
            self._lost.wait(max(self._poll_s, now - asked))

    def outcome(self) -> str | None:
        """Return what the cluster said; None where it was let go."""
        return self._outcome

    def lose(self) -> None:
        """Let it go on: the other worker follows this very submission."""
        self._lost.set()

    def stop(self) -> bool:
        """Stop it on the cluster, unless it was let go, and wait a while for that."""
        if self._ended or self._lost.is_set():
            return self._ended
        deadline = time.monotonic() + STOP_S
        try:
            with head.asking():
                self._client.stop_job(self._name)
                while not self._ended and time.monotonic() < deadline:
                    self._ended = self._client.get_job_info(self._name).status.is_terminal()
                    self._lost.wait(0 if self._ended else 0.2)
        except LookupError:
            self._ended = True
        except ClusterError as error:
            log.error("%s: %s", self._name, error)  # noqa: TRY400  # its words say all
        if not self._ended:
            log.error("%s may go on: on the cluster, ray job stop %s ends it", self._name, self._name)
        return self._ended


def from_settings(settings: Settings) -> Cluster | None:
    """Return the cluster that the settings name, if they do."""
    if not settings.ray_address:
        return None
    return Cluster(
        settings.ray_address.rstrip("/"),
        settings.ray_token.get_secret_value(),
        settings.ray_cpus,
        settings.ray_gpus,
    )


def _outcome(info: Any) -> str:
    """Return what became of a submission that ended, in words that may be public."""
    if info.status.value == "SUCCEEDED":
        return ""
    if info.status.value == "STOPPED":
        return STOPPED
    if info.driver_exit_code is not None:
        return cause(info.driver_exit_code)
    return f"failed on the cluster ({info.error_type})"


def _entrypoint(command: Sequence[str], job_log: Path, name: str) -> str:
    """Return the shell's line that Ray takes: the same command, where this node sees the worker's files.

    The job's log has the submission's name in it by now. A node that does not see that would train into a folder of
    its own. What the head was started with of this service's variables, of Ray's token and of where that lies, training
    does not get: it never speaks to Ray.
    """
    seen = shlex.join(["grep", "-qsF", name, str(job_log)])
    words = f"{job_log} is not on this node: HAPTIC_DATA_DIR must be shared, under the same path (service/README.md)"
    hidden = "unset RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH $(env | grep -o '^HAPTIC_[A-Za-z0-9_]*')"
    return f"{seen} || {{ {shlex.join(['echo', words])}; exit {NOT_SHARED}; }}; {hidden}; exec {shlex.join(command)}"
