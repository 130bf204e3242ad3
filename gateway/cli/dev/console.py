"""The stream that `hearth dev` prints: calls, output, reloads and faults, in the order in which they happen."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.terminal import say_styled, styled, visible, visible_line
from scheduler.deploy.declared import Declared

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

PREFIX = "/invoke/"
PROBLEM = b"application/problem+json"
MOST_PROBLEM_BYTES = 64 * 1024
BAR = "  | "
"""Begins each line that the function has printed."""
CHANGED = "hearth.watch"
"""Logger that tells of changed files."""
STOPPING = "hearth.stop"
"""Logger that tells what the gateway still does when it ends."""


@dataclass(slots=True)
class CallSeen:
    """A call, as far as its answer has been sent."""

    status: int = 0
    start: str = ""
    is_problem: bool = False
    body: bytes = b""


class DevConsole(logging.Handler):
    """Prints what happens. It is also the handler of the gateway's log."""

    def __init__(self, source: Path | None, plain: bool) -> None:
        super().__init__(logging.INFO)
        self._plain = plain
        self._code = re.compile(r'File "(?:/function|/[^"]*/processes/code/[0-9a-f]{12})/')
        self._source = f'File "{source}/' if source is not None else None
        self._half: dict[str, bytes] = {}
        """Half a line by instance: its end has not been printed yet."""
        self._changed_at = 0.0
        self._serves = ""
        """Version that serves now."""

    # -- calls -----------------------------------------------------------------------------------------------

    def watch_calls(self, app: App) -> App:
        """Return the app, with a line for each call when it has ended."""

        async def watched(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
                await app(scope, receive, send)
                return
            seen, began = CallSeen(), time.perf_counter()

            async def noting(message: Message) -> None:
                note(seen, message)
                await send(message)

            try:
                await app(scope, receive, noting)
            finally:
                self._call_ended(scope, seen, time.perf_counter() - began)

        return watched

    def _call_ended(self, scope: MutableMapping[str, Any], seen: CallSeen, seconds: float) -> None:
        for instance in list(self._half):
            self.output(instance, b"\n")
        query = scope["query_string"].decode("latin-1")
        target = scope["path"] + (f"?{query}" if query else "")
        status = str(seen.status or "gone")
        colour = (
            "red" if not seen.status or seen.status >= 500 else "yellow" if seen.status >= 400 else "green"
        )
        parts = [
            visible_line(f"{scope['method']} {target}"),
            styled(status, fg=colour, bold=True),
            milliseconds(seconds),
            seen.start,
        ]
        self.line("  ".join(part for part in parts if part))
        if seen.is_problem and (detail := detail_of(seen.body)):
            self.line(styled(visible_line(detail), fg=colour))

    # -- what the function prints ----------------------------------------------------------------------------

    def output(self, instance: str, data: bytes) -> None:
        """Print the whole lines of what an instance has printed."""
        data = self._half.pop(instance, b"") + data
        *lines, half = data.split(b"\n")
        if half:
            self._half[instance] = half
        for line in lines:
            text = line.decode(errors="replace")
            if self._source is not None:
                text = self._code.sub(lambda _: str(self._source), text)
            print_line(styled(BAR, fg="bright_black") + visible(text.rstrip("\r")))

    # -- reloads and faults ----------------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning or an error of the gateway, and note when files have changed."""
        if record.name == CHANGED and record.levelno == logging.INFO:
            self._changed_at = time.perf_counter()
        elif record.name == STOPPING:
            self.line(visible_line(record.getMessage()))
        elif record.levelno >= logging.WARNING and not record.name.startswith("hearth.invoke"):
            colour = "red" if record.levelno >= logging.ERROR or hasattr(record, "printed") else "yellow"
            self.line(styled(visible_line(record.getMessage()), fg=colour))
            if record.exc_info:
                print_line(visible(logging.Formatter().formatException(record.exc_info)))

    def settled(self, declared: Declared) -> None:
        """Note which version serves, and print that it is another one."""
        if declared.fault is not None or declared.version is None or declared.version == self._serves:
            return  # the log tells of faults
        first, self._serves = not self._serves, declared.version
        if first:
            return
        took = milliseconds(time.perf_counter() - self._changed_at)
        self.line(styled(f"{declared.definition.name} reloaded in {took}", fg="cyan"))
        if self._plain:
            self.warn_plain()

    def warn_plain(self) -> None:
        """Say that there is no isolation."""
        text = "NO CONTAINER: code runs as your user, without isolation or limits."
        self.line(styled(text, fg="yellow", bold=True))

    def line(self, text: str) -> None:
        """Print a line with the time. The text must be safe for a terminal."""
        print_line(f"{styled(time.strftime('%H:%M:%S'), fg='bright_black')} {text}")


def print_line(text: str) -> None:
    """Print a line. It is lost if the terminal was closed: then the gateway still has to clear up."""
    with contextlib.suppress(OSError, ValueError):
        say_styled(text)


def note(seen: CallSeen, message: Message) -> None:
    """Note what is sent of an answer."""
    if message["type"] == "http.response.start":
        headers = dict(message.get("headers", ()))
        seen.status = message["status"]
        seen.start = headers.get(b"x-hearth-start", b"").decode("latin-1")
        seen.is_problem = headers.get(b"content-type", b"").startswith(PROBLEM)
    elif seen.is_problem and len(seen.body) < MOST_PROBLEM_BYTES:
        seen.body += bytes(message.get("body", b""))


def detail_of(problem: bytes) -> str:
    """Return the detail of a problem, or an empty text."""
    try:
        return str(json.loads(problem)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def milliseconds(seconds: float) -> str:
    """Return a time for people, like 4.2 ms or 350 ms."""
    value = 1000 * seconds
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"
