"""Calls that the gateway accepts and runs later: `hearth invoke --async` and `hearth result`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx

from gateway.cli.client import GatewayClient, invoke_path
from gateway.cli.commands.calling.call_request import CallRequest
from gateway.cli.common import (
    CallerError,
    CommandError,
    Gateway,
    gateway_options,
    json_option,
    print_json,
    raw_option,
)
from gateway.cli.human import human_time
from gateway.cli.terminal import say, write_body
from gateway.cli.watch.watching import Watched, watch

OPEN = ("queued", "held", "running")
"""Statuses of calls that have not ended."""


@click.command()
@gateway_options
@json_option
@click.argument("id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until the call has ended.")
@click.option("--cancel", is_flag=True, help="Cancel the call instead.")
@raw_option
def result(
    url: str, key_file: Path | None, as_json: bool, id: str, wait: bool, cancel: bool, raw: bool
) -> None:
    """Print the answer of an accepted call.

    `hearth invoke --async` prints the call's id. The exit status is that of `hearth invoke`; it is 1 if the call has
    not ended yet. --json prints the call's record instead of the answer.

    \b
    Examples:
      hearth result 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4
      hearth result --wait 6f1d2c9a > report.pdf
      hearth result --cancel 6f1d2c9a
    """
    if wait and cancel:
        raise click.UsageError("give only one of --wait and --cancel")
    with Gateway(url, key_file) as gateway:
        call = gateway.ask("DELETE" if cancel else "GET", place_of(id))
        if wait:
            call = wait_for(gateway, call)
        if as_json:
            print_json(call)
            return
        if cancel:
            say(f"call {call['id']} {call['status']}", err=True)
            return
        if call["status"] in OPEN:
            raise CommandError(f"{in_words(call)}\n  wait for it: hearth result --wait {call['id']}")
        response = show_answer(gateway, call["id"], raw)
    if response.status_code >= 400:
        ending = CommandError if response.status_code >= 500 else CallerError
        raise ending(f"{call['function']} answered {response.status_code}")


def accept(gateway: GatewayClient, request: CallRequest) -> dict[str, Any]:
    """Have the gateway accept a call for later, and return its record."""
    assert not isinstance(request.body, Path)
    fields = {**request.headers, "prefer": "respond-async"}
    place = invoke_path(request.function, request.path)
    return gateway.start(place, request.body or b"", fields, request.method)


def say_accepted(call: dict[str, Any]) -> None:
    """Print the id of an accepted call on stdout, and the next steps on stderr."""
    id = call["id"]
    say(id)
    say("The gateway keeps the call and runs it, even if the gateway is restarted.", err=True)
    say(f"  Its answer:  hearth result --wait {id}", err=True)
    say(f"  Its log:     hearth logs {id}", err=True)
    say(f"  Cancel it:   hearth result --cancel {id}", err=True)


def wait_for(gateway: GatewayClient, call: dict[str, Any]) -> dict[str, Any]:
    """Wait until an accepted call has ended, and return its record. Ctrl-C ends the command, and not the call."""
    id = call["id"]
    watched = Watched(
        kind="call",
        place=place_of(id),
        show=f"hearth result {id}",
        follow=f"hearth result --wait {id}",
        cancel=f"hearth result --cancel {id}",
    )
    return watch(gateway, watched, call, lambda call: call["status"] in OPEN, shown)


@contextmanager
def shown(call: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Say on a terminal's stderr when the status of a call changes. Give the function that is told of it."""
    known = ""

    def tell(call: dict[str, Any]) -> None:
        nonlocal known
        if (words := in_words(call)) != known and sys.stderr.isatty():
            known = words
            say(words, err=True)

    tell(call)
    yield tell


def in_words(call: dict[str, Any]) -> str:
    """Return the status of an accepted call, and when it runs next."""
    words = f"call {call['id']} {call['status']}"
    if call["status"] == "queued" and call["attempts"] and call.get("due"):
        return f"{words} after {call['attempts']} failed attempts, next one at {human_time(call['due'])}"
    return words


def show_answer(
    gateway: GatewayClient, id: str, raw: bool, show_head: Callable[[httpx.Response], None] | None = None
) -> httpx.Response:
    """Print the answer of an ended call, and return it."""
    response = gateway.answer(id)
    if show_head is not None:
        show_head(response)
    write_body(response.content, raw)
    return response


def place_of(call: str) -> str:
    """Return the path of an accepted call in the API."""
    return f"/invocations/{quote(call, safe='')}"
