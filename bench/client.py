"""An HTTP/1.1 client that costs less than what it measures: one connection, one request at a time, no tasks."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

NAME_WIDTH = 12
"""Characters of a nonce: always the same, so that a request's length is too."""
MOST_BODY = 2**20
"""Bytes of an answer that are read; the functions of the benchmark answer with less than a hundred."""


class BadUrl(ValueError):
    """The address is not one that the benchmark may load; the message says why."""


class CallFailed(Exception):
    """A call got no answer, or not the right one; the message is what it is counted as."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that has arrived whole. `start` is its `X-Hearth-Start`, `timing` its `Server-Timing`, empty if it
    has none."""

    status: int
    body: bytes
    start: str
    timing: bytes = b""

    def took(self, part: str) -> float | None:
        """Milliseconds that the answer says it spent on a part; None if it does not say."""
        found = re.search(rf"\b{part};dur=([0-9.]+)".encode(), self.timing)
        return float(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As text, without a path."""
        return f"http://{self.authority}"

    @property
    def authority(self) -> str:
        """As the Host field says it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def loopback_address(url: str) -> Address:
    """The address in a URL. Raises `BadUrl` unless it is plain HTTP on this machine's loopback."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise BadUrl(f"{url!r} is not a URL: {error}") from None
    if parts.scheme != "http" or not parts.hostname or parts.username:
        raise BadUrl(f"{url!r}: expected http://HOST:PORT")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadUrl(f"{url!r}: expected the gateway's address alone, http://HOST:PORT")
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise BadUrl(f"{parts.hostname} is not a loopback address: the benchmark loads this machine only")
    return Address(host, port)


class Greeting:
    """Calls of the example function `hello`, each with a name of its own, and how its answers are checked."""

    def __init__(self, target: str, authority: str, prefix: str = "") -> None:
        self._head = (
            f"POST {target} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n"
            f'content-length: {len(self.body("")) + NAME_WIDTH}\r\n\r\n{{"name":"'
        ).encode()
        self._prefix = prefix
        self._count = 0

    @staticmethod
    def body(name: str) -> str:
        """A request's body."""
        return f'{{"name":"{name}"}}'

    def next(self) -> tuple[bytes, bytes]:
        """Another request, and what must be in its answer's body."""
        self._count += 1
        name = f"{self._prefix}{self._count:0{NAME_WIDTH - len(self._prefix)}x}".encode()
        return self._head + name + b'"}', b"Hello, " + name + b"!"


def fault_of(reply: Reply, expected: bytes) -> str | None:
    """What is wrong with an answer, in words to count it by; None if nothing is."""
    if reply.status != 200:
        return f"status {reply.status}"
    if expected not in reply.body:
        return "wrong body"
    return None


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time. `on_reply` and `on_lost` may be set anew at any time.

    `on_lost` is called once, with what is to be counted: because the other side has closed, or has answered
    with what is not HTTP.
    """

    def __init__(self) -> None:
        self.on_reply: Callable[[Reply], None] = lambda reply: None
        self.on_lost: Callable[[str], None] = lambda why: None
        self.transport: asyncio.Transport | None = None
        self._why = "connection lost"
        self._given_up = False
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._size = 0
        self._start = ""
        self._timing = b""

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self.transport is not None and not self.transport.is_closing()

    def send(self, request: bytes) -> None:
        """Send a request; the answer goes to `on_reply`."""
        assert self.transport is not None
        self.transport.write(request)

    async def call(self, request: bytes, timeout: float) -> Reply:
        """Send one request and wait for its answer, `timeout` seconds at most. Raises `CallFailed`."""
        waiter: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def lost(why: str) -> None:
            if not waiter.done():
                waiter.set_exception(CallFailed(why))

        def replied(reply: Reply) -> None:
            if not waiter.done():
                waiter.set_result(reply)

        self.on_lost, self.on_reply = lost, replied
        if not self.is_open:
            raise CallFailed("connection lost")
        self.send(request)
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError:
            self.close()
            raise CallFailed("no answer in time") from None

    def close(self) -> None:
        """Close at once; nothing is reported."""
        self.on_lost = lambda why: None
        if self.transport is not None:
            self.transport.abort()

    # -- called by the event loop ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.on_lost(self._why)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._give_up("answer is not HTTP")

    # -- called by the parser --------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 14 and name.lower() == b"x-hearth-start":
            self._start = value.decode("latin-1")
        elif len(name) == 13 and name.lower() == b"server-timing":
            self._timing = value

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)
        self._size += len(piece)
        if self._size > MOST_BODY:
            self._give_up("answer too long")

    def on_message_complete(self) -> None:
        if self._given_up:
            return
        reply = Reply(self._parser.get_status_code(), b"".join(self._body), self._start, self._timing)
        self._body.clear()
        self._size, self._start, self._timing = 0, "", b""
        if not self._parser.should_keep_alive() and self.transport is not None:
            self.transport.close()
        self.on_reply(reply)

    def _give_up(self, why: str) -> None:
        self._why, self._given_up = why, True
        self._body.clear()
        if self.transport is not None:
            self.transport.abort()


async def connect(address: Address, timeout: float = 10.0) -> Connection:
    """Open a connection to a gateway. Raises `CallFailed`."""
    try:
        async with asyncio.timeout(timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                Connection, address.host, address.port
            )
    except OSError as error:  # TimeoutError is one
        raise CallFailed(f"cannot connect: {type(error).__name__}") from error
    return connection
