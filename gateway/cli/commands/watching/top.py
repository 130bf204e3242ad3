"""`hearth top`: the load of each function, live."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from gateway.cli.client import ClientError, GatewayClient, Refused
from gateway.cli.common import Gateway, gateway_options, json_option, print_json
from gateway.cli.interruption import Interrupted
from gateway.cli.tables import print_table, table_lines
from gateway.cli.terminal import say, styled, terminal_width
from gateway.cli.watch.load_table import HEADINGS, SORT_KEYS, FunctionLoad, LoadSample, loads, sample, summary

FRAME_LINES = 6
"""Lines of the screen beside the rows: two of sums, an empty one, the headings, how many are left out, how to end."""
FEWEST_ROWS = 3
EMPTY = "No function yet. Write one: hearth init NAME"


@click.command()
@gateway_options
@json_option
@click.option(
    "--sort",
    type=click.Choice(list(SORT_KEYS)),
    default="calls",
    show_default=True,
    metavar="KEY",
    help=f"Order of the functions: {', '.join(SORT_KEYS)}.",
)
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, metavar="SECONDS",
    help="Time between two looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Print the load of one interval, and end.")
def top(url: str, key_file: Path | None, as_json: bool, sort: str, interval: float, once: bool) -> None:
    """Show the load of each function, live.

    CALLS/S and ERR/S count since the last look. P50 and P99 are the times of the calls of the latest 10 s: 50 % and
    99 % took no longer. WARM, BUSY and START count instances, and QUEUE the calls that wait. Without a terminal a
    table is printed at each look.

    \b
    Examples:
      hearth top
      hearth top --sort p99
      hearth top --once --json | jq '.[] | select(.errors > 0)'
    """
    with Gateway(url, key_file) as gateway:
        before = sample(gateway, time.monotonic())
        if once or as_json:
            time.sleep(interval)
            now = sample(gateway, time.monotonic())
            show_once(loads(before, now, sort), now, as_json)
            return
        try:
            with screen() as show:
                watch(gateway, before, sort, interval, show)
        except KeyboardInterrupt:
            raise Interrupted("No longer watching; the functions go on.") from None


def show_once(found: list[FunctionLoad], now: LoadSample, as_json: bool) -> None:
    """Print the load of one interval."""
    if as_json:
        print_json([asdict(load) for load in found])
        return
    say("; ".join(summary(found, now)), err=True)
    if found:
        print_table(HEADINGS, [load.row for load in found])
    else:
        say(EMPTY, err=True)


def watch(
    gateway: GatewayClient,
    before: LoadSample,
    sort: str,
    interval: float,
    show: Callable[[list[FunctionLoad], LoadSample | None], None],
) -> None:
    """Show the load again and again, also across a restart of the gateway. Raises `Refused`."""
    while True:
        time.sleep(interval)
        try:
            now = sample(gateway, time.monotonic())
        except Refused:
            raise
        except ClientError:
            show([], None)
            continue
        show(loads(before, now, sort), now)
        before = now


@contextmanager
def screen() -> Iterator[Callable[[list[FunctionLoad], LoadSample | None], None]]:
    """Give a function that shows a load: on a screen of its own on a terminal, else as one table after the other."""
    if not sys.stdout.isatty():

        def print_all(found: list[FunctionLoad], now: LoadSample | None) -> None:
            if now is None:
                say("The gateway has gone away; waiting for it.", err=True)
                return
            say(f"{moment()}  {'; '.join(summary(found, now))}")
            print_table(HEADINGS, [load.row for load in found])
            say()

        yield print_all
        return
    # Imported only here, because rich takes a tenth of a second to import.
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def text(found: list[FunctionLoad], now: LoadSample | None) -> Text:
        size = shutil.get_terminal_size()
        return Text.from_ansi("\n".join(frame(found, now, terminal_width(), size.lines)))

    with Live(Text("Looking …"), console=Console(), screen=True, auto_refresh=False) as live:
        yield lambda found, now: live.update(text(found, now), refresh=True)


def frame(found: list[FunctionLoad], now: LoadSample | None, width: int, height: int) -> list[str]:
    """Return the lines of a screen."""
    if now is None:
        return [f"{moment()}  The gateway has gone away; waiting for it. Ctrl-C ends this."]
    sums, memory = summary(found, now)
    lines = [styled(f"{moment()}  {sums}"[:width], bold=True), memory[:width], ""]
    if not found:
        return [*lines, EMPTY]
    rows = max(FEWEST_ROWS, height - FRAME_LINES)
    table = table_lines(HEADINGS, [load.row for load in found[:rows]], width)
    shown = table[: max(FEWEST_ROWS + 1, height - FRAME_LINES + 1)]
    left = len(found) - rows
    more = [f"… and {left} more functions"] if left > 0 else [""]
    return [*lines, *shown, *more, styled("Ctrl-C ends this.", fg="bright_black")]


def moment() -> str:
    """Return the time of day with its zone."""
    return datetime.now().astimezone().strftime("%H:%M:%S %Z")
