"""Output of commands, made safe for a terminal: text of functions and callers may contain control sequences.

Output into a pipe or a file is unchanged.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
import unicodedata
from typing import IO

import click

_RARE = re.compile(r"[^\n\t -~]")
_JOINERS = "\u200c\u200d"
"""Invisible characters that emoji and some scripts need between others."""


def visible(text: str) -> str:
    """Return a text in which every character that could control a terminal is written out, as `\\x1b`.

    These are control characters except line end and tab, characters that change the direction of writing, and all
    others without a visible shape.
    """
    return _RARE.sub(lambda found: _written_out(found[0]), text)


def visible_line(text: str) -> str:
    """Return `visible` text on one line: line ends and tabs are written out too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def visible_json(text: str) -> str:
    """Return the same JSON, in which every character that could control a terminal is a JSON escape."""
    return _RARE.sub(lambda found: found[0] if _is_harmless(found[0]) else _json_escape(found[0]), text)


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr: `visible` if that is a terminal."""
    stream = sys.stderr if err else sys.stdout
    click.echo(visible(text) if stream.isatty() else _encodable(text), err=err)


def say_json(text: str) -> None:
    """Print JSON on stdout: `visible_json` if that is a terminal."""
    click.echo(visible_json(text) if sys.stdout.isatty() else _encodable(text))


def styled(text: str, *, fg: str | None = None, bold: bool | None = None) -> str:
    """Return a `visible` text in a colour, or unchanged if the terminal or its user wants no colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not text or not (fg or bold):
        return text
    return click.style(text, fg=fg, bold=bold)


def say_styled(line: str) -> None:
    """Print a line with `styled` parts on stdout. All of its text must be `visible` already."""
    click.echo(line)


def show_exception(error: click.ClickException, file: IO[str] | None) -> None:
    """Print the error that ends a command on stderr, or into `file`: `visible` if that is a terminal."""
    stream = file or sys.stderr
    text = f"Error: {error.format_message()}"
    click.echo(visible(text) if stream.isatty() else _encodable(text), file=stream)


class BodyWriter:
    """Writes bytes to stdout piece by piece. They are unchanged with `raw` or without a terminal, else `visible`."""

    def __init__(self, raw: bool = False) -> None:
        self._out = sys.stdout.buffer
        self._terminal = sys.stdout.isatty()
        self._encoding = sys.stdout.encoding or "ascii"
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._plain = raw or not self._terminal
        self._last = b""

    def write(self, piece: bytes) -> None:
        """Write a piece at once. If it ends within a character, the rest of that waits for the next piece."""
        self._write(piece if self._plain else self._shown(piece, final=False))

    def end(self) -> None:
        """Write the rest, and on a terminal a line end if the last line has none."""
        if not self._plain:
            self._write(self._shown(b"", final=True))
        if self._terminal and self._last and not self._last.endswith(b"\n"):
            self._write(b"\n")

    def _shown(self, piece: bytes, final: bool) -> bytes:
        return visible(self._decoder.decode(piece, final)).encode(self._encoding, "backslashreplace")

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._out.flush()
        self._last = data or self._last


def write_body(data: bytes, raw: bool = False) -> None:
    """Write all bytes at once, as a `BodyWriter` does."""
    writer = BodyWriter(raw)
    writer.write(data)
    writer.end()


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _written_out(character: str) -> str:
    return character if _is_harmless(character) else ascii(character)[1:-1]


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _encodable(text: str) -> str:
    """Return a text with halves of surrogate pairs written out: JSON can contain them, UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
