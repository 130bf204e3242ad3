"""`hearth init`: writes a first function."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import cast

import click

from gateway.cli.commands.developing.pick_up import RunningGateway
from gateway.cli.common import CallerError, CommandError, gateway_options
from gateway.cli.scaffold.declare import Kind, create
from gateway.cli.scaffold.templates import ScaffoldError
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
@gateway_options
def init(name: str, kind: str, folder: Path, url: str, key_file: Path | None) -> None:
    """Write a first function and declare it.

    NAME is the function's name (default: hello). The command adds it to functions.yaml, whose comments and formatting
    stay. No file is overwritten. If a gateway runs that serves this file, it picks the function up.

    \b
    Examples:
      hearth init
      hearth init resize
      hearth init shop --kind http --dir ~/shop
    """
    try:
        running = RunningGateway.found(url, key_file)
        folder.mkdir(parents=True, exist_ok=True)
        written, steps = create(folder, name, cast(Kind, kind))
    except ScaffoldError as error:
        raise CallerError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    for file in written:
        say(f"wrote {file}")
    say()
    if running is not None and say_picked_up(running, name):
        steps.remove("hearth serve")
    elif folder.resolve() != Path.cwd():
        steps.insert(0, f"cd {quote(str(folder))}")
    say("Next:")
    for step in steps:
        say(f"  {step}")


def say_picked_up(gateway: RunningGateway, name: str) -> bool:
    """Print whether a running gateway serves the new function, and return it."""
    function = gateway.picked_up(name)
    if function is None:
        say(
            f"The gateway at {gateway.url} serves another file. Stop it, or serve this one with --port PORT.\n"
        )
        return False
    if function["state"] == "failed":
        say(
            f"The gateway at {gateway.url} has picked it up, but cannot set it up yet:\n  {function['fault']}\n"
        )
    else:
        say(f"The gateway at {gateway.url} has picked it up; it is {function['state']}.\n")
    return True
