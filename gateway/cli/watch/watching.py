"""Looking at something that goes on in a gateway until it has ended, also while the gateway starts again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from gateway.cli.client import ClientError, GatewayClient, Refused
from gateway.cli.common import Failure
from gateway.cli.terminal import say, visible_line

POLL = (0.1, 1.0)
"""Seconds between two looks: first, and at most."""
GATEWAY_PATIENCE = 60.0
"""Seconds for which a gateway may be away, as one is that starts again."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""

Shown = Callable[[dict[str, Any]], AbstractContextManager[Callable[[dict[str, Any]], None]]]
"""Shows how something stands; the block's value shows it again."""


@dataclass(frozen=True)
class Watched:
    """What is looked at: its kind in a word, where it is, and the commands that show, follow and cancel it."""

    kind: str
    place: str
    show: str
    follow: str
    cancel: str


def watch(
    gateway: GatewayClient,
    watched: Watched,
    now: dict[str, Any],
    goes_on: Callable[[dict[str, Any]], bool],
    shown: Shown,
) -> dict[str, Any]:
    """Show how it goes until it has ended; how it stands then. Ctrl-C ends the command, and nothing else.

    `now` is how it stands. Raises `Failure` if the gateway stays away.
    """
    pause, away = POLL[0], 0.0
    try:
        with shown(now) as show:
            while goes_on(now):
                time.sleep(pause)
                pause = min(pause * 1.3, POLL[1])
                try:
                    now, away = gateway.ask("GET", watched.place), 0.0
                except Refused:
                    raise
                except ClientError as error:
                    away += pause
                    if away > GATEWAY_PATIENCE:
                        raise Failure(f"{error}\n  The {watched.kind} is on disk: {watched.show}") from error
                show(now)
    except KeyboardInterrupt:
        say(f"\nThe {watched.kind} goes on. See it:  {watched.follow}", err=True)
        say(f"              Cancel it:  {watched.cancel}", err=True)
        sys.exit(INTERRUPTED)
    return now


def short_line(text: str, longest: int) -> str:
    """Return the first line of a text, with control characters written out, cut to so many characters."""
    line = visible_line(text.strip().partition("\n")[0])
    return line if len(line) <= longest else line[: longest - 1] + "…"
