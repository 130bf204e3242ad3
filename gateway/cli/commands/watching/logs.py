"""`hearth logs`: shows and follows what functions print."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import ClientError, GatewayClient, Refused
from gateway.cli.common import Gateway, check_function, gateway_options, raw_option
from gateway.cli.interruption import Interrupted
from gateway.cli.names import FUNCTION
from gateway.cli.printed.lines import LineWriter, zone_name
from gateway.cli.terminal import say, say_json, write_body

RECONNECT_SECONDS = 1.0
"""Pause between two attempts to reach a gateway that has gone away."""
WHOLE_ID = re.compile(r"[0-9a-f]{32}")
SHORT_ID = re.compile(r"[0-9a-f]{4,31}")
TRY_AGAIN = frozenset({429, 502, 503, 504})
"""Statuses of a gateway that starts, ends or is busy."""


@dataclass(frozen=True)
class Wanted:
    """The output that the command shall show."""

    function: str | None
    call: str | None
    instance: str | None
    since: str | None
    grep: str | None
    lines: int | None

    def parameters(self) -> dict[str, str]:
        """Return the query of `GET /logs`."""
        values = {
            "function": self.function,
            "invocation": self.call,
            "instance": self.instance,
            "since": self.since,
            "grep": self.grep,
            "limit": self.lines,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    @property
    def is_whole_log(self) -> bool:
        """Return whether all output of one call or one instance is wanted, and nothing else."""
        one = (self.call is None) != (self.instance is None)
        return one and (self.function, self.since, self.grep, self.lines) == (None, None, None, None)

    def __str__(self) -> str:
        parts = [
            f"{kind} {value}"
            for kind, value in (("function", self.function), ("call", self.call), ("instance", self.instance))
            if value is not None
        ]
        return " and ".join(parts) or "all functions"


@click.command()
@gateway_options
@click.argument("name", required=False, type=FUNCTION, metavar="[FUNCTION|CALL_ID]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on.")
@click.option("--call", metavar="ID", help="Only output of this call.")
@click.option("--instance", metavar="ID", help="Only output of this instance; `hearth ps` lists them.")
@click.option("--since", metavar="TIME", help="Only from then on: 10m, or 2026-11-29T12:00:00Z.")
@click.option("--grep", metavar="TEXT", help="Only lines that contain this text.")
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), help="Show the latest so many lines.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@raw_option
def logs(
    url: str,
    key_file: Path | None,
    name: str | None,
    follow: bool,
    call: str | None,
    instance: str | None,
    since: str | None,
    grep: str | None,
    lines: int | None,
    as_json: bool,
    raw: bool,
) -> None:
    """Show and follow what functions print.

    A name of 32 hexadecimal digits, or of 4 and more that no function has, is the id of a call. The header
    X-Invocation-Id of every answer has it. Without other options, all that the call has printed is shown as it is.

    Output is kept on disk, so it can be read after the instance is gone and after a restart of the gateway.

    \b
    Examples:
      hearth logs -f
      hearth logs hello --since 10m --grep Traceback
      hearth logs 2e16dc32
      hearth logs --instance be5e875eabc7
      hearth logs hello --json | jq -r .text
    """
    with Gateway(url, key_file) as gateway:
        function, id = which(gateway, name)
        if id is not None and call is not None:
            raise click.UsageError("give one call: as an argument or with --call")
        wanted = Wanted(function, call or id, instance, since, grep, lines)
        if wanted.is_whole_log and not follow and not as_json:
            show_whole(gateway, wanted, raw)
            return
        writer = LineWriter(raw)
        if not as_json:
            say(f"Output of {wanted}, times in {zone_name()}", err=True)
        shown = 0
        try:
            for line in following(gateway, wanted) if follow else gateway.log_lines(wanted.parameters()):
                shown += 1
                if as_json:
                    say_json(json.dumps(line, ensure_ascii=False))
                else:
                    writer.write(line)
        except KeyboardInterrupt:
            raise Interrupted("No longer following; the functions go on.") from None
        if not shown:
            check_function(gateway, function)
            say("Nothing was printed, or it is forgotten.", err=True)


def which(gateway: GatewayClient, name: str | None) -> tuple[str | None, str | None]:
    """Return the function, or the id of a call, that a name means. A function with just this name comes first."""
    if name is None:
        return None, None
    if WHOLE_ID.fullmatch(name):
        return None, name
    if not SHORT_ID.fullmatch(name):
        return name, None
    try:
        is_function = any(function["name"] == name for function in gateway.functions())
    except Refused as error:
        if error.status != 403:
            raise
        is_function = False  # a key that may not list functions; --call and a whole id need no list
    return (name, None) if is_function else (None, name)


def show_whole(gateway: GatewayClient, wanted: Wanted, raw: bool) -> None:
    """Print all output of one call or one instance, byte for byte as far as the terminal is safe."""
    if wanted.call is not None:
        if not WHOLE_ID.fullmatch(wanted.call):
            say(f"Output of {wanted}", err=True)
        write_body(gateway.invocation_logs(wanted.call), raw)
        return
    try:
        write_body(gateway.instance_logs(wanted.instance or ""), raw)
    except Refused as error:
        if error.status != 404:
            raise
        kept = [str(line["text"]) for line in gateway.log_lines(wanted.parameters())]
        if not kept:
            raise
        say("The instance is gone; this is what is kept of it, its calls included.", err=True)
        write_body("".join(f"{text}\n" for text in kept).encode("utf-8", "backslashreplace"), raw)


def following(gateway: GatewayClient, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Yield lines without end, also across restarts of the gateway: none twice, and none left out.

    Raises `ClientError` if the gateway cannot be reached the first time, or refuses.
    """
    parameters = {**wanted.parameters(), "follow": "true"}
    last, reached, away = "", False, False
    began = datetime.now(UTC).isoformat()
    while True:
        try:
            with gateway.log_events(parameters, last) as events:
                if away:
                    say("The gateway is back.", err=True)
                reached, away = True, False
                for id, line in events:
                    last = id or last
                    yield line
        except ClientError as error:
            if not reached or (isinstance(error, Refused) and error.status not in TRY_AGAIN):
                raise
            if not away:
                away = True
                say("The gateway has gone away; waiting for it. Ctrl-C ends this.", err=True)
        if not last:  # what was shown before must not be shown again
            parameters |= {"since": began}
            parameters.pop("limit", None)
        time.sleep(RECONNECT_SECONDS)
