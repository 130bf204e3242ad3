"""Everything that the `hearth` command prints is a snapshot that somebody has read, at 80 and at 120 columns.

`python -m tests.support.snapshots` writes the snapshots anew. See docs/testing.md.
"""

from __future__ import annotations

import re

import click
import pytest

from gateway.cli import main
from gateway.cli.tables import cells
from tests.support.snapshots import FOLDER, SCENES, WIDTHS, file_of, names, snapshot, subcommands

COPIED = re.compile(
    r"Try:  |\$ hearth | +(.*: +)?(hearth|docker|curl) |    set -l |\d\d:\d\d:\d\d |[{]\W|\S+$"
)
"""Matches the beginning of a line that may be wider: a command, a script, a log line, JSON, or one word."""
WITHOUT_JSON = {
    "serve": "runs until it is stopped",
    "invoke": "prints what the function answers",
    "graph": "prints a picture",
    "init": "writes files",
    "new": "writes files",
    "shell": "shows a terminal",
    "completion": "prints a script",
    "setup": "changes this machine",
    "dev": "runs until it is stopped",
    "keys create": "prints the key alone",
    "keys revoke": "changes one key",
}
"""Commands that list nothing, and why nobody needs JSON of them. All others take --json."""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", names())
def test_what_a_command_prints_is_its_snapshot(name: str, width: int) -> None:
    kept = file_of(name, width)
    assert kept.exists(), "write it: python -m tests.support.snapshots"
    assert snapshot(name, width) == kept.read_text(), (
        "renew it, and read it: python -m tests.support.snapshots"
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", names())
def test_no_line_of_a_snapshot_is_wider_than_the_terminal(name: str, width: int) -> None:
    lines = file_of(name, width).read_text().splitlines()
    assert [line for line in lines if cells(line) > width and not COPIED.match(line)] == []
    assert not any("\x1b" in line or "Traceback (most" in line for line in lines)


def test_every_command_has_a_scene() -> None:
    shown = [scene.words for scene in SCENES]
    missing = [
        " ".join(words)
        for words, command in subcommands(main)
        if not isinstance(command, click.Group)
        and not any(tuple(scene[: len(words)]) == words for scene in shown)
        # A group without a word is its list.
        and not (words[-1] == "list" and any(scene[0] == words[0] for scene in shown))
    ]
    assert missing == [], "add a scene of it to tests/support/cli_scenes"


def test_every_command_that_lists_takes_json() -> None:
    lists = {
        " ".join(words): any("--json" in parameter.opts for parameter in command.params)
        for words, command in subcommands(main)
        if not isinstance(command, click.Group)
    }
    without = {words for words, has_json in lists.items() if not has_json}
    assert without == set(WITHOUT_JSON), "add --json, or say above why it lists nothing"


def test_no_snapshot_is_left_of_a_command_that_is_gone() -> None:
    kept = {file.relative_to(FOLDER) for file in FOLDER.rglob("*") if file.is_file()}
    assert kept == {file_of(name, width).relative_to(FOLDER) for name in names() for width in WIDTHS}
