"""`hearth dead-letters`: accepted calls that the gateway has given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.common import (
    Gateway,
    confirmed,
    gateway_options,
    json_option,
    limit_option,
    print_json,
    print_listing,
    say_if_more,
)
from gateway.cli.groups import ListByDefault
from gateway.cli.human import human_time
from gateway.cli.names import FUNCTION
from gateway.cli.terminal import say

function_option = click.option(
    "--function", metavar="NAME", type=FUNCTION, help="Only calls of this function."
)


@click.group("dead-letters", cls=ListByDefault)
def dead_letters() -> None:
    """List dead letters, run them again or forget them.

    A dead letter is an accepted call that failed at every attempt, or grew too old.

    \b
    Examples:
      hearth dead-letters
      hearth dead-letters show 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4
      hearth dead-letters redrive --function report
      hearth dead-letters purge --yes
    """


@dead_letters.command("list")
@gateway_options
@json_option
@function_option
@limit_option
def list_dead_letters(
    url: str, key_file: Path | None, as_json: bool, function: str | None, limit: int
) -> None:
    """List the dead letters, newest first.

    \b
    Examples:
      hearth dead-letters list
      hearth dead-letters list --function report --json | jq -r '.[].id'
    """
    query = {"limit": str(limit), **of_function(function)}
    with Gateway(url, key_file) as gateway:
        page = gateway.ask("GET", "/dead-letters", params=query)
    print_listing(
        page["invocations"],
        as_json,
        {
            "ID": lambda call: call["id"],
            "FUNCTION": lambda call: call["function"],
            "STATUS": lambda call: call["status"],
            "ATTEMPTS": lambda call: str(call["attempts"]),
            "ENDED": lambda call: human_time(call["ended"]),
            "REASON": reason_of,
        },
        "No dead letters: no accepted call was given up.",
    )
    say_if_more(page)


@dead_letters.command("show")
@gateway_options
@json_option
@click.argument("id", metavar="ID")
def show_dead_letter(url: str, key_file: Path | None, as_json: bool, id: str) -> None:
    """Show a dead letter and why it was given up.

    \b
    Examples:
      hearth dead-letters show 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4
    """
    with Gateway(url, key_file) as gateway:
        call = gateway.ask("GET", place_of(id))
    if as_json:
        print_json(call)
        return
    say(f"call {call['id']} of {call['function']}: {call['status']} after {call['attempts']} attempts")
    say(f"  accepted  {human_time(call['accepted'])}")
    say(f"  ended     {human_time(call['ended'])}")
    if call["error"]:
        say(f"  error     {call['error']} (blame: {call['blame']})")
    if call["detail"]:
        say(f"            {call['detail']}", wrap=True)
    say("\nNext:")
    say(f"  hearth logs {call['id']}")
    say(f"  hearth result {call['id']}")
    say(f"  hearth dead-letters redrive {call['id']}")


@dead_letters.command("redrive")
@gateway_options
@json_option
@function_option
@click.argument("ids", nargs=-1, metavar="[ID]...")
def redrive_dead_letters(
    url: str, key_file: Path | None, as_json: bool, function: str | None, ids: tuple[str, ...]
) -> None:
    """Queue dead letters again: these, those of a function, or all.

    Each gets all its attempts once more.

    \b
    Examples:
      hearth dead-letters redrive 6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4
      hearth dead-letters redrive --function report
      hearth dead-letters redrive
    """
    if ids and function:
        raise click.UsageError("give either ids or --function")
    with Gateway(url, key_file) as gateway:
        if ids:
            for id in ids:
                gateway.ask("POST", f"{place_of(id)}/retry")
            count = len(ids)
        else:
            count = gateway.ask("POST", "/dead-letters/redrive", params=of_function(function))["count"]
    tell(count, "queued again", as_json)


@dead_letters.command("purge")
@gateway_options
@json_option
@function_option
@click.option("--yes", "-y", is_flag=True, help="Forget them without asking.")
def purge_dead_letters(
    url: str, key_file: Path | None, as_json: bool, function: str | None, yes: bool
) -> None:
    """Forget dead letters, with their requests and answers.

    \b
    Examples:
      hearth dead-letters purge --function report
      hearth dead-letters purge --yes
    """
    whose = f" of {function}" if function else ""
    if not confirmed(f"Forget all dead letters{whose}? They cannot be run again.", yes):
        say("Nothing was forgotten.", err=True)
        return
    with Gateway(url, key_file) as gateway:
        count = gateway.ask("DELETE", "/dead-letters", params=of_function(function))["count"]
    tell(count, "forgotten", as_json)


def tell(count: int, done: str, as_json: bool) -> None:
    """Print how many dead letters were changed."""
    if as_json:
        print_json({"count": count})
    else:
        say(f"{count} dead letter{'' if count == 1 else 's'} {done}")


def reason_of(call: dict[str, Any]) -> str:
    """Return why a call was given up, on one line."""
    words = ": ".join(part for part in (call["error"], call["detail"]) if part)
    return " ".join(words.split())


def of_function(function: str | None) -> dict[str, str]:
    """Return the query that asks for calls of one function, or of all."""
    return {"function": function} if function else {}


def place_of(call: str) -> str:
    """Return the path of an accepted call in the API."""
    return f"/invocations/{quote(call, safe='')}"
