"""Sends a request whose body comes in pieces, no faster than the instance reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol

from pool.errors import InstanceDied
from pool.transport.message import Answer, Call


class PiecewiseConnection(Protocol):
    """A connection to an instance, as far as sending a body needs it."""

    open: bool
    can_write: asyncio.Future[None] | None
    """Done once the instance takes more, or None while it does."""

    def spoil(self) -> None:
        """Use the connection for no further call."""

    def abort(self) -> None:
        """Close at once."""


async def send_in_pieces(
    connection: PiecewiseConnection,
    transport: asyncio.Transport,
    head: bytes,
    call: Call,
    waiter: asyncio.Future[Answer],
) -> Answer:
    """Send a request, and return its answer, which `waiter` brings. `head` lacks the framing and the empty line.

    Sending stops when the instance has answered or is gone. Raises `InstanceDied`, and what the body raises.
    """
    try:
        await send_request(connection, transport, head, call, waiter)
    except BaseException:
        _give_up(connection, waiter)
        raise
    return await waiter


async def send_request(
    connection: PiecewiseConnection,
    transport: asyncio.Transport,
    head: bytes,
    call: Call,
    until: asyncio.Future[Any],
) -> None:
    """Send a request whose `head` lacks the framing and the empty line, until its body ends or `until` is done.

    Raises `InstanceDied`, and what the body raises.
    """
    chunked = call.length is None
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (call.length or 0)
    transport.write(b"%b%b\r\n\r\n" % (head, framing))
    if await _send_body(connection, transport, call, until) and chunked and connection.open:
        transport.write(b"0\r\n\r\n")


async def _send_body(
    connection: PiecewiseConnection, transport: asyncio.Transport, call: Call, until: asyncio.Future[Any]
) -> bool:
    """Send the body until it ends, or nobody reads it any more; return whether it has ended."""
    assert call.more is not None
    piece, left = call.first, call.length
    while True:
        if until.done() or not connection.open:  # it answered before it had read everything, or has closed
            connection.spoil()
            return False
        if piece:
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if left is None else piece)
            left = None if left is None else left - len(piece)
        if left == 0:
            return True
        if connection.can_write is not None:
            await asyncio.wait((connection.can_write, until), return_when=asyncio.FIRST_COMPLETED)
        following = await _unless_done(call.more(), until)
        if following is None:
            connection.spoil()
            return False
        if not following:
            break
        piece = following
    if left is not None:
        raise InstanceDied("the body ended before its declared length")
    return True


def _give_up(connection: PiecewiseConnection, waiter: asyncio.Future[Answer]) -> None:
    """Close at once. The caller learns of the request's fault, and nobody asks for the answer any more."""
    connection.abort()
    if not waiter.cancel() and not waiter.cancelled():
        waiter.exception()


async def _unless_done(reading: Awaitable[bytes], until: asyncio.Future[Any]) -> bytes | None:
    """Return the next piece of the body, or None if `until` is done first."""
    task = asyncio.ensure_future(reading)
    try:
        await asyncio.wait((task, until), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
