"""`hearth init`: a function to start from."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from gateway.cli.common import Failure, Mistake
from gateway.cli.scaffold import Kind, ScaffoldError, create
from gateway.cli.terminal import say


@click.command()
@click.argument("name", default="hello")
@click.option(
    "--kind",
    type=click.Choice(["handler", "http", "command"]),
    default="handler",
    show_default=True,
    help="A Python function, an image that serves HTTP, or a command that is run once for each call.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Where functions.yaml is, or is to be.",
)
def init(name: str, kind: str, folder: Path) -> None:
    """Write a function to start from, and add NAME (default: hello) to functions.yaml.

    Nothing is overwritten; comments and formatting of an existing functions.yaml stay.

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
        raise Mistake(str(error)) from error
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from error
    for file in written:
        say(f"wrote {file}")
    say("\nNext:")
    if folder.resolve() != Path.cwd():
        say(f"  cd {folder}")
    for step in steps:
        say(f"  {step}")
