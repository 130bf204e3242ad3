"""A line of output for people: its function, a short id, and the text, made safe for a terminal."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TextIO

from gateway.cli.terminal import say, say_styled, styled, visible_line

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
"""Colours of functions. A name always has the same one."""
SHORT_ID_DIGITS = 8
NOBODY = "-"
"""Stands for the function of an instance that is not given to any yet."""


def separator(stream: TextIO) -> str:
    """Return what stands between the origin of a line and its text, as far as the stream can show it."""
    try:
        "│".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "|"
    return "│"


def origin(function: str | None, id: str | None, colour: bool) -> str:
    """Return the function and the short id of a line."""
    text = f"{visible_line(function or NOBODY)} {visible_line((id or NOBODY)[:SHORT_ID_DIGITS])}"
    return styled(text, fg=colour_of(function)) if colour else text


def colour_of(function: str | None) -> str:
    """Return the colour of a function."""
    return COLOURS[zlib.crc32((function or NOBODY).encode()) % len(COLOURS)]


class LineWriter:
    """Writes lines of the API on stdout: coloured on a terminal, with the time in this machine's zone."""

    def __init__(self, raw: bool = False) -> None:
        self._raw = raw
        self._terminal = sys.stdout.isatty()
        self._separator = separator(sys.stdout)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line at once."""
        time, text = str(line["time"]), str(line["text"])
        where = origin(line["function"], line["invocation"] or line["instance"], self._terminal)
        if not self._terminal:
            say(f"{time} {where} {self._separator} {text}")
            return
        text = text.encode("utf-8", "backslashreplace").decode() if self._raw else visible_line(text)
        say_styled(f"{styled(local_time(time), fg='bright_black')} {where} {self._separator} {text}")


def local_time(text: str) -> str:
    """Return a time of RFC 3339 in this machine's zone, with its day unless that is today."""
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except ValueError:
        return visible_line(text)
    today = datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M:%S}"


def zone_name() -> str:
    """Return the name of this machine's time zone."""
    return datetime.now().astimezone().tzname() or "local time"
