"""The process that serves."""

from __future__ import annotations

import subprocess
import sys

STARTED = """
import gc
from types import SimpleNamespace
from service import server

class App:
    state = SimpleNamespace(events=None)

    async def __call__(self, scope, receive, send):
        print(gc.get_freeze_count(), len(gc.get_objects()))
        await send({"type": "lifespan.startup.failed"})

server.run(App(), "127.0.0.1", 0)
"""


def test_what_was_loaded_before_the_first_request_is_not_searched_for_garbage_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3, done.stderr
    frozen, searched = map(int, done.stdout.split())
    assert frozen > 10 * searched
