"""A real chain for one person: Anvil, started here, stopped here, gone when this process is gone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from chain.errors import ChainError, RpcError
from chain.keys import DEVNET_CHAIN_ID, DEVNET_MNEMONIC
from chain.rpc import Rpc
from chain.types import BlockRef

START_S = 15.0
STOP_S = 5.0
ANVIL_VARIABLE = "HAPTIC_ANVIL"


class DevnetError(ChainError):
    """Anvil is missing, or cannot start; the message says what to do."""


def find_anvil(environ: Mapping[str, str] = os.environ, root: Path | None = None) -> Path:
    """Return the anvil to run: HAPTIC_ANVIL, else that in contracts/node_modules, else that on PATH.

    `root` is the repository's; the project's own pinned anvil goes before whatever the machine has.
    """
    named = environ.get(ANVIL_VARIABLE, "")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise DevnetError(f"{ANVIL_VARIABLE} names {named}, which is no program")
    modules = (root or Path(__file__).parents[1]) / "contracts" / "node_modules"
    for found in sorted(modules.glob("@foundry-rs/anvil-*/bin/anvil")):
        if os.access(found, os.X_OK):
            return found
    on_path = shutil.which("anvil", path=environ.get("PATH"))
    if on_path:
        return Path(on_path)
    raise DevnetError(
        f"anvil is not installed: run `make contracts` (needs Node), or set {ANVIL_VARIABLE} to where it is"
    )


class Devnet:
    """A running Anvil on 127.0.0.1 with chain id 31337, finalizing after two blocks; a context manager.

    `port` 0 takes a free one. `block_time` None mines a block per transaction, else one in so many seconds.
    `timestamp` is that of the genesis block, Unix seconds; `options` are further ones of Anvil's own. A guard
    process kills Anvil when this one dies, even by SIGKILL. The states of old blocks, which Anvil writes to disk and
    never removes while it runs, lie in a temporary folder under TMPDIR that goes with it: they grow with each block,
    empty ones too, so give TMPDIR a place with room for a long run.
    """

    def __init__(
        self,
        port: int = 8545,
        *,
        block_time: int | None = None,
        timestamp: int | None = None,
        accounts: int = 10,
        options: Sequence[str] = (),
        anvil: Path | None = None,
    ) -> None:
        self.port = port
        self._options = ["--slots-in-an-epoch", "1", "--accounts", str(accounts), *options]
        if block_time is not None:
            self._options += ["--block-time", str(block_time)]
        if timestamp is not None:
            self._options += ["--timestamp", str(timestamp)]
        self._anvil = anvil
        self._log: IO[bytes] | None = None
        self._states: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where its JSON-RPC is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Anvil's process id while it runs."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start Anvil and wait until it answers; a DevnetError where it cannot."""
        anvil = self._anvil or find_anvil()
        self.port = _free_port(self.port)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as Anvil does)
        self._states = tempfile.mkdtemp(prefix="haptic-anvil-")
        command = [
            str(anvil),
            "--silent",
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--chain-id", str(DEVNET_CHAIN_ID), "--mnemonic", DEVNET_MNEMONIC),
            *("--cache-path", self._states),
            *self._options,
        ]
        try:
            # A session of its own: Ctrl-C is for this process, which then stops Anvil itself; and where the
            # program is a wrapper, the whole group can be ended.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self.stop()
            raise DevnetError(f"{anvil} does not start: {error.strerror}; run `make contracts`") from None
        self._guard = _guard(self._process.pid, self._states)
        try:
            self._await()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End Anvil; its chain is gone. Stopping twice is harmless."""
        process, guard, log, states = self._process, self._guard, self._log, self._states
        self._process = self._guard = self._log = self._states = None
        if guard is not None and guard.stdin is not None:
            # First: once Anvil is gone, its process id may belong to somebody else.
            guard.kill()
            guard.wait()
            guard.stdin.close()
        if process is not None:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if log is not None:
            log.close()
        if states is not None:
            shutil.rmtree(states, ignore_errors=True)

    def _await(self) -> None:
        deadline = time.monotonic() + START_S
        with Rpc(self.url, 2.0, retries=0) as rpc:
            while True:
                if self._process is None or self._process.poll() is not None:
                    raise DevnetError(f"anvil stopped at once: {self._said() or 'without a word'}")
                try:
                    if rpc.chain_id() == DEVNET_CHAIN_ID:
                        return
                except RpcError:
                    if time.monotonic() > deadline:
                        raise DevnetError(f"anvil does not answer at {self.url}: {self._said()}") from None
                time.sleep(0.02)

    def _said(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read(2000).decode(errors="replace").strip()


def mine(rpc: Rpc, blocks: int = 1) -> BlockRef:
    """Mine so many blocks and return the last."""
    rpc.request("anvil_mine", hex(blocks))
    return rpc.block("latest")


def warp(rpc: Rpc, timestamp: int) -> BlockRef:
    """Mine a block at `timestamp` (Unix seconds, later than the latest block's), from where time goes on."""
    rpc.request("evm_setNextBlockTimestamp", timestamp)
    return mine(rpc)


def _free_port(port: int) -> int:
    """Return `port`, or a free one for 0; a DevnetError where somebody else listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DevnetError(
                f"port {port} cannot be used ({error.strerror}): stop what runs there, or choose another port"
            ) from None
        return int(probe.getsockname()[1])


def _guard(pid: int, states: str) -> subprocess.Popen[bytes]:
    """Start a shell that waits for this process's end of a pipe to close, then ends the group of `pid` and `states`.

    What is killed may write for a moment more, which is why a removal that failed is tried again.
    """
    ended = 'read -r _; kill -9 "-$1"; rm -rf "$2" || { sleep 1; rm -rf "$2"; }'
    return subprocess.Popen(
        ["/bin/sh", "-c", ended, "sh", str(pid), states],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
