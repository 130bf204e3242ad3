"""`hearth init`: writes a first function."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from gateway.cli.common import CallerError, CommandError
from gateway.cli.scaffold import Kind, ScaffoldError, create
from gateway.cli.terminal import say


@click.command()
@click.argument("name", default="hello")
@click.option(
    "--kind",
    type=click.Choice(["handler", "http", "command"]),
    default="handler",
    show_default=True,
    help="A Python function, an image that serves HTTP, or a command that runs once for each call.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Folder of functions.yaml. It need not exist.",
)
def init(name: str, kind: str, folder: Path) -> None:
    """Write a first function and declare it.

    NAME is the function's name (default: hello). The command adds it to functions.yaml, whose comments and formatting
    stay. No file is overwritten.

    \b
    Examples:
      hearth init
      hearth init resize
      hearth init shop --kind http --dir ~/shop
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written, steps = create(folder, name, cast(Kind, kind))
    except ScaffoldError as error:
        raise CallerError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    for file in written:
        say(f"wrote {file}")
    say("\nNext:")
    if folder.resolve() != Path.cwd():
        say(f"  cd {folder}")
    for step in steps:
        say(f"  {step}")
