"""Snapshots of everything that the `hearth` command prints, on a terminal of 80 and of 120 columns.

Run as a program, it writes them anew: `python -m tests.support.snapshots`. Then read what has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from gateway.cli import COMMANDS, main
from tests.support.cli_scenes import (
    asking_scenes,
    calls_scenes,
    developing_scenes,
    serving_scenes,
    top_scenes,
)
from tests.support.cli_scenes.stage import Scene, shown

FOLDER = Path(__file__).parents[1] / "snapshots"
WIDTHS = (80, 120)
MAIN = "hearth"
"""Name of the snapshot of the command itself, without a subcommand."""
SCENES = [
    *serving_scenes.SCENES,
    *developing_scenes.SCENES,
    *asking_scenes.SCENES,
    *calls_scenes.SCENES,
    *top_scenes.SCENES,
]


def subcommands(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the words of each command below a group, and the command: groups too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from subcommands(command, *words, name)


def names() -> list[str]:
    """Return the names of all snapshots: one for each subcommand, and one for the command itself."""
    return [MAIN, *COMMANDS]


def scenes_of(name: str) -> list[Scene]:
    """Return the scenes of a snapshot: the help of the command and of those below it, then what it prints."""
    if name == MAIN:
        return [Scene("--help"), Scene("--version"), Scene("serv", note="a misspelt command")]
    below = [words for words, _ in subcommands(main) if words[0] == name]
    helps = [Scene(f"{' '.join(words)} --help") for words in below]
    return [*helps, *(scene for scene in SCENES if scene.words[0] == name)]


def snapshot(name: str, width: int) -> str:
    """Return a snapshot as it must be now."""
    return "\n".join(shown(scene, width) for scene in scenes_of(name))


def file_of(name: str, width: int) -> Path:
    """Return where a snapshot is kept."""
    return FOLDER / str(width) / f"{name}.txt"


def renew() -> None:
    """Write all snapshots anew, and remove those of commands that are gone."""
    for width in WIDTHS:
        (FOLDER / str(width)).mkdir(parents=True, exist_ok=True)
        for name in names():
            file_of(name, width).write_text(snapshot(name, width))
        for file in (FOLDER / str(width)).glob("*.txt"):
            if file.stem not in names():
                file.unlink()


if __name__ == "__main__":
    renew()
