"""JSON parsed and written in steps, so that other threads can run between two steps.

The standard library holds the interpreter until a value is done, in a thread too: 7 ms for 1 MiB. Here it gets
`CHUNK_CHARACTERS` at a time, and large values are taken apart only as deep as needed.
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

CHUNK_CHARACTERS = 32 * 1024
"""Text that the standard library parses in one step: a quarter of a millisecond."""
MIN_ATTEMPT_CHARACTERS = 64
"""Smallest text worth an attempt. If less credit is left, a list or an object is taken apart at once."""
DEEP_LEVELS = 16
"""Nesting beyond which an attempt counts the brackets in its text, to stay below the limit of recursion."""
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
            part, used = decode(
                body[at : at + CHUNK_CHARACTERS], "surrogatepass", at + CHUNK_CHARACTERS >= len(body)
            )
        except UnicodeDecodeError as fault:
            raise UnicodeDecodeError("utf-8", body, at + fault.start, at + fault.end, fault.reason) from None
        parts.append(part)
        at += used
    return "".join(parts)


class _StepParser:
    """One pass over one text.

    Attempts at values that are too large cost time in vain. `_credit` bounds their characters: it grows with the
    characters that are done, so the whole takes at most about twice its time.
    """

    def __init__(self, text: str, decoder: json.JSONDecoder) -> None:
        self._text = text
        self._scan: Callable[[str, int], tuple[Any, int]] = decoder.scan_once  # type: ignore[attr-defined]
        self._open: list[list[Any] | dict[str, Any]] = []
        self._keys: list[str] = []
        """For each open container, the key whose value comes next; "" for a list."""
        self._most_open = sys.getrecursionlimit() - 50
        self._credit = 2 * CHUNK_CHARACTERS
        self._at = 0
        self._turn = 0
        """Characters read since other threads could run."""

    def whole(self) -> Any:
        """Return the value of the text. Raises `json.JSONDecodeError`, and ValueError or RecursionError like it."""
        at = self._skip(0)
        while True:
            value, end = self._value(at)
            if end < 0:  # too large for one step
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
        size = min(CHUNK_CHARACTERS, self._credit)
        if size < MIN_ATTEMPT_CHARACTERS or len(self._open) > self._most_open:
            return None, -1
        value, end = self._attempt(self._text[at : at + size])
        return value, end if end < 0 else at + end

    def _attempt(self, piece: str) -> tuple[Any, int]:
        if len(self._open) > DEEP_LEVELS and (
            len(self._open) + piece.count("[") + piece.count("{") > self._most_open
        ):
            self._credit -= len(piece) // 8
            return None, -1
        try:
            return self._scan(piece, 0)
        except (ValueError, StopIteration):  # cut off or faulty; taking it apart shows which
            self._credit -= len(piece)
            self._turn += len(piece)
            return None, -1

    def _many(self, before: int, at: int) -> int:
        """Parse as many members as fit into one step, from `at` on; return where the next one begins.

        The place to cut is guessed: the text between the last two members is searched for again.
        """
        text, size = self._text, min(CHUNK_CHARACTERS, self._credit)
        if size < MIN_ATTEMPT_CHARACTERS or len(self._open) > DEEP_LEVELS:
            return at
        border = (text[before - 1] if text[before - 1] in ']}"' else "") + text[before:at]
        border += text[at] if text[at : at + 1] in ("[", "{", '"') else ""
        if len(border) > MIN_ATTEMPT_CHARACTERS:
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
        if plain := _PLAIN.match(text, at, at + CHUNK_CHARACTERS):
            return text[at + 1 : plain.end() - 1], plain.end()
        parts: list[str] = []
        start, at = at, at + 1
        while True:
            inside = _INSIDE.match(text, at, at + CHUNK_CHARACTERS)
            assert inside is not None
            end = inside.end()
            if end == at:
                if text[at : at + 1] == '"':
                    return "".join(parts), at + 1
                end = at + MIN_ATTEMPT_CHARACTERS
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
            space = _SPACE.match(self._text, at, at + CHUNK_CHARACTERS)
            assert space is not None
            at, full = space.end(), space.end() == at + CHUNK_CHARACTERS
            if not full:
                return at

    def _progress(self, at: int) -> None:
        """Note that all text before `at` is done, and let other threads run now and then."""
        self._credit = min(2 * CHUNK_CHARACTERS, self._credit + at - self._at)
        self._turn += at - self._at
        self._at = at
        if self._turn > 2 * CHUNK_CHARACTERS:
            self._turn = 0
            time.sleep(0)


def _string_part(text: str, start: int, at: int, part: str) -> str:
    """Return the text of a part of a string that begins at `start`. Raises `json.JSONDecodeError`."""
    try:
        said: str = scanstring(part, 0)[0]
    except json.JSONDecodeError as fault:
        unterminated = fault.msg.startswith("Unterminated")
        raise json.JSONDecodeError(fault.msg, text, start if unterminated else at + fault.pos) from None
    return said


CHUNK_MEMBERS = 256
"""Members of a list or an object that are written in one step, if they are small."""
MAX_WEIGHT = 4096
"""Numbers, strings and containers that the standard library writes in one step; 16 characters count as one more."""


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
    """One pass over one value. `_credit` bounds the weighing in vain, as in `_StepParser`."""

    def __init__(self, encoder: json.JSONEncoder, errors: str) -> None:
        self._encode = encoder.encode
        self._comma = encoder.item_separator
        self._errors = errors
        self._credit = 2 * MAX_WEIGHT
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
        for at in range(0, len(value), CHUNK_CHARACTERS):
            self._add(self._encode(value[at : at + CHUNK_CHARACTERS])[1:-1])
        self._add('"')

    def _apart(self, value: Sequence[object], opening: str, closing: str) -> Iterator[object]:
        """Write a list; yield the members that must be written by themselves."""
        self._add(opening)
        for at in range(0, len(value), CHUNK_MEMBERS):
            self._add(self._comma if at else "")
            part = value[at : at + CHUNK_MEMBERS]
            if opening and self._fits(part):
                self._add(self._encode(part)[1:-1])
                continue
            for number, item in enumerate(part):
                self._add(self._comma if number else "")
                yield item
        self._add(closing)

    def _members(self, value: Mapping[Any, object]) -> Iterator[object]:
        """Write an object; yield the values that must be written by themselves."""
        self._add("{")
        members = iter(value.items())
        comma = ""
        while part := dict(islice(members, CHUNK_MEMBERS)):
            self._add(comma)
            comma = self._comma
            if self._fits([part]):
                self._add(self._encode(part)[1:-1])
                continue
            for number, (key, item) in enumerate(part.items()):
                self._add(comma if number else "")
                if isinstance(key, str) and len(key) > CHUNK_CHARACTERS:
                    self._string(key)
                    self._add(self._encode({"": 0})[3:-2])
                else:
                    self._add(self._encode({key: 0})[1:-2])
                yield item
        self._add("}")

    def _fits(self, values: Sequence[object]) -> bool:
        """Return whether values may be written in one step. Their content is weighed level by level."""
        if self._credit <= 0:
            self._credit += 1
            return False
        weight, level = 0, list(values)
        while level and weight <= MAX_WEIGHT:
            weight += len(level)
            deeper: list[object] = []
            for value in level:
                kind = type(value)
                if kind is str:
                    weight += len(value) >> 4  # type: ignore[arg-type]
                elif kind is int:
                    weight += value.bit_length() >> 6  # type: ignore[attr-defined]
                elif isinstance(value, dict | list | tuple):
                    if weight + len(deeper) + len(value) > MAX_WEIGHT:
                        weight = MAX_WEIGHT + 1
                        break
                    if isinstance(value, dict):
                        deeper += value
                        deeper += value.values()
                    else:
                        deeper += value
            level = deeper
        fits = weight <= MAX_WEIGHT
        self._credit = min(2 * MAX_WEIGHT, self._credit + (weight if fits else -min(weight, MAX_WEIGHT)))
        return fits

    def _add(self, text: str) -> None:
        self._parts.append(text.encode(errors=self._errors))
        self._turn += len(text)
        if self._turn > 2 * CHUNK_CHARACTERS:
            self._turn = 0
            time.sleep(0)
