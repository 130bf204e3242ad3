"""Requests of the gateway to a container's init: a byte stream to a server inside, a file, its status.

init keeps a connection open for that. docs/init.md has the verbs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pool.errors import MalformedAnswer, PoolError
from pool.transport.connection import HttpConnection
from pool.transport.message import Answer, Call, read_report
from pool.transport.slots import SlotLink
from pool.transport.way import Way

HOST = (b"host", b"hearth")
MOST_CONNECTIONS = 4
"""Bounds how many connections init may have open here. It keeps one, and opens the next when a stream takes that."""


MAX_FILE_BYTES = 2**20
"""Bounds a file that is read: twice what the kernel's table of 4,000 connections takes."""


class InitCalls:
    """The gateway's end of one container's init. `sink` takes what the container prints."""

    def __init__(self, way: Way, sink: Callable[[bytes], None]) -> None:
        self._dialled = asyncio.Event()
        self._closed = False
        self.link = SlotLink(way, self._dialled.set, sink)
        self.link.slots = MOST_CONNECTIONS

    async def reached(self) -> None:
        """Wait until init has dialled: what the container prints then comes here too. Raises OSError."""
        self.link.give(await self._take())

    async def connect(self, address: str, protocol: asyncio.Protocol) -> None:
        """Connect a protocol to an address in the container. Raises OSError if nobody listens or init is gone."""
        connection = await self._take()
        try:
            answer = await connection.exchange(Call(b"CONNECT", address.encode(), [HOST]))
            if answer.status == 200:
                hand_over(connection, protocol)
                return
            _, said = await read_report(answer)
        except PoolError as error:
            raise ConnectionError(str(error)) from error
        finally:
            self.link.give(connection)
        raise ConnectionRefusedError(said)

    async def read_file(self, path: str) -> bytes:
        """Return the content of a file in the container; empty if there is none. Raises OSError if init is gone."""
        connection = await self._take()
        try:
            answer = await connection.exchange(Call(b"GET", b"/files" + path.encode(), [HOST]))
            content = await read_whole(answer)
        except PoolError as error:
            raise ConnectionError(str(error)) from error
        finally:
            self.link.give(connection)
        return content if answer.status == 200 else b""

    async def _take(self) -> HttpConnection:
        while (connection := self.link.take()) is None:
            if self._closed:
                raise ConnectionError("the instance is gone")
            self._dialled.clear()
            await self._dialled.wait()
        return connection

    async def close(self) -> None:
        """Close the way; who waits for a connection gets an error."""
        self._closed = True
        self._dialled.set()
        await self.link.close()


def hand_over(connection: HttpConnection, successor: asyncio.Protocol) -> None:
    """Give the transport of a connection to another protocol, with all that came after the answer to a CONNECT.

    Raises `NotSent` if it is gone.
    """
    received, transport = connection.take(), connection.detach()
    transport.set_protocol(successor)
    successor.connection_made(transport)
    if received:
        successor.data_received(received)


async def read_whole(answer: Answer) -> bytes:
    """Return the body of an answer. Raises `MalformedAnswer` if it is too long, and what `Answer.read` raises."""
    body = bytearray()
    while piece := await answer.read():
        body += piece
        if len(body) > MAX_FILE_BYTES:
            raise MalformedAnswer(f"init answers with more than {MAX_FILE_BYTES} bytes")
    return bytes(body)
