"""Ctrl-C ends a command with a message and status 130, and never with a traceback."""

from __future__ import annotations

from typing import IO, Any

import click

from gateway.cli.terminal import say

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of SIGINT, as in shells."""


class Interrupted(click.ClickException):
    """Ends the command after Ctrl-C. The message says what goes on without the command."""

    exit_code = INTERRUPTED

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message on stderr, below the terminal's own `^C`."""
        say(f"\n{self.format_message()}", err=True)
