"""How hypothesis runs: no deadline, because machines are shared; the same examples every time in CI."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "haptic",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("haptic")

# Started in the background of a script a process ignores Ctrl-C, and so does every command that a test starts from it.
signal.signal(signal.SIGINT, signal.default_int_handler)
