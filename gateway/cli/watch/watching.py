"""Follows a job or a run in a gateway until it ends, also across a restart of the gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from gateway.cli.client import ClientError, GatewayClient, Refused
from gateway.cli.errors import CommandError
from gateway.cli.interruption import Interrupted
from gateway.cli.terminal import visible_line

FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.1, 1.0
"""Time between two requests for the status. It grows, so that short ones end quickly and long ones cost little."""
GATEWAY_AWAY_SECONDS = 60.0
"""Longest absence of a gateway, which may be restarting. Then the command gives up."""

Shown = Callable[[dict[str, Any]], AbstractContextManager[Callable[[dict[str, Any]], None]]]
"""Shows a status. The value of its block updates it."""


@dataclass(frozen=True)
class Watched:
    """A job or a run that a command follows."""

    kind: str
    """`job` or `run`."""
    place: str
    """Its path in the API."""
    show: str
    """Command that shows it."""
    follow: str
    """Command that follows it."""
    cancel: str
    """Command that cancels it."""


def watch(
    gateway: GatewayClient,
    watched: Watched,
    now: dict[str, Any],
    goes_on: Callable[[dict[str, Any]], bool],
    shown: Shown,
) -> dict[str, Any]:
    """Show the progress of a job or run until it ends, and return its last status. Ctrl-C ends only the command.

    `now` is its present status. Raises `CommandError` if the gateway stays away.
    """
    pause, away = FIRST_POLL_SECONDS, 0.0
    try:
        with shown(now) as show:
            while goes_on(now):
                time.sleep(pause)
                pause = min(pause * 1.3, LONGEST_POLL_SECONDS)
                try:
                    now, away = gateway.ask("GET", watched.place), 0.0
                except Refused:
                    raise
                except ClientError as error:
                    away += pause
                    if away > GATEWAY_AWAY_SECONDS:
                        raise CommandError(
                            f"{error}\n  the {watched.kind} is stored; look again later: {watched.show}"
                        ) from error
                show(now)
    except KeyboardInterrupt:
        raise Interrupted(
            f"The {watched.kind} continues without this command.\n"
            f"  Follow it:  {watched.follow}\n"
            f"  Cancel it:  {watched.cancel}"
        ) from None
    return now


def short_line(text: str, longest: int) -> str:
    """Return the first line of a text, with control characters written out, cut to so many characters."""
    line = visible_line(text.strip().partition("\n")[0])
    return line if len(line) <= longest else line[: longest - 1] + "…"
