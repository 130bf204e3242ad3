"""`hearth calls`: shows and follows calls, and shows one in full."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.client import ClientError, GatewayClient, Refused
from gateway.cli.common import Gateway, check_function, gateway_options, json_option, print_json
from gateway.cli.interruption import Interrupted
from gateway.cli.names import FUNCTION
from gateway.cli.tables import print_table
from gateway.cli.terminal import say, say_json
from gateway.cli.watch.call_lines import HEADINGS, CallLines, print_call, row_of

RECONNECT_SECONDS = 1.0
"""Pause between two attempts to reach a gateway that has gone away."""
SHORT_ID = re.compile(r"[0-9a-f]{4,32}")
MOST_LISTED = 1000
EMPTY = "No call yet. Make one: hearth invoke FUNCTION"
EMPTY_FILTERED = "No such call is remembered. All of them: hearth calls"


@click.command()
@gateway_options
@json_option
@click.argument("name", required=False, metavar="[FUNCTION|CALL_ID]", type=FUNCTION)
@click.option("-f", "--follow", is_flag=True, help="Go on with each call that ends.")
@click.option("--failed", is_flag=True, help="Only calls that failed.")
@click.option("--slow", metavar="TIME", help="Only calls that took this long or longer: 1s, 250ms.")
@click.option("--since", metavar="TIME", help="Only from then on: 10m, or 2026-11-29T12:00:00Z.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(0, MOST_LISTED),
    default=20,
    show_default=True,
    metavar="N",
    help="The latest so many.",
)
def calls(
    url: str,
    key_file: Path | None,
    as_json: bool,
    name: str | None,
    follow: bool,
    failed: bool,
    slow: str | None,
    since: str | None,
    limit: int,
) -> None:
    """Show the latest calls, or one call in full.

    The latest comes last. The gateway remembers the latest 10,000 calls that went well and 2,000 that failed, until
    it is restarted. A call failed if its status is 400 or more, or if nobody got an answer.

    \b
    Examples:
      hearth calls
      hearth calls -f hello
      hearth calls --failed --since 10m
      hearth calls --slow 1s --json | jq -r '.[].cold_reason'
      hearth calls 6f1d2c9a
    """
    given = {"function": name, "slow": slow, "since": since, "failed": "true" if failed else None}
    query = {key: value for key, value in given.items() if value is not None}
    with Gateway(url, key_file) as gateway:
        if name is not None and (call := find_call(gateway, name)) is not None:
            print_json(call) if as_json else print_call(call)
            return
        query["limit"] = str(limit)
        if follow:
            show_each(gateway, query, as_json)
            return
        listed = gateway.ask("GET", "/calls", params=query)["calls"][::-1]
        if not listed and name is not None:
            check_function(gateway, name)
    if as_json:
        print_json(listed)
    elif listed:
        print_table(HEADINGS, [row_of(call) for call in listed])
    else:
        say(EMPTY_FILTERED if len(given.keys() & query.keys()) else EMPTY, err=True)


def find_call(gateway: GatewayClient, name: str) -> dict[str, Any] | None:
    """Return the call whose id a name is or begins, or None. A function of this name that was called goes first."""
    if not SHORT_ID.fullmatch(name):
        return None
    if gateway.ask("GET", "/calls", params={"function": name, "limit": "1"})["calls"]:
        return None
    try:
        call: dict[str, Any] = gateway.ask("GET", f"/calls/{quote(name, safe='')}")
    except Refused as error:
        if error.status != 404 or len(name) == 32:
            raise
        return None
    return call


def show_each(gateway: GatewayClient, query: dict[str, str], as_json: bool) -> None:
    """Print calls as they end, until Ctrl-C."""
    lines = CallLines()
    try:
        for call in following(gateway, query):
            if as_json:
                say_json(json.dumps(call, ensure_ascii=False))
            else:
                lines.show(call)
    except KeyboardInterrupt:
        raise Interrupted("No longer following; the functions go on.") from None


def following(gateway: GatewayClient, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield calls as they end, also after a restart of the gateway, which forgets earlier ones.

    Raises `ClientError` if the gateway cannot be reached the first time, or refuses.
    """
    parameters, reached, away = {**query, "follow": "true"}, False, False
    while True:
        try:
            with gateway.call_events(parameters) as events:
                if away:
                    say("The gateway is back.", err=True)
                reached, away = True, False
                for event in events:
                    if "dropped" in event:
                        say(f"… {event['dropped']} more calls that went well", err=True)
                    else:
                        yield event
        except ClientError as error:
            if not reached or (isinstance(error, Refused) and error.status < 500):
                raise
            if not away:
                away = True
                say("The gateway has gone away; waiting for it. Ctrl-C ends this.", err=True)
        parameters["limit"] = "0"  # what was shown before must not be shown again
        time.sleep(RECONNECT_SECONDS)
