"""A call and its answer, as every way to an instance understands them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from pool.errors import MalformedAnswer

Headers = Sequence[tuple[bytes, bytes]]
ReadBody = Callable[[], Awaitable[bytes]]
"""Returns the next piece of a body; empty at its end."""


def header_lines(headers: Headers) -> bytes:
    """Return header fields as they go over a connection."""
    return b"\r\n".join([*map(b": ".join, headers), b""])


class Call:
    """One invocation on its way to an instance. Headers are final: the framing is added by the transport.

    The body is `first` and then, if `more` is given, what `more()` returns until it is empty. `length` is the
    declared length in bytes; None with `more` means that the end is not known ahead (chunks).
    """

    __slots__ = ("first", "headers", "length", "meta", "method", "more", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        first: bytes = b"",
        more: ReadBody | None = None,
        length: int | None = None,
        meta: dict[str, str] | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.first = first
        self.more = more
        self.length = length
        self.meta = meta
        """CGI meta-variables, for a command."""


class Answer(Protocol):
    """The head of an answer, and its body to be read."""

    status: int
    headers: list[tuple[bytes, bytes]]

    @property
    def feeding(self) -> asyncio.Future[None] | None:
        """Return what sends the rest of the request's body while the answer comes, or None if nothing does."""

    def take(self) -> bytes:
        """Return what of the body has arrived, without waiting."""

    @property
    def complete(self) -> bool:
        """Return whether everything has arrived. It may still have to be taken."""

    async def read(self) -> bytes:
        """Return the next piece of the body; empty at its end. Raises `InstanceDied` if it ends too early."""


MAX_REPORT_BYTES = 64 * 1024
"""Bounds a report in bytes: user code shares its process with the shim, and could write without an end."""


async def read_said(answer: Answer) -> Any:
    """Return the JSON that a shim answers on its own behalf.

    Raises ValueError if it is not JSON, `MalformedAnswer` if it is too long, and what `Answer.read` raises.
    """
    body = bytearray()
    while piece := await answer.read():
        body += piece
        if len(body) > MAX_REPORT_BYTES:
            raise MalformedAnswer("the report of the handler's shim does not end")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


async def read_report(answer: Answer) -> tuple[str, str]:
    """Return type and message of a failure that a shim reports (docs/runtime-protocol.md).

    Raises `MalformedAnswer` if it is too long or not to be read, and what `Answer.read` raises.
    """
    try:
        fault = await read_said(answer)
        return str(fault["type"]), str(fault["message"])
    except (ValueError, KeyError, TypeError):
        raise MalformedAnswer("the handler failed, and the report of its shim is unreadable") from None
