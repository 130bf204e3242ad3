"""The `hearth` command. A subcommand's module is imported only when it is used, so that each starts fast."""

from __future__ import annotations

import importlib

import click

from pool import __version__

COMMANDS = {
    "serve": "serving.serve",
    "invoke": "calling.invoke",
    "run": "calling.run",
    "jobs": "managing.jobs",
    "workflows": "managing.workflows",
    "start": "managing.workflows",
    "runs": "managing.workflows",
    "resume": "managing.workflows",
    "graph": "managing.workflows",
    "functions": "watching.listings",
    "ps": "watching.listings",
    "logs": "watching.listings",
    "triggers": "managing.triggers",
    "sources": "managing.triggers",
    "emit": "managing.triggers",
    "init": "developing.init",
    "keys": "managing.keys",
    "prune": "serving.prune",
    "doctor": "serving.doctor",
}
"""Room and module in `gateway/cli/commands/` of each subcommand, in the order of the help."""


class Commands(click.Group):
    """A group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a subcommand, or None if there is none of this name."""
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
      hearth doctor          check this machine
      hearth init hello      write a first function
      hearth serve           serve the functions of functions.yaml
      hearth invoke hello --data '{"name":"Ada"}'
    """
