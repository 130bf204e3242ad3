"""Faults of a definitions file, each with its position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_SHOWN_CHARACTERS = 60
"""Longest part of a faulty value that a message repeats, so that it stays on one line."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One error in a file. Line and column count from 1, in characters."""

    file: Path
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class DefinitionsError(Exception):
    """A definitions file is refused; `faults` are all its errors, ordered by position."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: (fault.line, fault.column))
        super().__init__("\n".join(str(fault) for fault in self.faults))


def shown(value: object) -> str:
    """Return a faulty value for a message: on one line, shortened, text in quotes, in YAML's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 4] + "..." + text[-1]
