"""Calls of the record as people read them: rows of a table, lines as they end, and one call in full."""

from __future__ import annotations

import sys
from typing import Any

from gateway.cli.human import human_time
from gateway.cli.tables import NOTE_INDENT, cells, padded, wrapped
from gateway.cli.terminal import say, say_styled, styled, terminal_width, visible_line

HEADINGS = ("ID", "TIME", "FUNCTION", "STATUS", "START", "TOOK", "ERROR")
SHORT_ID_CHARS = 8
FUNCTION_CHARS = 16
"""Width of a function's name in lines that come one by one. A longer name moves the rest of its line."""
BAR_CHARS = 40
"""Width of the picture of a call's phases."""
PHASES = ("queue", "start", "exec")
SECONDS_BY_PHASE = {"queue": "queue", "start": "start_seconds", "exec": "exec"}


def row_of(call: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table for a call."""
    return (
        call["id"],
        human_time(call["at"]),
        call["function"] or "-",
        status_of(call),
        call["start"] or "-",
        took(call["total"]),
        error_of(call) or "-",
    )


def status_of(call: dict[str, Any]) -> str:
    """Return the HTTP status of a call, or what stands in its place."""
    if call["running"]:
        return "running"
    return str(call["status"] or "-")


def error_of(call: dict[str, Any]) -> str:
    """Return the failure of a call on one line, or an empty text."""
    error = call["error"]
    if error is None:
        return ""
    detail = " ".join(error["detail"].split())
    return f"{error['slug']}: {detail}" if detail else str(error["slug"])


def took(seconds: float) -> str:
    """Return the time of a call: `0.41ms`, `12ms`, `1.84s` or `62s`. Without a space no table breaks it."""
    if seconds < 0.01:
        return f"{1000 * seconds:.2f}ms"
    if seconds < 1:
        return f"{1000 * seconds:.0f}ms"
    return f"{seconds:.2f}s" if seconds < 10 else f"{seconds:.0f}s"


class CallLines:
    """Prints calls as they end: a line for each on a terminal, with its failure below; whole lines into a pipe."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._first = True

    def show(self, call: dict[str, Any]) -> None:
        """Print one call."""
        if self._first:
            self._first = False
            self._print(HEADINGS[:-1] if self._terminal else HEADINGS, bold=True)
        id, time, function, status, start, spent, error = row_of(call)
        if not self._terminal:
            say("  ".join((id, time, function, status, start, spent, error)))
            return
        self._print((id[:SHORT_ID_CHARS], time, function, status, start, spent), failed=call["error"])
        if call["error"] is not None:
            for line in wrapped(visible_line(error), terminal_width() - len(NOTE_INDENT)):
                say_styled(styled(NOTE_INDENT + line, fg="red"))

    def _print(self, texts: tuple[str, ...], bold: bool = False, failed: object = None) -> None:
        id, time, function, status, start, spent, *error = map(visible_line, texts)
        if not self._terminal:
            say("  ".join(texts))
            return
        zone = cells(human_time("2026-01-01T00:00:00+00:00"))
        shown = [padded(id, SHORT_ID_CHARS), padded(time, zone), padded(function, FUNCTION_CHARS)]
        state = styled(padded(status, 7), fg="red" if failed else None)
        line = "  ".join([*shown, state, padded(start, 9), spent, *error])
        say_styled(styled(line, bold=True) if bold else line)


def print_call(call: dict[str, Any]) -> None:
    """Print one call in full, with a picture of its phases and the next step."""
    lines = [("function", f"{call['function'] or '-'}, revision {(call['revision'] or '-')[:12]}")]
    kind = call["kind"] if call["owner"] is None else f"{call['kind']} of {call['owner']}"
    attempt = f", run {call['attempt']}" if call["attempt"] is not None else ""
    lines.append(("kind", kind + attempt))
    if call["key"] is not None:
        lines.append(("key", call["key"]))
    lines.append(("arrived", human_time(call["at"])))
    lines.append(("status", status_of(call)))
    if call["error"] is not None:
        lines.append(("error", f"{call['error']['title']} (blame: {call['blame']})"))
        lines.append(("", call["error"]["detail"]))
    if call["start"] is not None:
        reason = f": {call['cold_reason']}" if call["cold_reason"] else ""
        lines.append(("start", call["start"] + reason))
    say_styled(styled(f"call {call['id']}", bold=True)) if sys.stdout.isatty() else say(f"call {call['id']}")
    width = terminal_width() if sys.stdout.isatty() else sys.maxsize
    for name, text in lines:
        for at, line in enumerate(wrapped(visible_line(text), width - 12)):
            if text:
                say(f"  {name if at == 0 else '':<8}  {line}")
    say()
    for line in picture(call):
        say(f"  {line}")
    say()
    say(f"  its output: hearth logs {call['id']}")


def picture(call: dict[str, Any]) -> list[str]:
    """Return a line for each phase of a call, each with a bar at its place in the whole time."""
    total = max(call["total"], sum(call[name] for name in SECONDS_BY_PHASE.values()), 1e-9)
    mark = "█" if (sys.stdout.encoding or "ascii").lower().startswith("utf") else "="
    lines, before = [], 0.0
    for phase in PHASES:
        seconds = call[SECONDS_BY_PHASE[phase]]
        begin = round(BAR_CHARS * before / total)
        before += seconds
        length = max(1 if seconds else 0, round(BAR_CHARS * before / total) - begin)
        bar = (" " * min(begin, BAR_CHARS - length) + mark * length).ljust(BAR_CHARS)
        lines.append(f"{phase:<5}  {took(seconds):>7}  |{bar}|")
    return [*lines, f"{'total':<5}  {took(call['total']):>7}"]
