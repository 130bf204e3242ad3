"""What the subcommands share: the gateway's address, errors, tables."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from gateway.cli.client import DEFAULT_URL, ClientError, GatewayClient, Refused
from gateway.cli.terminal import say, say_json, show_exception, visible_line

Command = TypeVar("Command", bound=Callable[..., Any])

ENGINE_SCHEMES = ("unix://", "tcp://", "http://", "https://", "npipe://", "ssh://")

STYLES = {
    "ready": "green",
    "ok": "green",
    "idle": "green",
    "frozen": "cyan",
    "prewarmed": "green",
    "busy": "cyan",
    "building": "yellow",
    "adopting": "yellow",
    "starting": "yellow",
    "draining": "yellow",
    "warning": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "skipped": "yellow",
    "cancelled": "magenta",
    "failed": "red",
    "missing": "red",
}
"""Colours of the states that tables show."""


class Failure(click.ClickException):
    """Ends the command with a message on stderr and status 1: the function, the gateway or the engine failed."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        show_exception(self, file)


class Mistake(Failure):
    """As `Failure`, with status 2: the caller has to change something."""

    exit_code = 2


class Gateway:
    """A block in which a gateway is asked; what goes wrong becomes a `Failure`."""

    def __init__(self, url: str, key_file: Path | None = None) -> None:
        try:
            self._client = GatewayClient(url, key=given_key(key_file))
        except ClientError as error:
            raise Mistake(str(error)) from error

    def __enter__(self) -> GatewayClient:
        return self._client

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._client.close()
        if isinstance(error, Refused):
            shown = f"{error}\n  invocation {error.invocation}" if error.invocation else str(error)
            if error.status == 401:
                shown += "\n  here: --key-file FILE, or HEARTH_API_KEY"
            raise (Mistake if error.blame == "caller" else Failure)(shown) from error
        if isinstance(error, ClientError):
            raise Failure(str(error)) from error


def check_engine_address() -> None:
    """Raise `Mistake` if DOCKER_HOST is set and is no address."""
    address = os.environ.get("DOCKER_HOST")
    if address and not address.startswith(ENGINE_SCHEMES):
        raise Mistake(
            f"DOCKER_HOST={address} is not an engine's address; it looks like unix:///var/run/docker.sock"
        )


def gateway_options(command: Command) -> Command:
    """`--url`: which gateway is asked; `--key-file`: with which key. No option takes the key itself."""
    url = click.option(
        "--url",
        envvar="HEARTH_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="Address of the gateway.",
    )
    key_file = click.option(
        "--key-file",
        envvar="HEARTH_API_KEY_FILE",
        show_envvar=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="File with the key to call with; without it HEARTH_API_KEY. (A key on the command line could be "
        "read by everybody on this machine.)",
    )
    return url(key_file(command))


def given_key(file: Path | None) -> str | None:
    """The key to call with: the file's, else that of HEARTH_API_KEY, else none. Raises `Mistake`."""
    if file is None:
        return os.environ.get("HEARTH_API_KEY", "").strip() or None
    try:
        return file.read_text().strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Mistake(f"the key file {file} cannot be read: {why}") from error


def json_option(command: Command) -> Command:
    """`--json`: JSON instead of a table."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


def raw_option(command: Command) -> Command:
    """`--raw`: bytes go to a terminal as they are."""
    return click.option(
        "--raw", is_flag=True, help="Also on a terminal, print control characters (colours, say) as they are."
    )(command)


def print_json(value: object) -> None:
    """JSON for programs, on stdout."""
    say_json(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: in colours and fitted to the terminal, or as plain text where it goes elsewhere."""
    if not sys.stdout.isatty():
        lines = [list(columns), *(list(row) for row in rows)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            say("  ".join(cells).rstrip())
        return
    # Only now: rich takes a tenth of a second to import.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible_line(cell), STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def human_size(size: float) -> str:
    """Bytes as people read them: 128 MiB, 17.7 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def human_seconds(seconds: float) -> str:
    """Seconds as people read them: 0.4s, 12s, 3m20s, 2h05m, 3d04h."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for large, small, names in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= large:
            return f"{whole // large}{names[0]}{whole % large // small:02d}{names[1]}"
    return f"{whole}s"
