"""Logs for people, or a JSON object a line for machines; neither ever holds a key, because none is handed to them.

What strangers wrote may be in a message: nothing in it makes a line of its own, or moves a terminal's cursor.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Final, Literal

from service.hostile import one_line

TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
INDENT: Final = "    "
"""Before each line of a traceback: none of them looks like the beginning of another message."""
CHATTY: Final = ("httpx", "apscheduler", "alembic")
Kind = Literal["text", "json"]


class TextLines(logging.Formatter):
    """Writes a line for people, and a traceback indented under it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class names it so
        """Return the line itself."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return the traceback."""
        return "\n".join(INDENT + one_line(line) for line in super().formatException(ei).split("\n"))


class JsonLines(logging.Formatter):
    """Writes time (UTC, RFC 3339), level, logger and message, the job it is about, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("job", "epoch", "seconds"):
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        # What JSON leaves as it is, such as marks of writing direction, is written out as JSON would.
        return one_line(json.dumps(line, ensure_ascii=False, default=str))


def configure(kind: Kind, level: int = logging.INFO) -> None:
    """Send all logs to standard error in this form; libraries that talk much say only what is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if kind == "json" else TextLines(TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    # A step that fails says so itself; apscheduler would say all of it again.
    logging.getLogger("apscheduler.executors").setLevel(logging.CRITICAL)
