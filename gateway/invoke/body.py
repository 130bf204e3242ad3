"""A request's body: read ahead a little, bounded, and then piece by piece as the function takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request

from gateway.access.access import CURRENT
from gateway.http.problems import Problem
from gateway.memory.reservation import PIECE, reservation_of
from pool.clock import Clock

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LATE = "hearth.late"
"""Key that the server puts into a request's scope when the beginning of its body has not come in time."""

READ_AHEAD = 64 * 1024
"""Bytes that are read before an instance is leased: a slow sender of a small body holds no instance up."""
QUEUED_READ_AHEAD = 256 * 1024
"""Bytes that are read while the call waits. Beyond it the client is not read, so that it is not seen leaving."""


class ClientGone(Exception):
    """The client has closed its connection; there is nobody to answer."""


class RequestBody:
    """The body of one request. `limit` is in bytes, `limited_by` names the setting behind it.

    No byte is read that has no room in the request's reservation (`gateway/memory/reservation.py`).
    """

    __slots__ = (
        "_chunks",
        "_declared",
        "_receive",
        "_reservation",
        "_scope",
        "complete",
        "length",
        "limit",
        "limited_by",
        "size",
        "waiting",
    )

    def __init__(
        self,
        receive: Receive,
        scope: Mapping[str, Any],
        limit: int,
        limited_by: str = "max_body of the function",
    ) -> None:
        self.limited_by = limited_by
        self._receive = receive
        self._scope = scope
        self._chunks: list[bytes] = []
        self.limit = limit
        self.size = 0
        self.complete = False
        self.waiting = False
        """Set while the client is waited for."""
        self.length: int | None = None
        """Declared length in bytes, or None for chunks and for no body at all."""
        self._reservation = reservation_of(scope)
        self._reservation.drop_at_end(self._chunks)
        self._declared = 0
        """The most bytes that the body can have by its head: 0 if the head announces none."""
        for name, value in scope["headers"]:
            if name == b"content-length":
                self._declared = self.length = int(value)
            elif name == b"transfer-encoding":
                self._declared = limit + PIECE

    async def read_ahead(self, limit: int = READ_AHEAD, use: Callable[[bytes], None] | None = None) -> None:
        """Read until the body is complete, or `limit` bytes are here or were given to `use`.

        Raises `ClientGone` and `Problem` 413 or 503.
        """
        if self.length is not None and self.length > self.limit:
            await self._discard()
        while not self.complete and self.size < limit:
            await self._reservation.grow_to(self._held_after(limit))
            await self._receive_one()
            if use is not None:
                use(self.take())
        if self.complete and self.length is None:
            self._reservation.shrink_to(self.size)

    def _held_after(self, limit: int) -> int:
        """Return the bytes to reserve for the next piece, or for all that is read ahead of a declared length."""
        ahead = limit if self.length is not None else self.size
        return min(ahead + PIECE, self._declared)

    def fill(self, body: bytes) -> None:
        """Take a whole body that has been read already and is within the limit."""
        self._chunks.append(body)
        self.size, self.complete = len(body), True

    async def _receive_one(self) -> None:
        self.waiting = True
        message = await self._receive()
        self.waiting = False
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        self.complete = not message.get("more_body", False)
        if chunk:
            self.size += len(chunk)
            if self.size > self.limit:
                await self._discard()
            self._chunks.append(chunk)
        elif not self.complete and LATE in self._scope:
            raise Problem("body-timeout", "the beginning of the request's body did not come in time")

    async def _discard(self) -> None:
        """Drop up to twice the limit, so that a client that is still sending sees the 413. Raises `Problem`."""
        self._chunks.clear()
        while not self.complete and self.size <= 2 * self.limit and LATE not in self._scope:
            self.waiting = True
            message = await self._receive()
            self.waiting = False
            if message["type"] == "http.disconnect":
                raise ClientGone
            self.size += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        raise Problem("body-too-large", f"the body is over {self.limit} bytes ({self.limited_by})")

    @property
    def clock(self) -> Clock:
        """Return the gateway's clock."""
        return self._reservation.clock

    def take(self) -> bytes:
        """Return all bytes that were read and not yet taken."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        return data

    def take_pieces(self) -> list[bytes]:
        """Return the pieces that were read and not yet taken, as they came."""
        pieces = self._chunks.copy()
        self._chunks.clear()
        return pieces

    def put_back(self, data: bytes) -> None:
        """Undo a `take` whose data was not sent."""
        if data:
            self._chunks.insert(0, data)

    async def more(self) -> bytes:
        """Return the next piece, or nothing at the end. Raises like `read_ahead`."""
        while not self._chunks and not self.complete:
            await self._receive_one()
        return self.take()

    async def watch(self) -> None:
        """Raise `ClientGone` when the client leaves; never return. Read ahead meanwhile, within bounds."""
        most = self._held_after(QUEUED_READ_AHEAD)
        try:
            while self.complete or (self.size < QUEUED_READ_AHEAD and self._reservation.try_grow_to(most)):
                if self.complete:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                else:
                    await self._receive_one()
            await asyncio.get_running_loop().create_future()
        finally:
            self.waiting = False


async def client_leaves(receive: Receive, feeding: asyncio.Future[None] | None) -> None:
    """Return when the client has left. What is still `feeding` an instance reads the client until it is done."""
    if feeding is not None:
        await asyncio.wait((feeding,))
    while (await receive())["type"] != "http.disconnect":
        pass


DOCUMENT_FACTOR = 24
"""Memory that JSON takes when it is parsed, as a multiple of its text: `[[],[],` has 64 bytes for each 3."""
SMALL_DOCUMENT = 256 * 1024
"""Bytes of JSON that may be parsed beside others."""
BODY_TIMEOUT_SECONDS = 60.0
"""Limit for the body of a request to the API: such bodies take a place and have no function's time-out."""


async def whole_body(request: Request, limit: int, limited_by: str) -> bytes:
    """Return the body of a request to the API, of at most `limit` bytes. Raises `Problem`.

    Its memory is reserved until the request is answered.
    """
    body = RequestBody(request.receive, request.scope, limit, limited_by)
    with CURRENT.get().sending():
        await read_whole(body)
    return body.take()


@asynccontextmanager
async def whole_document(request: Request, limit: int, limited_by: str) -> AsyncIterator[bytes]:
    """Yield the body of a request to the API, with memory for the parsed JSON until the end of the block.

    That memory is reserved for small bodies; large ones are parsed one at a time. Raises `Problem`.
    """
    reservation = reservation_of(request.scope)
    body = RequestBody(request.receive, request.scope, limit, limited_by)
    with CURRENT.get().sending():
        if body.length is not None and body.length <= min(limit, SMALL_DOCUMENT):
            await reservation.grow_to(min(body.length * DOCUMENT_FACTOR, reservation.most))
        await read_whole(body)
    try:
        if body.size <= SMALL_DOCUMENT:
            await reservation.grow_to(min(body.size * DOCUMENT_FACTOR, reservation.most))
            yield body.take()
        else:
            async with reservation.alone():
                yield await asyncio.to_thread(b"".join, body.take_pieces())
    finally:
        reservation.shrink_to(0)


async def each_piece(request: Request, limit: int, limited_by: str, use: Callable[[bytes], None]) -> None:
    """Give each piece of a body to `use` as it comes; else like `whole_body`.

    Memory is reserved for all of the body: a refusal must not tell whether the pieces are kept.
    """
    body = RequestBody(request.receive, request.scope, limit, limited_by)
    with CURRENT.get().sending():
        await read_whole(body, use)


async def read_whole(body: RequestBody, use: Callable[[bytes], None] | None = None) -> None:
    """Read a body to its end, within `BODY_TIMEOUT_SECONDS`. Without `use` it is kept in `body`. Raises `Problem`."""
    try:
        async with body.clock.timeout(BODY_TIMEOUT_SECONDS):
            await body.read_ahead(body.limit + 1, use)
    except TimeoutError:
        raise Problem("body-timeout", "the rest of the request's body did not come in time") from None
    except ClientGone:
        raise Problem("body-timeout", "the client left before its whole body had arrived") from None
