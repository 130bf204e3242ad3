"""Progress of a workflow's run: a live table of its steps on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from gateway.cli.client import GatewayClient
from gateway.cli.human import human_seconds
from gateway.cli.tables import print_table, table_lines
from gateway.cli.terminal import say, terminal_width, visible_line
from gateway.cli.watch.watching import Watched, short_line, watch

COLUMNS = ("STEP", "FUNCTION", "STATUS", "ITEMS", "ATTEMPTS", "TOOK", "DETAIL")
MAX_DETAIL_CHARS = 240
"""Most characters of a fault in the table: three lines of a narrow terminal."""


def follow(gateway: GatewayClient, id: str) -> dict[str, Any]:
    """Show the progress of a run until it ends, and return it. Ctrl-C ends the command, and not the run."""
    watched = Watched(
        kind="run",
        place=f"/runs/{quote(id, safe='')}",
        show=f"hearth runs {id}",
        follow=f"hearth runs --follow {id}",
        cancel=f"hearth runs --cancel {id}",
    )
    run = gateway.ask("GET", watched.place)
    return watch(gateway, watched, run, lambda run: run["status"] == "running", shown)


@contextmanager
def shown(run: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show a run on stderr, and give the function that updates it."""
    if not sys.stderr.isatty():
        known: dict[str, str] = {}

        def tell(run: dict[str, Any]) -> None:
            for step in run["steps"]:
                words = f"{step['name']}: {step['status']} {items_of(step)}".rstrip()
                if step["status"] != "pending" and known.get(step["name"]) != words:
                    known[step["name"]] = words
                    say(words, err=True)

        say(f"run {run['id']} of {run['workflow']}", err=True)
        tell(run)
        yield tell
        return
    # Imported only here, because rich takes a tenth of a second to import.
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def drawn(run: dict[str, Any]) -> Text:
        title = visible_line(f"run {run['id'][:8]} of {run['workflow']}: {run['status']}")
        return Text.from_ansi("\n".join([title, *table_lines(COLUMNS, rows_of(run), terminal_width())]))

    with Live(drawn(run), console=Console(stderr=True), redirect_stdout=False, transient=True) as live:
        yield lambda run: live.update(drawn(run))


def rows_of(run: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row of the table for each step of a run."""
    return [
        (
            step["name"],
            step["function"],
            step["status"],
            items_of(step) or "-",
            str(step["attempts"]),
            took(step),
            detail_of(step),
        )
        for step in run["steps"]
    ]


def items_of(step: dict[str, Any]) -> str:
    """Return how many of a step's items have ended, as `3/6`, or an empty text for a step without items."""
    counts = step["items"]
    return f"{counts['succeeded'] + counts['failed']}/{sum(counts.values())}" if counts else ""


def took(timed: dict[str, Any]) -> str:
    """Return the duration of a step or a run, until now if it has not ended, or `-` if it has not started."""
    if not timed["started"]:
        return "-"
    begin = datetime.fromisoformat(timed["started"])
    end = datetime.fromisoformat(timed["ended"]) if timed["ended"] else datetime.now(UTC)
    return human_seconds(max(0.0, (end - begin).total_seconds()))


def detail_of(step: dict[str, Any]) -> str:
    """Return the cause of a step's failure on one short line."""
    text = step["detail"] or step["error"] or ""
    return short_line(text, MAX_DETAIL_CHARS)


def show_end(run: dict[str, Any]) -> None:
    """Print the steps of a run and its status."""
    print_table(COLUMNS, rows_of(run))
    say_end(run)


def say_end(run: dict[str, Any]) -> None:
    """Print the status of a run, and the next step if it failed, on stderr."""
    why = f": {run['detail']}" if run["detail"] else ""
    say(f"run {run['id']} {run['status']} ({took(run)}){why}", err=True)
    if run["status"] in ("failed", "cancelled"):
        say(f"  continue from there: hearth resume {run['id']}", err=True)
