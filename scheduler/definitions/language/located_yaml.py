"""YAML as plain data, with the position of every value.

It reads only what a definitions file needs, so that nothing surprises: one document of mappings, lists and scalars.
A plain scalar is null, true or false, a decimal number, or text. `yes`, `on`, `0755`, `12:30` and `2024-01-31` are
text, as in YAML 1.2. Duplicate keys, keys that are not text, aliases, merge keys and tags are faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from scheduler.definitions.language.faults import Fault, shown

MAX_FILE_BYTES = 2**20
"""Largest file that is read: room for some thousand functions."""
MAX_DEPTH = 16
"""Levels of nesting at most; a definitions file needs five."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# No leading zeros (octal to YAML 1.1) and no more digits than a float holds exactly: longer ones are text.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,14})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,14})?\.[0-9]{1,15}(?:[eE][-+]?[0-9]{1,2})?")

KeyPath = tuple[str | int, ...]
"""Path from the root to a value: keys of mappings and indices of lists."""


class Position(NamedTuple):
    """The line and column where a value starts, from 1, and the text of a scalar as it is written."""

    line: int
    column: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """The data of a file with positions. Values at the paths in `broken` have a fault already and are None."""

    file: Path
    data: object
    positions: Mapping[KeyPath, Position]
    faults: tuple[Fault, ...]
    broken: frozenset[KeyPath]

    def position(self, path: KeyPath) -> Position:
        """Return where the value at `path` is, else the nearest mapping or list that should hold it."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, Position(1, 1))

    def is_broken(self, path: KeyPath) -> bool:
        """Return whether the value at `path`, or one around it, has a fault already."""
        return any(path[:length] in self.broken for length in range(len(path) + 1))


def parse(text: str, file: Path) -> Document:
    """Parse YAML text; `file` is named in the faults."""
    return _YamlParser(text, file).document()


Parse = Callable[[str, Path], Document]


def remembering_parse() -> Parse:
    """Return a `parse` that does not parse the same text of the same file twice in a row. It keeps that in memory."""
    return lru_cache(maxsize=1)(parse)


def read(file: Path, parse: Parse = parse) -> Document:
    """Read a file. Never raises: if it cannot be read or is not YAML, the document's `faults` say so."""
    try:
        if not file.exists():
            return _unreadable(
                file, Position(1, 1), "this file does not exist; name another with --functions"
            )
        if not file.is_file():
            return _unreadable(file, Position(1, 1), "is not a file; name a text file in YAML")
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return _unreadable(file, Position(1, 1), f"cannot be read: {error.strerror}")
    if len(data) > MAX_FILE_BYTES:
        return _unreadable(
            file, Position(1, 1), f"is larger than {MAX_FILE_BYTES} bytes, the most that is read; shorten it"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        position = _position_of_index(data[: error.start].decode(), error.start)
        return _unreadable(
            file, position, f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        )
    return parse(text, file)


def _unreadable(file: Path, position: Position, message: str) -> Document:
    return Document(file, None, {}, (Fault(file, position.line, position.column, message),), frozenset({()}))


def _position_of_index(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


class _StopError(Exception):
    """The rest of the text cannot be understood."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position


class _YamlParser:
    """One reading of one text. It builds the data from PyYAML's events.

    Aliases are not followed, so the cost grows with the length of the text only.
    """

    def __init__(self, text: str, file: Path) -> None:
        self.text = text
        self.file = file
        self.positions: dict[KeyPath, Position] = {}
        self.faults: list[Fault] = []
        self.broken: set[KeyPath] = set()

    def document(self) -> Document:
        data: object = None
        try:
            data = self._root()
        except _StopError as stop:
            self._fault(stop.position, str(stop))
            self.broken.add(())
        return Document(self.file, data, self.positions, tuple(self.faults), frozenset(self.broken))

    def _root(self) -> object:
        try:
            self.loader: Any = yaml.SafeLoader(self.text)
        except yaml.reader.ReaderError as error:
            position = _position_of_index(self.text, error.position)
            raise _StopError(
                position, f"character U+{ord(self.text[error.position]):04X} is not allowed; remove it"
            ) from None
        self._next()
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            raise _StopError(
                Position(1, 1), "the file is empty; write at least `version: 1` and `functions: {}`"
            )
        data = self._value(self._next(), ())
        self._next()
        end = self._next()
        if not isinstance(end, yaml.StreamEndEvent):
            raise _StopError(
                _position(end), "a second document starts here; put everything into one document"
            )
        return data

    def _next(self) -> Any:
        """Return the next event. Any: PyYAML's types do not say which kind has which attributes."""
        try:
            return self.loader.get_event()
        except yaml.MarkedYAMLError as error:
            raise self._stop_at(error) from None
        except (ValueError, OverflowError):
            # PyYAML raises these for an escape or a %YAML directive with a number out of range.
            mark = self.loader.get_mark()
            raise _StopError(
                Position(mark.line + 1, mark.column + 1), "not YAML: a number is out of range here"
            ) from None

    def _stop_at(self, error: yaml.MarkedYAMLError) -> _StopError:
        mark = error.problem_mark or error.context_mark or self.loader.get_mark()
        position = Position(mark.line + 1, mark.column + 1)
        if self.text[mark.index : mark.index + 1] == "\t":
            return _StopError(position, "a tab cannot indent YAML; indent with spaces")
        problem = f"{error.context}, {error.problem}" if error.context else f"{error.problem}"
        return _StopError(position, f"not YAML: {problem}")

    def _value(self, event: Any, path: KeyPath) -> object:
        position = _position(event)
        self.positions.setdefault(path, position)  # the first of two values with one key keeps its position
        if len(path) > MAX_DEPTH:
            raise _StopError(position, f"nested deeper than {MAX_DEPTH} levels; nothing here needs so many")
        if isinstance(event, yaml.AliasEvent):
            shared = "write the value out, or put what functions share under `defaults`"
            self._break(path, position, f"aliases (*{event.anchor}) are not supported; {shared}")
            return None
        if event.tag is not None:
            self._break(path, position, f"tags ({shown(event.tag)}) are not supported; remove it")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        if not _is_unicode(event.value):
            self._break(
                path, position, "half of a surrogate pair is no character; write the character itself"
            )
            return None
        return _plain(event.value) if event.style is None else event.value

    def _mapping(self, path: KeyPath) -> dict[str, object]:
        mapping: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key_place = _position(event)
            is_plain = isinstance(event, yaml.ScalarEvent) and event.style is None
            text = event.value if isinstance(event, yaml.ScalarEvent) else "?"
            # A fault of a key is reported at its value, so the key's own position is not kept.
            key = _plain(text) if is_plain else self._read_key(event, path)
            value_event = self._next()
            value = self._value(value_event, (*path, text))
            if is_plain and text == "<<":
                shared = "put what functions share under `defaults`"
                self._fault(_position(value_event), f"merge keys (<<) are not supported; {shared}")
            elif not isinstance(key, str) or not _is_unicode(key):
                self._fault(
                    _position(value_event),
                    f'the key of this value is not text; quote it, like "{_safe(text)}":',
                )
            elif key in mapping:
                self._fault(key_place, f"the key {shown(key)} is here twice; remove one of the two")
            else:
                mapping[key] = value
        return mapping

    def _read_key(self, event: Any, path: KeyPath) -> object:
        """Read a key that is not a plain scalar. Faults in it are recorded, positions of its parts are not."""
        if isinstance(event, yaml.ScalarEvent) and event.tag is None:
            return event.value
        positions = dict(self.positions)
        key = self._value(event, (*path, "?"))
        self.positions = positions
        return key

    def _list(self, path: KeyPath) -> list[object]:
        values: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            values.append(self._value(event, (*path, len(values))))
        return values

    def _break(self, path: KeyPath, position: Position, message: str) -> None:
        self.broken.add(path)
        self._fault(position, message)

    def _fault(self, position: Position, message: str) -> None:
        self.faults.append(Fault(self.file, position.line, position.column, message))


def _position(event: Any) -> Position:
    text = event.value if isinstance(event, yaml.ScalarEvent) else ""
    return Position(event.start_mark.line + 1, event.start_mark.column + 1, text)


def _plain(text: str) -> object:
    """Return the value of a scalar without quotes."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _safe(text: str) -> str:
    return shown(text)[1:-1]
