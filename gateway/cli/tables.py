"""Tables: plain and whole into a pipe, fitted to the width of a terminal.

A heading says how its column gives way on a narrow terminal:

- an id stays whole where there is room, else its shortest unique prefix is shown. It is never cut or wrapped
- a note, like a fault, is wrapped, and goes below its row where its column would become too narrow
- any other text is wrapped between words, the widest column first, and names last.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from gateway.cli.terminal import GLUE, say, say_styled, styled, terminal_width, visible_line

ID_HEADINGS = frozenset({"ID", "INVOCATION", "INSTANCE", "CALL"})
NAME_HEADINGS = frozenset({"NAME", "FUNCTION", "WORKFLOW", "STEP", "TRIGGER", "KEY"})
NOTE_HEADINGS = frozenset({"FAULT", "ERROR", "DETAIL", "REASON", "RESULT", "FOUND", "WHY"})
STYLES = {
    "ready": "green",
    "ok": "green",
    "idle": "green",
    "frozen": "cyan",
    "prewarmed": "green",
    "busy": "cyan",
    "building": "yellow",
    "adopting": "yellow",
    "starting": "yellow",
    "draining": "yellow",
    "warning": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "skipped": "yellow",
    "cancelled": "magenta",
    "failed": "red",
    "dead": "red",
    "expired": "red",
    "missing": "red",
}
"""Colours of states in tables."""

GAP = "  "
SHORTEST_ID_CHARS = 8
"""Fewest characters of a short id: two of a hundred thousand ids rarely share so many."""
NARROWEST_NOTE_CHARS = 40
"""Narrowest column of notes. In a narrower one a sentence is hard to read, so that it goes below its row."""
NARROWEST_TEXT_CHARS = 8
"""Narrowest column of any other text, if its heading is not longer."""
NOTE_INDENT = "    "
NOTHING = frozenset({"", "-"})

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+")
_WORDS = re.compile(rf"{_TIME.pattern}|[^ ]+")
"""Matches words. A time with its zone is one, so that no line ends within it."""
_PARTS = re.compile(r"\d+\.\d+\w*|[^-/:_.,=]*[-/:_.,=]+|[^-/:_.,=]+")
"""Matches the parts of a word: a number is one. Between them it may be broken if it is too long for a line."""


@dataclass(frozen=True)
class TableColumn:
    """A heading and the texts below it."""

    heading: str
    texts: tuple[str, ...]

    @property
    def is_id(self) -> bool:
        """Return whether the texts are ids."""
        return self.heading in ID_HEADINGS

    @property
    def is_note(self) -> bool:
        """Return whether the texts are notes."""
        return self.heading in NOTE_HEADINGS

    def width(self) -> int:
        """Return the width at which nothing is wrapped."""
        return max(map(cells, (self.heading, *self.texts)))

    def longest_part(self) -> int:
        """Return the width at which no word is broken but behind characters like - and /."""
        if self.is_id:
            return self.width()
        words = (word for text in self.texts for word in _WORDS.findall(text))
        return max(map(cells, (self.heading, *(part for word in words for part in parts_of(word)))))

    def first_floor(self) -> int:
        """Return the width down to which the column gives way before any other does more: a name stays whole."""
        if self.is_note:
            return min(self.width(), NARROWEST_NOTE_CHARS)
        return self.width() if self.heading in NAME_HEADINGS else self.longest_part()

    def narrowest(self) -> int:
        """Return the smallest useful width: no id and no time is broken."""
        times = [cells(found[0]) for text in self.texts for found in _TIME.finditer(text)]
        least = max(cells(self.heading), NARROWEST_TEXT_CHARS, *times)
        return self.width() if self.is_id else min(self.width(), least)

    def shortened(self) -> TableColumn:
        """Return the column with short ids, if these are ids."""
        return replace(self, texts=short_ids(self.texts)) if self.is_id else self


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout: coloured and fitted to a terminal, or as plain text into a pipe or file."""
    if sys.stdout.isatty():
        for line in table_lines(headings, rows, terminal_width()):
            say_styled(line)
        return
    lines = [list(headings), *([text.replace(GLUE, " ") for text in row] for row in rows)]
    widths = [max(cells(line[index]) for line in lines) for index in range(len(headings))]
    for row in lines:
        say(GAP.join(padded(text, width) for text, width in zip(row, widths, strict=True)).rstrip())


def table_lines(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the lines of a table that is no wider than `width`, with colours, safe for a terminal."""
    texts = [tuple(visible_line(row[index]) for row in rows) for index in range(len(headings))]
    columns = [TableColumn(heading, column) for heading, column in zip(headings, texts, strict=True)]
    columns = [column for column in columns if not (column.is_note and NOTHING.issuperset(column.texts))]
    columns, notes = arranged(columns, width)
    widths = narrowed(columns, width)
    lines = [
        styled(GAP.join(map(padded, (column.heading for column in columns), widths)).rstrip(), bold=True)
    ]
    for index in range(len(rows)):
        lines += row_lines([column.texts[index] for column in columns], widths)
        for note in notes:
            if note.texts[index] not in NOTHING:
                lines += [NOTE_INDENT + line for line in wrapped(note.texts[index], width - len(NOTE_INDENT))]
    return [line.replace(GLUE, " ") for line in lines]


def arranged(columns: list[TableColumn], width: int) -> tuple[list[TableColumn], list[TableColumn]]:
    """Return the columns to show, and those whose texts go below the rows."""
    notes = [column for column in columns if column.is_note]
    short = [column.shortened() for column in columns]
    for tried in (columns, short):
        beside = [column for column in tried if not column.is_note]
        if table_width(map(least_width, tried)) <= width:
            return tried, []
        if table_width(map(least_width, beside)) <= width:
            return beside, notes
    return [column for column in short if not column.is_note], notes


def least_width(column: TableColumn) -> int:
    """Return the width down to which a column gives way before ids are shortened."""
    return min(column.width(), NARROWEST_NOTE_CHARS) if column.is_note else column.width()


def narrowed(columns: Sequence[TableColumn], width: int) -> list[int]:
    """Return widths with which the columns fit: notes give way first, then the widest others.

    Words are broken only where nothing else helps.
    """
    widths = [column.width() for column in columns]
    for floors in (
        [least_width(column) for column in columns],
        [column.first_floor() for column in columns],
        [column.longest_part() for column in columns],
        [column.narrowest() for column in columns],
    ):
        while table_width(widths) > width:
            index = max(range(len(widths)), key=lambda at: (widths[at] > floors[at], widths[at]))
            if widths[index] <= floors[index]:
                break
            widths[index] -= 1
    return widths


def table_width(widths: Iterable[int]) -> int:
    """Return the width of a row whose columns have these widths."""
    listed = list(widths)
    return sum(listed) + len(GAP) * (len(listed) - 1)


def row_lines(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the lines of a row, in the colours of its states."""
    wrapped_texts = [wrapped(text, width) for text, width in zip(texts, widths, strict=True)]
    lines = []
    for parts in zip_longest(*wrapped_texts, fillvalue=""):
        last = max((at for at, part in enumerate(parts) if part), default=0)
        lines.append(
            GAP.join(
                styled(part, fg=STYLES.get(text)) + (" " * (width - cells(part)) if at < last else "")
                for at, (part, text, width) in enumerate(zip(parts, texts, widths, strict=True))
                if at <= last
            )
        )
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most this width, broken between words where possible."""
    if cells(text) <= width:
        return [text]
    lines, line = [], ""
    for word in _WORDS.findall(text):
        if cells(joined := f"{line} {word}" if line else word) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = broken(word, width)
        lines += full
    return [*lines, line]


def broken(word: str, width: int) -> list[str]:
    """Return a word as lines of at most this width: broken between its parts, and within a part that is too long."""
    lines = [""]
    for part in parts_of(word):
        if cells(lines[-1] + part) > width:
            lines.append("")
        while cells(part) > width:
            most = next((count for count in range(width, 1, -1) if cells(part[:count]) <= width), 1)
            lines += [part[:most]]
            part = part[most:]
        lines[-1:] = [lines[-1] + part] if cells(lines[-1] + part) <= width else [lines[-1], part]
    return [line for line in lines if line]


def parts_of(word: str) -> list[str]:
    """Return the parts of a word between which a line may end. A time has only one."""
    return [word] if _TIME.fullmatch(word) else _PARTS.findall(word)


def glued(text: str) -> str:
    """Return a text for a table that stays on one line, like a schedule of five fields."""
    return text.replace(" ", GLUE)


def short_ids(ids: Sequence[str]) -> tuple[str, ...]:
    """Return the beginnings of ids: at least 8 characters, and so many that no two different ids begin alike."""
    sought = set(ids)
    length = SHORTEST_ID_CHARS
    while len({id[:length] for id in sought}) < len(sought):
        length += 1
    return tuple(id[:length] for id in ids)


def padded(text: str, width: int) -> str:
    """Return a text with spaces up to a width."""
    return text + " " * (width - cells(text))


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    # Imported only here, because most texts do not need it.
    from rich.cells import cell_len

    return cell_len(text)
