"""The `hearth` command. Each subcommand is a module, imported when it is used: `hearth invoke` starts fast."""

from __future__ import annotations

import importlib

import click

from pool import __version__

COMMANDS = {
    "serve": "serve",
    "invoke": "invoke",
    "run": "run",
    "jobs": "jobs",
    "workflows": "workflows",
    "start": "workflows",
    "runs": "workflows",
    "resume": "workflows",
    "graph": "workflows",
    "functions": "listings",
    "ps": "listings",
    "logs": "listings",
    "triggers": "triggers",
    "sources": "triggers",
    "emit": "triggers",
    "init": "init",
    "keys": "keys",
    "prune": "prune",
    "doctor": "doctor",
}
"""Subcommand to its module, in the order of the help."""


class Commands(click.Group):
    """Finds a subcommand in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """One of them; None if there is no such."""
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"gateway.cli.commands.{COMMANDS[name]}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hearth")
def main() -> None:
    """Hearth runs functions in containers and keeps them warm.

    \b
    Begin with:
      hearth doctor          what works on this machine, and what is missing
      hearth init hello      write a function to start from
      hearth serve           serve the functions of functions.yaml
      hearth invoke hello --data '{"name":"Ada"}'
    """
