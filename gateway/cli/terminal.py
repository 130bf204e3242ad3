"""Output of commands, made safe for a terminal: text of functions and callers may hold orders to it.

Into a pipe or a file everything goes as it is.
"""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from typing import IO

import click

_RARE = re.compile(r"[^\n\t -~]")
_JOINERS = "\u200c\u200d"
"""Characters that emoji and some scripts need between others."""


def visible(text: str) -> str:
    """Return a text in which everything that could steer a terminal is written out, as `\\x1b`.

    These are control characters but for line end and tab, those that turn the direction of writing, and whatever has
    no shape of its own.
    """
    return _RARE.sub(lambda found: _written_out(found[0]), text)


def visible_line(text: str) -> str:
    """Return `visible` on one line: line ends and tabs are written out too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def visible_json(text: str) -> str:
    """Return JSON that means the same, in which everything that could steer a terminal is a JSON escape."""
    return _RARE.sub(lambda found: found[0] if _is_harmless(found[0]) else _json_escape(found[0]), text)


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr: `visible` if that is a terminal."""
    stream = sys.stderr if err else sys.stdout
    click.echo(visible(text) if stream.isatty() else _encodable(text), err=err)


def say_json(text: str) -> None:
    """Print JSON on stdout: `visible_json` if that is a terminal."""
    click.echo(visible_json(text) if sys.stdout.isatty() else _encodable(text))


def show_exception(error: click.ClickException, file: IO[str] | None) -> None:
    """Print what ends a command on stderr, or into `file`: `visible` if that is a terminal."""
    stream = file or sys.stderr
    text = f"Error: {error.format_message()}"
    click.echo(visible(text) if stream.isatty() else _encodable(text), file=stream)


class BodyWriter:
    """Writes bytes to stdout, piece by piece: as they are, but on a terminal `visible`, unless `raw` is asked for."""

    def __init__(self, raw: bool = False) -> None:
        self._out = sys.stdout.buffer
        self._terminal = sys.stdout.isatty()
        self._encoding = sys.stdout.encoding or "ascii"
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._plain = raw or not self._terminal
        self._last = b""

    def write(self, piece: bytes) -> None:
        """Write a piece at once, but for a character that it holds the beginning of."""
        self._write(piece if self._plain else self._shown(piece, final=False))

    def end(self) -> None:
        """Write what is left; on a terminal also the end of a line that was begun."""
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
    """Write bytes that are here whole, as a `BodyWriter` does."""
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
    """Return a text without halves of surrogate pairs, which JSON can name and UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()
