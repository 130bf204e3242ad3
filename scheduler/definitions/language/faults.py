"""Faults of a definitions file, with the place of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SHOWN = 60
"""Characters of a faulty value that a message repeats."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file. Line and column count from 1, in characters."""

    file: Path
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class DefinitionsError(Exception):
    """The definitions file is refused; `faults` are all that is wrong in it, by position."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: (fault.line, fault.column))
        super().__init__("\n".join(str(fault) for fault in self.faults))


def shown(value: object) -> str:
    """A faulty value as a message repeats it: on one line, shortened, text in quotes, in YAML's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 4] + "..." + text[-1]
