"""`hearth new`: writes a function and its test into a new folder."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from gateway.cli.common import CallerError, CommandError
from gateway.cli.scaffold.templates import TEMPLATES, ScaffoldError, read_template, write_new
from gateway.cli.terminal import say

EPILOG = "\b\nTemplates:\n" + "\n".join(f"  {name:<11} {what}" for name, what in TEMPLATES.items())


@click.command(epilog=EPILOG)
@click.argument("name")
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    default="python",
    show_default=True,
    help="Kind of function, as listed below.",
)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder to make. [default: one of the function's name]"
)
def new(name: str, template: str, folder: Path | None) -> None:
    """Write a function and its test into a new folder.

    The folder has a functions.yaml of its own. To add a function to a functions.yaml that is there, use hearth init.
    The test calls the function as a gateway would, and needs none: pip install pytest hearth-client

    \b
    Examples:
      hearth new hello
      hearth new resize --template async
      hearth new nightly --template schedule --folder jobs/nightly
    """
    folder = folder or Path(name)
    try:
        made = read_template(template, name)
        written = write_new(folder, made)
    except ScaffoldError as error:
        raise CallerError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    for file in written:
        say(f"wrote {file}")
    say("\nNext:")
    for step in (f"cd {quote(str(folder))}", "pytest", *made.next_steps):
        say(f"  {step}")
