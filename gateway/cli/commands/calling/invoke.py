"""`hearth invoke`: calls a function."""

from __future__ import annotations

import io
import json
import mimetypes
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import click
import httpx

from gateway.cli.common import CallerError, CommandError, Gateway, gateway_options, raw_option
from gateway.cli.terminal import BodyWriter, say

READ_BYTES = 64 * 1024
"""Most bytes read at once from a file or stdin: the capacity of a pipe on Linux."""


@click.command()
@gateway_options
@click.argument("function")
@click.argument("body", required=False, metavar="[-]", type=click.Choice(["-"]))
@click.option("--data", "-d", metavar="TEXT", help="Send this text.")
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
@raw_option
def invoke(
    url: str,
    key_file: Path | None,
    function: str,
    body: str | None,
    data: str | None,
    file: Path | None,
    content_type: str | None,
    headers: tuple[str, ...],
    path: str,
    method: str | None,
    include: bool,
    raw: bool,
) -> None:
    """Call FUNCTION and print its answer.

    The answer is printed byte for byte, but control characters are written out on a terminal. The exit status is 0
    for a status below 400, 2 if you have to change something, and 1 if the function or the platform failed.

    \b
    Examples:
      hearth invoke hello --data '{"name":"Ada"}'
      hearth invoke thumbnail --file photo.jpg -i > small.jpg
      printf 'one two three' | hearth invoke wordcount -
      hearth invoke api --path /notes --method GET
    """
    if sum(given is not None for given in (body, data, file)) > 1:
        raise click.UsageError("give only one of --data, --file and -")
    from_stdin = body == "-" or file == Path("-")
    fields = fields_of(headers)
    kind = content_type or (None if from_stdin else type_of(data, file))
    if kind is not None and "content-type" not in fields:
        fields["content-type"] = kind
    sends = data is not None or file is not None or from_stdin
    verb = (method or ("GET" if path and not sends else "POST")).upper()
    with Gateway(url, key_file) as gateway:
        content: bytes | Iterable[bytes] | None = None if data is None else data.encode()
        if from_stdin:
            content = pieces_of(sys.stdin.buffer)
        elif file is not None:
            content = pieces_of(click.get_current_context().with_resource(file.open("rb")))
        with gateway.invoke(function, content, fields, verb, path) as (response, pieces):
            if include:
                show_head(response)
            out = BodyWriter(raw)
            for piece in pieces:
                out.write(piece)
            out.end()
    if response.status_code >= 400:
        ending = CommandError if response.status_code >= 500 else CallerError
        raise ending(f"{function} answered {response.status_code}")


def type_of(data: str | None, file: Path | None) -> str | None:
    """Return the content type of a text or file to send, or None if nothing is sent."""
    if file is not None:
        return mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if data is None:
        return None
    try:
        json.loads(data)
    except ValueError:
        return "text/plain; charset=utf-8"
    return "application/json"


def pieces_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a stream as they arrive. httpx would read the length of a pipe itself as 0."""
    while piece := (
        stream.read1(READ_BYTES) if isinstance(stream, io.BufferedReader) else stream.read(READ_BYTES)
    ):
        yield piece


def fields_of(headers: tuple[str, ...]) -> dict[str, str]:
    """Return header fields from `K:V`, with names in lower case. Raises `click.UsageError`."""
    fields: dict[str, str] = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"--header {header!r} does not have the form K:V")
        if not (name + value).isascii() or not (name + value).isprintable():
            raise click.UsageError(f"--header {header!r} has invalid characters; use printable ASCII only")
        fields[name.strip().lower()] = value.strip()
    return fields


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
