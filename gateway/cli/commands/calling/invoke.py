"""`hearth invoke`: calls a function, once or several times, at once or later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import httpx

from gateway.cli.client import GatewayClient, Refused
from gateway.cli.commands.calling.accepted import accept, say_accepted, show_answer, wait_for
from gateway.cli.commands.calling.call_request import STDIN, CallRequest, body_of, fields_of, type_of
from gateway.cli.commands.calling.repeated import MOST_SHOWN, repeat
from gateway.cli.common import (
    CallerError,
    CommandError,
    Gateway,
    gateway_options,
    logs_of,
    name_nearest,
    raw_option,
)
from gateway.cli.names import FUNCTION
from gateway.cli.terminal import BodyWriter, say


@click.command()
@gateway_options
@click.argument("function", type=FUNCTION)
@click.argument("stdin", required=False, metavar="[-]", type=click.Choice(["-"]))
@click.option("--data", "-d", metavar="TEXT|@FILE|@-", help="Send this text, a file, or stdin.")
@click.option(
    "--file",
    "-f",
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Send this file; - is stdin.",
)
@click.option(
    "--content-type",
    metavar="TYPE",
    help="Content type. Default: guessed from the text or the file's name.",
)
@click.option("--header", "-H", "headers", metavar="K:V", multiple=True, help="Header to send. Repeatable.")
@click.option("--path", default="", metavar="/SUB", help="Sub-path and query, for functions that serve HTTP.")
@click.option(
    "--method", "-X", metavar="VERB", help="HTTP method. Default: POST, or GET for --path without a body."
)
@click.option("--include", "-i", is_flag=True, help="Show status, headers and timing on stderr.")
@click.option(
    "--repeat",
    type=int,
    default=1,
    metavar="N",
    help=f"Call it N times, one after the other. Above {MOST_SHOWN}: print a summary, not the answers.",
)
@click.option(
    "--async", "later", is_flag=True, help="Have the gateway keep the call and run it later; print its id."
)
@click.option("--wait", is_flag=True, help="With --async: wait for its end and print the answer.")
@raw_option
def invoke(
    url: str,
    key_file: Path | None,
    function: str,
    include: bool,
    repeat: int,
    later: bool,
    wait: bool,
    raw: bool,
    **given: Any,
) -> None:
    """Call FUNCTION and print its answer.

    The answer is printed byte for byte, but control characters are written out on a terminal. The exit status is 0
    for a status below 400, 2 if you have to change something, and 1 if the function or the platform failed.

    \b
    Examples:
      hearth invoke hello --data '{"name":"Ada"}'
      hearth invoke thumbnail --data @photo.jpg -i > small.jpg
      printf 'one two three' | hearth invoke wordcount -
      hearth invoke api --path /notes --method GET
      hearth invoke hello --repeat 100
      hearth invoke report --async --wait
    """
    if wait and not later:
        raise click.UsageError("--wait needs --async; without it, the command waits anyway")
    if repeat < 1:
        raise click.UsageError("--repeat must be at least 1")
    if later and repeat > 1:
        raise click.UsageError("give only one of --async and --repeat")
    request = request_of(function, **given)
    with Gateway(url, key_file) as gateway:
        try:
            if later:
                run_later(gateway, request, wait, include, raw)
            elif repeat > 1:
                repeat_call(gateway, request, repeat, include, raw)
            else:
                call_once(gateway, request, include, raw)
        except Refused as error:
            if error.slug == "no-such-function":
                name_nearest(error, "function", function, lambda: [f["name"] for f in gateway.functions()])
            raise


def request_of(
    function: str,
    *,
    stdin: str | None,
    data: str | None,
    file: Path | None,
    content_type: str | None,
    headers: tuple[str, ...],
    path: str,
    method: str | None,
) -> CallRequest:
    """Return the request that the options describe. Raises `click.UsageError`."""
    if sum(given is not None for given in (stdin, data, file)) > 1:
        raise click.UsageError("give only one of --data, --file and -")
    body = STDIN if stdin else body_of(data, file)
    fields = fields_of(headers)
    if kind := content_type or type_of(body):
        fields.setdefault("content-type", kind)
    verb = (method or ("GET" if path and body is None else "POST")).upper()
    return CallRequest(function, verb, path, fields, body)


def call_once(gateway: GatewayClient, request: CallRequest, include: bool, raw: bool) -> None:
    """Call a function and print its answer. Raises `CommandError` or `CallerError` for an error."""
    with request.sent(gateway) as (response, pieces):
        if include:
            show_head(response)
        out = BodyWriter(raw)
        for piece in pieces:
            out.write(piece)
        out.end()
    end_with(request.function, response.status_code, response.headers.get("x-invocation-id"))


def repeat_call(gateway: GatewayClient, request: CallRequest, times: int, include: bool, raw: bool) -> None:
    """Call a function several times. Print the answers, or only a summary of many."""
    request = request.read()
    if times > MOST_SHOWN:
        end_with(request.function, repeat(gateway, request, times))
        return
    for _ in range(times):
        call_once(gateway, request, include, raw)


def run_later(gateway: GatewayClient, request: CallRequest, wait: bool, include: bool, raw: bool) -> None:
    """Have the gateway accept a call, and print its id or, with `wait`, its answer."""
    call = accept(gateway, request.read())
    if not wait:
        say_accepted(call)
        return
    wait_for(gateway, call)
    response = show_answer(gateway, call["id"], raw, show_head if include else None)
    end_with(request.function, response.status_code, response.headers.get("x-invocation-id"))


def end_with(function: str, status: int, invocation: str | None = None) -> None:
    """Raise `CommandError` or `CallerError` if the status of an answer is that of an error."""
    if status >= 400:
        ending = CommandError if status >= 500 else CallerError
        raise ending(f"{function} answered {status}{logs_of(invocation) if invocation else ''}")


def show_head(response: httpx.Response) -> None:
    """Print status, headers, kind of start and timing of an answer on stderr."""
    say(f"{response.http_version} {response.status_code} {response.reason_phrase}", err=True)
    for name, value in response.headers.multi_items():
        say(f"{name}: {value}", err=True)
    start = response.headers.get("x-hearth-start")
    if start is not None:
        say(f"-- {start} start, {timing_of(response.headers.get('server-timing', ''))}", err=True)
    say(err=True)


def timing_of(server_timing: str) -> str:
    """Return a Server-Timing header for people: `queue 0.1 ms, exec 2 ms` for `queue;dur=0.1, exec;dur=2`."""
    phases = (phase.strip().partition(";dur=") for phase in server_timing.split(",") if phase.strip())
    return ", ".join(f"{name} {duration} ms" for name, _, duration in phases) or "no timing"
