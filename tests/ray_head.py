"""A real Ray head of its own for tests, on loopback, with token authentication, that ends with all its processes."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[1]
WAIT_S = 120.0


class Head:
    """A head with one core, which remembers nothing of what it had before it was ended."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(32)
        ports = _free(4)
        self.address = f"http://127.0.0.1:{ports[0]}"
        # The sockets' paths have room for a hundred characters: no folder of pytest's.
        self._folder = tempfile.mkdtemp(prefix="ray")
        self._command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--node-ip-address=127.0.0.1",
            "--port=0", "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports[0]}",
            f"--ray-client-server-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}",
            f"--dashboard-agent-grpc-port={ports[3]}", "--num-cpus=1", "--num-gpus=0",
            "--object-store-memory=80000000", "--disable-usage-stats", f"--temp-dir={self._folder}",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, mode: str = "token") -> None:
        """Start it and wait until it takes jobs."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "HAPTIC_"))} | {
            "HOME": self._folder, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": self.token,
            "RAY_AUTH_TOKEN_PATH": "/of/the/head's/token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or 127.0.0.1 is taken for the machine's other address
            "HAPTIC_SECRET": "an operator who exports it for the service starts the head in the same shell",
        }  # fmt: skip
        said = Path(self._folder, "said")
        with said.open("wb") as out:
            self._process = subprocess.Popen(self._command, env=environ, stdout=out, stderr=out)
        deadline = time.monotonic() + WAIT_S
        while not self._takes_jobs():
            assert self._process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)

    def _takes_jobs(self) -> bool:
        """Tell whether its dashboard answers; a job waits there until the rest of the head has come up."""
        bearer = {"Authorization": f"Bearer {self.token}"}
        try:
            return httpx.get(f"{self.address}/api/version", headers=bearer, timeout=5).is_success
        except httpx.HTTPError:
            return False

    def processes(self) -> list[psutil.Process]:
        """Return it and all that it started."""
        assert self._process is not None
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def end(self) -> None:
        """Kill all of it, as a machine does that loses its power."""
        if self._process is None:
            return
        every = self.processes()
        for process in every:
            process.suspend()  # none may start another
        for process in every:
            process.kill()
        psutil.wait_procs(every, timeout=WAIT_S)
        self._process.wait()
        self._process = None

    def close(self) -> None:
        self.end()
        shutil.rmtree(self._folder, ignore_errors=True)


def running() -> Iterator[Head]:
    """Lend a head that runs."""
    head = Head()
    try:
        head.begin()
        yield head
    finally:
        head.close()


def _free(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in taken]
    for s in taken:
        s.close()
    return ports
