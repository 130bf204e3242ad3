"""How log lines look: for people on a terminal, one JSON object a line elsewhere. Always on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Literal, TextIO

import click

from gateway.cli.terminal import visible, visible_json, visible_line

REPEAT_AFTER = 60.0
"""Seconds in which a message that is the same word for word is not logged again."""
ABORTED_ON_PURPOSE = "ASGI callable returned without completing response"
"""uvicorn's complaint when a response that failed after its head is cut off: that is how we do it."""
COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red", "DEBUG": "bright_black"}
QUIET = ("uvicorn", "uvicorn.error", "asyncio", "watchfiles", "httpx", "httpcore", "aiohttp")
"""Loggers of others, which speak from warning on only."""
STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""What every record has; all else in it are fields that a caller gave with `extra`."""


class JsonFormatter(logging.Formatter):
    """One JSON object: time (RFC 3339, UTC), level, logger, message, the caller's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
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
    """Time, level and message; the logger only where it is not ours."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The record as people read it; a traceback follows on lines of its own."""
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = record.levelname.lower()
        if self._colour:
            moment = click.style(moment, fg="bright_black")
            level = click.style(level, fg=COLOURS.get(record.levelname))
        origin = "" if record.name.startswith("hearth") else f"{record.name}: "
        line = f"{moment} {level} {origin}{visible_line(record.getMessage())}"
        return f"{line}\n{visible(self.formatException(record.exc_info))}" if record.exc_info else line


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at that moment: a progress bar puts itself in its place and steps aside for lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


class NoNoise(logging.Filter):
    """Stops what tells nothing: what we do on purpose, and the same warning every second while the engine is away."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        if isinstance(record.msg, str) and ABORTED_ON_PURPOSE in record.msg:
            return False
        if record.levelno != logging.WARNING or record.name.startswith("hearth.invoke"):
            return True
        key = (record.name, record.getMessage())
        if record.created - self._last.get(key, -REPEAT_AFTER) < REPEAT_AFTER:
            return False
        if len(self._last) >= 256:
            self._last.clear()
        self._last[key] = record.created
        return True


def configure(level: str, form: Literal["text", "json"] | None) -> None:
    """Send everything that is logged to stderr. `form` None: text on a terminal, else JSON."""
    terminal = sys.stderr.isatty()
    handler = StderrHandler()
    handler.setFormatter(
        JsonFormatter()
        if (form or ("text" if terminal else "json")) == "json"
        else TextFormatter(colour=terminal)
    )
    handler.addFilter(NoNoise())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
