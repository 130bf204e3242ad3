"""The request of `hearth invoke`: what is sent to a function, as often as it is called."""

from __future__ import annotations

import io
import json
import mimetypes
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click
import httpx

from gateway.cli.client import GatewayClient
from gateway.cli.common import CallerError

READ_BYTES = 64 * 1024
"""Most bytes read at once from a file or stdin: the capacity of a pipe on Linux."""
STDIN = Path("-")


@dataclass(frozen=True)
class CallRequest:
    """One request to a function. It can be sent again, unless its body is stdin."""

    function: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | Path | None

    def sent(self, gateway: GatewayClient) -> AbstractContextManager[tuple[httpx.Response, Iterator[bytes]]]:
        """Send it, and give the head of the answer and the pieces of its body."""
        return gateway.invoke(self.function, self._content(), self.headers, self.method, self.path)

    def read(self) -> CallRequest:
        """Return the same request with its body in memory, so that it can be sent again."""
        content = self._content()
        body = content if content is None or isinstance(content, bytes) else b"".join(content)
        return CallRequest(self.function, self.method, self.path, self.headers, body)

    def _content(self) -> bytes | Iterable[bytes] | None:
        if not isinstance(self.body, Path):
            return self.body
        if self.body == STDIN:
            return pieces_of(sys.stdin.buffer)
        return pieces_of(click.get_current_context().with_resource(opened(self.body)))


def body_of(data: str | None, file: Path | None) -> bytes | Path | None:
    """Return what `--data` and `--file` send: a text, or a file or stdin by `@FILE` and `@-`."""
    if data is None:
        return file
    return Path(data[1:]) if data.startswith("@") else data.encode()


def opened(file: Path) -> BinaryIO:
    """Return an open file. Raises `CallerError`."""
    try:
        return file.open("rb")
    except OSError as error:
        raise CallerError(f"cannot read {file}: {error.strerror}") from error


def type_of(body: bytes | Path | None) -> str | None:
    """Return the content type of a text or a file to send, or None if it cannot be known."""
    if body is None or body == STDIN:
        return None
    if isinstance(body, Path):
        return mimetypes.guess_type(body.name)[0] or "application/octet-stream"
    try:
        json.loads(body)
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
