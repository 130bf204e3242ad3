"""The house rules for C: small files, short functions, and lines that fit beside each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[3] / "runtimes" / "init").glob("*.[ch]"))
MOST_LINES, MOST_COLUMNS, MOST_FUNCTION_LINES = 400, 118, 60
FUNCTION = re.compile(r"^\w[^;{]*\)\n\{\n.*?^\}$", re.M | re.S)


@pytest.mark.parametrize("source", SOURCES, ids=[path.name for path in SOURCES])
def test_files_functions_and_lines_are_short(source: Path) -> None:
    text = source.read_text()
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES
    assert [number for number, line in enumerate(lines, 1) if len(line) > MOST_COLUMNS] == []
    functions = [found.group() for found in FUNCTION.finditer(text)]
    assert [one.splitlines()[0] for one in functions if one.count("\n") + 1 > MOST_FUNCTION_LINES] == []


@pytest.mark.parametrize("source", SOURCES, ids=[path.name for path in SOURCES])
def test_each_file_begins_with_what_it_is(source: Path) -> None:
    assert source.read_text().startswith("/*")
