"""JSON that is parsed and written in steps: others have the interpreter between two.

The parser and the writer of the standard library let nobody in until they are done with a value: 7 ms for 1 MiB, in
a thread as well. Here they are given `STRETCH` at a time, and large values are taken apart only as deep as needed.
"""

from __future__ import annotations

import json
import re
import sys
import time
from codecs import utf_8_decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

STRETCH = 32 * 1024
"""Characters that the standard library parses in one go: a quarter of a millisecond."""
LEAST = 64
"""Characters that are worth an attempt; a list or an object is taken apart at once if less may be spent on it."""
DEEP = 16
"""Lists and objects within one another from which on what is parsed in one go counts as well."""
_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'"[^"\\\x00-\x1f]*+"')
_INSIDE = re.compile(r'(?:[^"\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+', re.DOTALL)
_LOW = re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_CLOSING = {"[": "]", "{": "}"}


def loads(body: bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Return what `json.loads` returns, and raise what it raises."""
    return _StepParser(_text(body), json.JSONDecoder(parse_constant=parse_constant)).whole()


def _text(body: bytes) -> str:
    encoding = json.detect_encoding(body)
    if encoding != "utf-8" or body.isascii():
        return body.decode(encoding, "surrogatepass")
    parts: list[str] = []
    decode, at = utf_8_decode, 0
    while at < len(body):
        try:
            part, used = decode(body[at : at + STRETCH], "surrogatepass", at + STRETCH >= len(body))
        except UnicodeDecodeError as fault:
            raise UnicodeDecodeError("utf-8", body, at + fault.start, at + fault.end, fault.reason) from None
        parts.append(part)
        at += used
    return "".join(parts)


class _StepParser:
    """One text that is parsed.

    Attempts at values that are too large for them cost time as well. `_credit` bounds their characters: it grows by
    those that are done with, so that the whole takes at most about twice its time.
    """

    def __init__(self, text: str, decoder: json.JSONDecoder) -> None:
        self._text = text
        self._scan: Callable[[str, int], tuple[Any, int]] = decoder.scan_once  # type: ignore[attr-defined]
        self._open: list[list[Any] | dict[str, Any]] = []
        self._keys: list[str] = []
        """Keys of the open containers, whose values come next; empty for a list."""
        self._most_open = sys.getrecursionlimit() - 50
        self._credit = 2 * STRETCH
        self._at = 0
        self._turn = 0
        """Characters that were looked at since others were let in."""

    def whole(self) -> Any:
        """Return the value of the text. Raises `json.JSONDecodeError`, and ValueError or RecursionError like it."""
        at = self._skip(0)
        while True:
            value, end = self._value(at)
            if end < 0:  # it is too large for one go
                at = self._enter(at)
                if self._text[at : at + 1] != self._closing():
                    at = self._key(at)
                    continue
                value, end = self._leave(), at + 1
            while self._open:
                self._put(value)
                self._progress(end)
                at = self._skip(end)
                if self._text[at : at + 1] != self._closing():
                    at = self._skip(self._delimiter(at, ","))
                    at = self._key(self._many(end, at))
                    break
                value, end = self._leave(), at + 1
            else:
                if (at := self._skip(end)) != len(self._text):
                    raise json.JSONDecodeError("Extra data", self._text, at)
                return value

    def _value(self, at: int) -> tuple[Any, int]:
        """Return a value and its end, or an end below 0 for one that must be taken apart."""
        first = self._text[at : at + 1]
        if first == '"':
            return self._string(at)
        if first not in _CLOSING:
            try:
                return self._scan(self._text, at)
            except StopIteration as fault:
                raise json.JSONDecodeError("Expecting value", self._text, fault.value) from None
        size = min(STRETCH, self._credit)
        if size < LEAST or len(self._open) > self._most_open:
            return None, -1
        value, end = self._attempt(self._text[at : at + size])
        return value, end if end < 0 else at + end

    def _attempt(self, piece: str) -> tuple[Any, int]:
        if len(self._open) > DEEP and (
            len(self._open) + piece.count("[") + piece.count("{") > self._most_open
        ):
            self._credit -= len(piece) // 8
            return None, -1
        try:
            return self._scan(piece, 0)
        except (ValueError, StopIteration):  # cut off, or faulty: whoever takes it apart sees which
            self._credit -= len(piece)
            self._turn += len(piece)
            return None, -1

    def _many(self, before: int, at: int) -> int:
        """Parse as many members as fit into one go, from `at` on; return where the next one begins.

        Where they can be cut is guessed: what was between the last two is looked for again.
        """
        text, size = self._text, min(STRETCH, self._credit)
        if size < LEAST or len(self._open) > DEEP:
            return at
        border = (text[before - 1] if text[before - 1] in ']}"' else "") + text[before:at]
        border += text[at] if text[at : at + 1] in ("[", "{", '"') else ""
        if len(border) > LEAST:
            return at
        cut = text.rfind(border, at + 1, at + size)
        if cut < 0:
            return at
        cut = text.index(",", cut)
        container = self._open[-1]
        opening = "[" if isinstance(container, list) else "{"
        found, end = self._attempt(opening + text[at:cut] + _CLOSING[opening])
        if end != cut - at + 2 or not found:
            return at
        container.extend(found) if isinstance(container, list) else container.update(found)
        self._progress(cut)
        return self._skip(cut + 1)

    def _enter(self, at: int) -> int:
        opening = self._text[at]
        if len(self._open) > self._most_open:
            kind = "array" if opening == "[" else "object"
            raise RecursionError(
                f"maximum recursion depth exceeded while decoding a JSON {kind} from a unicode string"
            )
        self._open.append([] if opening == "[" else {})
        self._keys.append("")
        return self._skip(at + 1)

    def _leave(self) -> Any:
        self._keys.pop()
        return self._open.pop()

    def _closing(self) -> str:
        return "]" if isinstance(self._open[-1], list) else "}"

    def _put(self, value: Any) -> None:
        container = self._open[-1]
        if isinstance(container, list):
            container.append(value)
        else:
            container[self._keys[-1]] = value

    def _key(self, at: int) -> int:
        """Read the key of a member, if it is an object's; return where its value begins."""
        if isinstance(self._open[-1], list):
            return at
        if self._text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", self._text, at)
        self._keys[-1], at = self._string(at)
        return self._skip(self._delimiter(self._skip(at), ":"))

    def _string(self, at: int) -> tuple[str, int]:
        text = self._text
        if plain := _PLAIN.match(text, at, at + STRETCH):
            return text[at + 1 : plain.end() - 1], plain.end()
        parts: list[str] = []
        start, at = at, at + 1
        while True:
            inside = _INSIDE.match(text, at, at + STRETCH)
            assert inside is not None
            end = inside.end()
            if end == at:
                if text[at : at + 1] == '"':
                    return "".join(parts), at + 1
                end = at + LEAST
                _string_part(text, start, at, text[at:end])
            part = _string_part(text, start, at, text[at:end] + '"')
            if parts and _LOW.match(text, at) and "\ud800" <= parts[-1][-1] <= "\udbff" != text[at - 1]:
                high, low = ord(parts[-1][-1]), ord(part[0])
                parts[-1] = parts[-1][:-1] + chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)
                part = part[1:]
            parts.append(part)
            self._progress(end)
            at = end

    def _delimiter(self, at: int, delimiter: str) -> int:
        if self._text[at : at + 1] != delimiter:
            raise json.JSONDecodeError(f"Expecting {delimiter!r} delimiter", self._text, at)
        return at + 1

    def _skip(self, at: int) -> int:
        while True:
            space = _SPACE.match(self._text, at, at + STRETCH)
            assert space is not None
            at, full = space.end(), space.end() == at + STRETCH
            if not full:
                return at

    def _progress(self, at: int) -> None:
        """Note that all before `at` is done with, and let others in now and then."""
        self._credit = min(2 * STRETCH, self._credit + at - self._at)
        self._turn += at - self._at
        self._at = at
        if self._turn > 2 * STRETCH:
            self._turn = 0
            time.sleep(0)


def _string_part(text: str, start: int, at: int, part: str) -> str:
    """Return what a part of a string, which begins at `start`, says. Raises `json.JSONDecodeError`."""
    try:
        said: str = scanstring(part, 0)[0]
    except json.JSONDecodeError as fault:
        unterminated = fault.msg.startswith("Unterminated")
        raise json.JSONDecodeError(fault.msg, text, start if unterminated else at + fault.pos) from None
    return said


MANY = 256
"""Members of a list or an object that are written in one go, if they are small."""
MOST_WEIGHT = 4096
"""Numbers, strings and containers that the standard library writes in one go; 16 characters count as another."""


def dumps(
    value: object,
    *,
    ensure_ascii: bool = True,
    allow_nan: bool = True,
    separators: tuple[str, str] = (", ", ": "),
    errors: str = "strict",
) -> bytes:
    """Return what `json.dumps` returns, encoded, and raise what it raises."""
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=allow_nan, separators=separators)
    return _Writer(encoder, errors).whole(value)


class _Writer:
    """One value that is written. `_credit` bounds what is weighed in vain, as in `_StepParser`."""

    def __init__(self, encoder: json.JSONEncoder, errors: str) -> None:
        self._encode = encoder.encode
        self._comma = encoder.item_separator
        self._errors = errors
        self._credit = 2 * MOST_WEIGHT
        self._most_open = sys.getrecursionlimit() - 50
        self._turn = 0
        self._parts: list[bytes] = []

    def whole(self, value: object) -> bytes:
        """Return the value as JSON. Raises what `json.dumps` raises."""
        if self._fits([value]):
            return self._encode(value).encode(errors=self._errors)
        opened = [self._apart([value], "", "")]
        while opened:
            for item in opened[-1]:
                if self._fits([item]) or not isinstance(item, str | dict | list | tuple):
                    self._add(self._encode(item))
                elif isinstance(item, str):
                    self._string(item)
                else:
                    if len(opened) > self._most_open:
                        raise RecursionError("maximum recursion depth exceeded while encoding a JSON object")
                    opened.append(
                        self._members(item) if isinstance(item, dict) else self._apart(item, "[", "]")
                    )
                    break
            else:
                opened.pop()
        return b"".join(self._parts)

    def _string(self, value: str) -> None:
        self._add('"')
        for at in range(0, len(value), STRETCH):
            self._add(self._encode(value[at : at + STRETCH])[1:-1])
        self._add('"')

    def _apart(self, value: Sequence[object], opening: str, closing: str) -> Iterator[object]:
        """Write a list; yield what in it must be written by itself."""
        self._add(opening)
        for at in range(0, len(value), MANY):
            self._add(self._comma if at else "")
            part = value[at : at + MANY]
            if opening and self._fits(part):
                self._add(self._encode(part)[1:-1])
                continue
            for number, item in enumerate(part):
                self._add(self._comma if number else "")
                yield item
        self._add(closing)

    def _members(self, value: Mapping[Any, object]) -> Iterator[object]:
        """Write an object; yield what in it must be written by itself."""
        self._add("{")
        members = iter(value.items())
        comma = ""
        while part := dict(islice(members, MANY)):
            self._add(comma)
            comma = self._comma
            if self._fits([part]):
                self._add(self._encode(part)[1:-1])
                continue
            for number, (key, item) in enumerate(part.items()):
                self._add(comma if number else "")
                if isinstance(key, str) and len(key) > STRETCH:
                    self._string(key)
                    self._add(self._encode({"": 0})[3:-2])
                else:
                    self._add(self._encode({key: 0})[1:-2])
                yield item
        self._add("}")

    def _fits(self, values: Sequence[object]) -> bool:
        """Return whether values may be written in one go: what is in them is weighed, level by level."""
        if self._credit <= 0:
            self._credit += 1
            return False
        weight, level = 0, list(values)
        while level and weight <= MOST_WEIGHT:
            weight += len(level)
            deeper: list[object] = []
            for value in level:
                kind = type(value)
                if kind is str:
                    weight += len(value) >> 4  # type: ignore[arg-type]
                elif kind is int:
                    weight += value.bit_length() >> 6  # type: ignore[attr-defined]
                elif isinstance(value, dict | list | tuple):
                    if weight + len(deeper) + len(value) > MOST_WEIGHT:
                        weight = MOST_WEIGHT + 1
                        break
                    if isinstance(value, dict):
                        deeper += value
                        deeper += value.values()
                    else:
                        deeper += value
            level = deeper
        fits = weight <= MOST_WEIGHT
        self._credit = min(2 * MOST_WEIGHT, self._credit + (weight if fits else -min(weight, MOST_WEIGHT)))
        return fits

    def _add(self, text: str) -> None:
        self._parts.append(text.encode(errors=self._errors))
        self._turn += len(text)
        if self._turn > 2 * STRETCH:
            self._turn = 0
            time.sleep(0)
