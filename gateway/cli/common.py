"""Parts that subcommands share which ask a gateway: its options, its errors, lists."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx

from gateway.cli.client import DEFAULT_URL, ClientError, GatewayClient, Refused
from gateway.cli.errors import CallerError as CallerError
from gateway.cli.errors import CommandError as CommandError
from gateway.cli.errors import check_engine_address as check_engine_address
from gateway.cli.groups import did_you_mean
from gateway.cli.interruption import Interrupted
from gateway.cli.tables import print_table
from gateway.cli.terminal import say, say_json
from pool import __version__

Command = TypeVar("Command", bound=Callable[..., Any])


class Gateway:
    """A block with a client of a gateway. It turns the client's errors into `CommandError` and `CallerError`."""

    def __init__(self, url: str, key_file: Path | None = None) -> None:
        try:
            self._client = GatewayClient(url, key=given_key(key_file))
        except ClientError as error:
            raise CallerError(str(error)) from error

    def __enter__(self) -> GatewayClient:
        return self._client

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._client.close()
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(after_interruption(self._client.asked)) from None
        if isinstance(error, Refused):
            shown = str(error)
            if error.invocation and error.status not in (401, 403) and error.slug != "no-such-function":
                shown += logs_of(error.invocation)
            if error.slug == "not-found" and "there is nothing at" in error.detail:
                shown += (
                    f"\n  the gateway is of another version than this hearth, {__version__}; run the same one"
                )
            if error.status == 401:
                shown += "\n  give hearth a key with --key-file FILE or HEARTH_API_KEY"
            raise (CallerError if error.blame == "caller" else CommandError)(shown) from error
        if isinstance(error, ClientError):
            raise CommandError(str(error)) from error


def logs_of(invocation: str) -> str:
    """Return the line below an error that names the next step: see what the invocation has printed."""
    return f"\n  its output: hearth logs {invocation}"


def after_interruption(asked: httpx.Request | None) -> str:
    """Return a message for Ctrl-C that says what becomes of the latest request."""
    if asked is None or (asked.method in ("GET", "HEAD") and not asked.url.path.startswith("/invoke/")):
        return "Stopped. Nothing was changed."
    if asked.url.path.startswith("/invoke/"):
        return "Stopped. The gateway ends the call, because nobody waits for its answer."
    return f"Stopped. The gateway may still carry out {asked.method} {asked.url.path}."


def name_nearest(error: Refused, kind: str, name: str, names: Callable[[], Sequence[str]]) -> None:
    """Put the nearest name into the message of an error about an unknown one, or the command that lists the names."""
    try:
        error.detail = unknown(kind, name, names())
    except ClientError:  # this key may not list them
        error.detail = unknown(kind, name, ())


def check_function(gateway: GatewayClient, name: str | None) -> None:
    """Raise `CallerError` if there is no function of this name, as far as the gateway lists them for this key."""
    try:
        names = [function["name"] for function in gateway.functions()]
    except ClientError:
        return
    if name is not None and name not in names:
        raise CallerError(unknown("function", name, names))


def unknown(kind: str, name: str, names: Sequence[str]) -> str:
    """Return a message about an unknown name, with the nearest one, or with the command that lists the names."""
    return f"there is no {kind} {name}{did_you_mean(name, names) or f'; hearth {kind}s lists them'}"


def confirmed(question: str, yes: bool) -> bool:
    """Return whether the user agrees. `yes` agrees without a question. Raises `CallerError` if nobody can answer."""
    if yes:
        return True
    try:
        return click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise CallerError("nobody can answer here; add --yes to go on without a question") from None


def gateway_options(command: Command) -> Command:
    """Add `--url` and `--key-file` to a command. No option takes the key itself: others can read a command line."""
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
        help="File with the API key. Default: the key in HEARTH_API_KEY.",
    )
    return url(key_file(command))


def given_key(file: Path | None) -> str | None:
    """Return the key in the file, else the one in HEARTH_API_KEY, or None if neither is given.

    Raises `CallerError`.
    """
    if file is None:
        return os.environ.get("HEARTH_API_KEY", "").strip() or None
    try:
        return file.read_text().strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CallerError(f"cannot read the key file {file}: {why}") from error


def json_option(command: Command) -> Command:
    """Add `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


def limit_option(command: Command) -> Command:
    """Add `--limit` to a command that lists a page of the API."""
    return click.option(
        "--limit", type=int, default=50, show_default=True, metavar="N", help="Most entries to list."
    )(command)


def say_if_more(page: Mapping[str, Any]) -> None:
    """Say on stderr if there may be more than a page of the API lists."""
    if page["cursor"] is not None:
        say("There may be more than these; --limit N lists more.", err=True)


def raw_option(command: Command) -> Command:
    """Add `--raw` to a command: bytes go to a terminal unchanged."""
    return click.option(
        "--raw", is_flag=True, help="Print control characters, such as colours, unchanged on a terminal."
    )(command)


def print_json(value: object) -> None:
    """Print a value as JSON on stdout."""
    say_json(json.dumps(value, indent=2, ensure_ascii=False))


def print_listing(
    listed: Sequence[Any],
    as_json: bool,
    columns: Mapping[str, Callable[[Any], str]],
    empty: str,
) -> None:
    """Print a list of the API as JSON, or as a table.

    `columns` maps each heading to the text of an entry below it. `empty` is said instead of an empty table: it names
    what to do first.
    """
    if as_json:
        print_json(listed)
    elif listed:
        print_table(tuple(columns), [tuple(text(entry) for text in columns.values()) for entry in listed])
    else:
        say(empty, err=True)
