"""Format of log lines on stderr: text for people on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Literal, TextIO

from gateway.cli.terminal import styled, visible, visible_json, visible_line

REPEAT_AFTER_SECONDS = 60.0
"""Time until the same warning is logged again: often enough to notice that the fault persists."""
ABORTED_ON_PURPOSE = "ASGI callable returned without completing response"
"""Complaint of uvicorn when we cut off a response that failed after its head."""
COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red", "DEBUG": "bright_black"}
PRINTED = "  | "
"""Begins each line that a function has printed, so that it cannot pass for a line of the log."""
QUIET = ("uvicorn", "uvicorn.error", "asyncio", "httpx", "httpcore", "aiohttp")
"""Loggers of libraries. They log only from level warning on."""
STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""Fields that every record has. Any other field was given with `extra`."""


class JsonFormatter(logging.Formatter):
    """Writes a record as a JSON object: time (RFC 3339, UTC), level, logger, message, extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record on one line."""
        shown: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        shown |= {
            key: value
            for key, value in record.__dict__.items()
            if key not in STANDARD and not key.startswith("_")
        }
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        return visible_json(json.dumps(shown, ensure_ascii=False, default=str))


class TextFormatter(logging.Formatter):
    """Writes a record as time, level and message, with the logger's name if it is not ours."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the record on one line. Lines below have what a function has printed, marked, and a traceback."""
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = record.levelname.lower()
        if self._colour:
            moment = styled(moment, fg="bright_black")
            level = styled(level, fg=COLOURS.get(record.levelname))
        origin = "" if record.name.startswith("hearth") else f"{record.name}: "
        line = f"{moment} {level} {origin}{visible_line(record.getMessage())}"
        printed = visible(getattr(record, "printed", "")).splitlines()
        line = "\n".join([line, *(f"{PRINTED}{part}" for part in printed)])
        return f"{line}\n{visible(self.formatException(record.exc_info))}" if record.exc_info else line


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`. A progress bar replaces it, so that lines appear above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


class NoiseFilter(logging.Filter):
    """Drops complaints about what we do on purpose, and warnings that repeat while the engine is away."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        if isinstance(record.msg, str) and ABORTED_ON_PURPOSE in record.msg:
            return False
        if record.levelno != logging.WARNING or record.name.startswith("hearth.invoke"):
            return True
        key = (record.name, record.getMessage())
        if record.created - self._last.get(key, -REPEAT_AFTER_SECONDS) < REPEAT_AFTER_SECONDS:
            return False
        if len(self._last) >= 256:
            self._last.clear()
        self._last[key] = record.created
        return True


def form_of(form: Literal["text", "json"] | None) -> Literal["text", "json"]:
    """Return the form of log lines. If none is chosen: text for a terminal, else JSON."""
    return form or ("text" if sys.stderr.isatty() else "json")


def configure(level: str, form: Literal["text", "json"] | None) -> None:
    """Send all log records to stderr, in the form that `form_of` says."""
    handler = StderrHandler()
    handler.setFormatter(
        JsonFormatter() if form_of(form) == "json" else TextFormatter(colour=sys.stderr.isatty())
    )
    handler.addFilter(NoiseFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
