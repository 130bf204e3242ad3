"""Output of commands, made safe for a terminal: text of functions and callers may contain control sequences.

Output into a pipe or a file is unchanged.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shutil
import sys
import textwrap
from typing import IO

import click

from gateway.http.visible import visible as visible
from gateway.http.visible import visible_json as visible_json
from gateway.http.visible import visible_line as visible_line

GLUE = "\u00a0"
"""Stands for a space at which no line may end, until the line is printed."""
_QUOTED = re.compile(r"`[^`\n]*`")
"""Matches a command within a message."""
_COMMAND = re.compile(r"^ +(.*: +)?(hearth|docker|curl) ")
"""Matches a line below a message that holds a command to copy."""


def say(text: str = "", *, err: bool = False, wrap: bool | None = None) -> None:
    """Print a line on stdout, or on stderr: `visible` if that is a terminal.

    With `wrap`, the default on stderr, a terminal gets it broken between words, but for commands to copy.
    """
    stream = sys.stderr if err else sys.stdout
    shown = fitted(stream, text) if wrap or (wrap is None and err) else text
    click.echo(visible(shown) if stream.isatty() else _encodable(text), err=err)


def fitted(stream: IO[str], text: str) -> str:
    """Return a text whose lines fit the terminal if the stream is one. No word is broken."""
    if not stream.isatty():
        return text
    lines = []
    for line in text.split("\n"):
        if _COMMAND.search(line):
            lines.append(line)  # the terminal wraps it, so that it can be copied
            continue
        indent = line[: len(line) - len(line.lstrip())]
        whole = _QUOTED.sub(lambda found: found[0].replace(" ", GLUE), line)
        fit = textwrap.wrap(
            whole, terminal_width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        lines += [part.replace(GLUE, " ") for part in fit] or [""]
    return "\n".join(lines)


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


def write_log(text: str) -> None:
    """Write lines on stderr, all of whose text is `visible` already. If nobody reads them any more, they are lost."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def show_exception(error: click.ClickException, file: IO[str] | None) -> None:
    """Print the error that ends a command on stderr, or into `file`: `visible` if that is a terminal."""
    stream = file or sys.stderr
    text = f"Error: {error.format_message()}"
    click.echo(visible(fitted(stream, text)) if stream.isatty() else _encodable(text), file=stream)


def terminal_width() -> int:
    """Return the number of columns of the terminal."""
    return shutil.get_terminal_size().columns


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


def _encodable(text: str) -> str:
    """Return a text with halves of surrogate pairs written out: JSON can contain them, UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
