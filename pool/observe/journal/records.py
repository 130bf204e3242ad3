"""Pieces of output as they come from instances, records as they lie on disk, and lines as readers get them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

RECORD_BYTES = 8 * 1024
"""Most bytes of output in one record, and in one line: a longer line is broken. JSON makes at most six times as much
of them, so that a record always fits a chunk of the reader."""
HEAD = b'{"n":'
NUMBER_DIGITS = 16
"""Digits of a record's number: microseconds since 1970, until the year 2286."""
NUMBER = slice(len(HEAD), len(HEAD) + NUMBER_DIGITS)
"""Place of the number in a record's bytes: it can be read without parsing the record."""

_quoted: Callable[[str], str] = encode_basestring_ascii
"""Return a text as a JSON string of ASCII characters: safe for every terminal and tool."""


class OutputPiece(NamedTuple):
    """Bytes that an instance printed at one moment. A name is "" where there is none."""

    moment: float
    """Unix time."""
    function: str
    revision: str
    invocation: str
    """Empty if the output belongs to no single invocation."""
    instance: str
    data: bytes


class OutputRecord(NamedTuple):
    """A piece of output as it was kept. Records of one journal are in the order of their numbers."""

    number: int
    time: str
    """RFC 3339 in UTC with milliseconds. Such texts can be compared."""
    function: str
    revision: str
    invocation: str
    instance: str
    text: str
    """Some lines. Bytes that are not UTF-8 are lone surrogates, as `surrogateescape` makes them."""

    @property
    def data(self) -> bytes:
        """Return the bytes that were printed."""
        return self.text.encode("utf-8", "surrogateescape")

    def lines(self) -> Iterator[OutputLine]:
        """Yield its lines, without their ends."""
        texts = self.data.decode("utf-8", "backslashreplace").split("\n")
        if not texts[-1]:
            texts.pop()
        _, time, function, revision, invocation, instance, _ = self
        for place, text in enumerate(texts):
            yield OutputLine(
                self.number, place, time, function, revision, invocation, instance, text.removesuffix("\r")
            )


class OutputLine(NamedTuple):
    """One line of output. Its record's number and its place in the record identify it."""

    number: int
    place: int
    time: str
    function: str
    revision: str
    invocation: str
    instance: str
    text: str
    """The line without its end. Bytes that are not UTF-8 are written out, as `\\xff`."""

    def fields(self) -> dict[str, str | None]:
        """Return the line as the API shows it."""
        return {
            "time": self.time,
            "function": self.function or None,
            "revision": self.revision or None,
            "invocation": self.invocation or None,
            "instance": self.instance or None,
            "text": self.text,
        }


def time_text(moment: float) -> str:
    """Return a Unix time as in `OutputRecord.time`. Raises ValueError or OverflowError if no calendar has it."""
    second, millisecond = divmod(round(moment * 1e6) // 1000, 1000)
    return f"{_second_text(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=4)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")


def encode_record(number: int, piece: OutputPiece) -> bytes:
    """Return a record as one line of JSON, with its line end. `n` comes first and has `NUMBER_DIGITS` digits."""
    moment, function, revision, invocation, instance, data = piece
    text = data.decode("utf-8", "surrogateescape")
    # Put together by hand, which takes half the time: there may be thousands a second.
    return (
        f'{{"n":{number:0{NUMBER_DIGITS}d},"time":"{time_text(moment)}","function":{_quoted(function)},'
        f'"revision":{_quoted(revision)},"invocation":{_quoted(invocation)},"instance":{_quoted(instance)},'
        f'"text":{_quoted(text)}}}\n'
    ).encode()


def decode_record(line: bytes) -> OutputRecord | None:
    """Return the record in a line of a segment, or None if the line is torn or was not written by us."""
    try:
        found = json.loads(line)
        record = OutputRecord(found["n"], *(found[name] for name in OutputRecord._fields[1:]))
    except (ValueError, KeyError, TypeError):
        return None
    return record if _is_sound(record) else None


def _is_sound(record: tuple[Any, ...]) -> bool:
    number, *texts = record
    return isinstance(number, int) and all(isinstance(text, str) for text in texts)


def number_of(line: bytes) -> int | None:
    """Return the number of a record without parsing it, or None if the line is torn at its begin or its end."""
    digits = line[NUMBER]
    is_whole = line.startswith(HEAD) and len(digits) == NUMBER_DIGITS and digits.isdigit()
    return int(digits) if is_whole else None


def needle(name: str, value: str, whole: bool = True) -> bytes:
    """Return bytes that every record with this value of a field contains. Not `whole`: the value begins so."""
    text = f'"{name}":{_quoted(value)}'
    return (text if whole else text[:-1]).encode()
