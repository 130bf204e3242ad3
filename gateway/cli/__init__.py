"""The `hearth` command. A subcommand's module is imported only when it is used, so that each starts fast."""

from __future__ import annotations

import importlib

import click
from click.shell_completion import CompletionItem

from gateway.cli.groups import SuggestingGroup
from gateway.cli.interruption import Interrupted
from pool import __version__

COMMANDS = {
    "setup": "serving.setup",
    "serve": "serving.serve",
    "invoke": "calling.invoke",
    "result": "calling.accepted",
    "run": "calling.run",
    "jobs": "managing.jobs",
    "workflows": "managing.workflows",
    "start": "managing.workflows",
    "runs": "managing.workflows",
    "resume": "managing.workflows",
    "graph": "managing.workflows",
    "functions": "watching.listings",
    "ps": "watching.listings",
    "top": "watching.top",
    "calls": "watching.calls",
    "logs": "watching.logs",
    "triggers": "managing.triggers",
    "sources": "managing.triggers",
    "emit": "managing.triggers",
    "dead-letters": "managing.dead_letters",
    "init": "developing.init",
    "completion": "developing.completion",
    "new": "developing.new",
    "dev": "developing.dev",
    "shell": "developing.shell",
    "keys": "managing.keys",
    "prune": "serving.prune",
    "doctor": "serving.doctor",
}
"""Room and module in `gateway/cli/commands/` of each subcommand, in the order of the help."""


SECTIONS = {
    "serving": "Set up and serve",
    "developing": "Write functions",
    "calling": "Call and run",
    "watching": "See what happens",
    "managing": "Jobs, workflows, triggers, keys",
}
"""Heading in the help for the commands of each room."""


class Commands(SuggestingGroup):
    """All subcommands. It imports one when it is asked for, and ends any without a traceback after Ctrl-C."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a subcommand, or None if there is none of this name."""
        if name not in COMMANDS:
            return None
        command = getattr(
            importlib.import_module(f"gateway.cli.commands.{COMMANDS[name]}"), name.replace("-", "_")
        )
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand that the arguments name. Raises `Interrupted` after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            raise Interrupted("Stopped.") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help, under the headings of their rooms."""
        widest = max(map(len, COMMANDS))
        for room, heading in SECTIONS.items():
            names = [name for name, place in COMMANDS.items() if place.startswith(f"{room}.")]
            commands = [(name, self.get_command(ctx, name)) for name in names]
            limit = formatter.width - 6 - widest
            with formatter.section(heading):
                formatter.write_dl(
                    [(name.ljust(widest), one.get_short_help_str(limit)) for name, one in commands if one]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the subcommands that begin like this, without help: to import them all would take seconds."""
        names = [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hearth")
def main() -> None:
    """Hearth runs functions in containers and keeps them warm.

    \b
    Begin with:
      hearth setup           bring an engine and images
      hearth init hello      write a first function
      hearth serve           serve the functions of functions.yaml
      hearth invoke hello --data '{"name":"Ada"}'
    """
