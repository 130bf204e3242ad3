"""Forms of output in answers: events, JSON lines or text; and what a request asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from gateway.access.access import CURRENT
from gateway.http.problems import Problem
from gateway.http.visible import visible_json, visible_line
from pool.observe.journal.reading import OutputReading, TooManyReaders
from pool.observe.journal.records import OutputLine, time_text

SHORT_ID_DIGITS = 8
"""Digits of an id in text. `GET /invocations/{id}` takes them too."""
JSON_LINES, TEXT = "application/x-ndjson", "text/plain; charset=utf-8"
MICROSECONDS = 1_000_000
LATE_SECONDS = 60.0
"""Time by which a line may be written later than it was printed, at most."""


class LinePlace(NamedTuple):
    """The place of a line in the journal, as the id of an event: `NUMBER-PLACE`."""

    number: int
    place: int

    @classmethod
    def parse(cls, text: str) -> LinePlace | None:
        """Return the place that an event's id names, or None if it is none of ours."""
        number, _, place = text.partition("-")
        if number.isascii() and number.isdigit() and place.isascii() and place.isdigit() and len(text) < 40:
            return cls(int(number), int(place))
        return None


@contextmanager
def bounded_reader(output: OutputReading) -> Iterator[None]:
    """Count a reader of the journal while the block runs. Raises `Problem` 503 if too many read."""
    try:
        with output.reader(CURRENT.get().caller):
            yield
    except TooManyReaders:
        raise Problem("busy", "too many read logs already; try again later", retry_after=1.0) from None


def journal_time(moment: float) -> str:
    """Return a Unix time as the journal has it. Raises `Problem` 422 if it is none of a calendar."""
    try:
        return time_text(moment)
    except (ValueError, OverflowError, OSError):
        raise Problem("invalid-input", "query: the time is too far away; write one like 10m") from None


def as_events(lines: Iterable[OutputLine]) -> bytes:
    """Return lines as server-sent events. Each has the id from which a reader can go on."""
    parts = []
    for line in lines:
        place = f"id: {line.number}-{line.place}\n" if line.number else "event: dropped\n"
        parts.append(f"{place}data: {_json(line)}\n\n")
    return "".join(parts).encode()


def as_json_lines(lines: Iterable[OutputLine]) -> bytes:
    """Return lines as JSON objects, one a line."""
    return "".join(f"{_json(line)}\n" for line in lines).encode()


def as_text(lines: Iterable[OutputLine]) -> bytes:
    """Return lines as text, with their time and origin. Control characters are written out."""
    return "".join(
        f"{line.time} {line.function or '-'} {(line.invocation or line.instance or '-')[:SHORT_ID_DIGITS]} | "
        f"{visible_line(line.text)}\n"
        for line in lines
    ).encode()


def _json(line: OutputLine) -> str:
    return visible_json(json.dumps(line.fields(), ensure_ascii=False, separators=(",", ":")))
