"""A service's pipeline in a process of its own that kills itself at a given moment; forked from one that is warm.

    python -m tests.integration.service.pipeline

reads a JSON object a line, {"settings": …, "die_at": n}, and answers with a line of the exit status.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from chain.transport import Transport
from service import jobs
from service.context import build
from service.settings import Settings

STEPS = ("index", "commit", "payout", "index", "commit", "payout")


def _count(die_at: int, engine: Any) -> Callable[[], int]:
    """Die right before or after the n-th statement, commit or question to the node; return how many there were."""
    count = 0

    def tick(*_: object) -> None:
        nonlocal count
        count += 1
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(engine, name, tick)
    exchange = Transport._exchange

    def asked(self: Transport, *args: Any, **options: Any) -> Any:
        tick()
        answer = exchange(self, *args, **options)
        tick()
        return answer

    Transport._exchange = asked  # type: ignore[method-assign]
    return lambda: count


def run(settings: dict[str, Any], die_at: int) -> int:
    """Take all steps, unless death comes first; return how many moments there were to die at."""
    ctx = build(Settings(**settings))
    moments = _count(die_at, ctx.db.engine)
    for name in STEPS:
        jobs.STEPS[name](ctx)
    ctx.close()
    return moments()


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, str(run(job["settings"], job["die_at"])).encode())
            except BaseException:  # noqa: BLE001  # whatever it is, the child ends here and says so
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writing)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        moments = os.read(reading, 64).decode() or "0"
        os.close(reading)
        sys.stdout.write(json.dumps({"status": status, "moments": int(moments)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
