"""Errors that end a command. Commands that ask no gateway import them without its client."""

from __future__ import annotations

from typing import IO, Any

import click

from gateway.cli.terminal import show_exception
from pool.engine.access.address import BadAddress, engine_address
from pool.engine.access.tls import client_tls


class CommandError(click.ClickException):
    """Ends the command with a message on stderr and status 1: the function, the gateway or the engine failed."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        show_exception(self, file)


class CallerError(CommandError):
    """Ends the command with a message on stderr and status 2: the caller has to change something."""

    exit_code = 2


def check_engine_address() -> None:
    """Raise `CallerError` if the engine's address cannot be used, or the certificates for TLS cannot."""
    try:
        client_tls(engine_address())
    except BadAddress as error:
        raise CallerError(str(error)) from error
