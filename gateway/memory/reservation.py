"""Memory of one request: reserved before its body is read, and freed when the request ends.

How to use it, from a request's ASGI scope:

    reservation = reservation_of(scope)      # `Edge` creates it for the caller that it admitted
    await reservation.grow_to(size)          # before these bytes are read; raises `Problem` 503 `busy` or 413
    reservation.shrink_to(left)              # as soon as fewer bytes are needed

`Edge` frees all of it at the end of the request. A body with a declared length is reserved whole before its first
byte is read, so that half-read bodies never wait for each other. A body in chunks grows by `PIECE`.

Code that writes a body to a file as it arrives needs only `PIECE`, whatever the body's size: reserve `PIECE`, then
write the result of each `await body.more()` until it is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.http.problems import Problem
from gateway.memory.budget import BodyBudget
from pool.clock import Clock

RESERVATION = "hearth.reservation"
"""Key of the reservation in a request's scope."""
PIECE = 256 * 1024
"""Most bytes that one read of a connection returns: uvloop reads 256,000 at once."""
FIELD_BYTES = 160
"""Memory of the objects of one header field beside its characters: a tuple, two bytes objects, a place in a list."""
SMALL_REQUEST = 8 * 1024
"""Largest head, or small call that waits, that is not counted. The memory planned for a connection covers it."""
WAIT_SECONDS = 5.0
"""Longest wait of a request for memory: bodies on their way can end, and clients do not time out yet."""
RETRY_SECONDS = 2.0
"""`Retry-After` of a request without memory: bodies of others should have ended by then."""


class Reservation:
    """Bytes of the budget that one request holds, on account of `caller`."""

    __slots__ = ("_budget", "_caller", "_head", "_pieces", "held")

    def __init__(self, budget: BodyBudget, caller: str) -> None:
        self._budget = budget
        self._caller = caller
        self._head = 0
        self._pieces: list[bytes] = []
        self.held = 0
        """Bytes in use, without those of the head."""

    @property
    def clock(self) -> Clock:
        """Return the gateway's clock."""
        return self._budget.clock

    @property
    def most(self) -> int:
        """Return the most bytes that it can ever hold."""
        return self._budget.most(self._caller)

    def try_grow_to(self, size: int) -> bool:
        """Grow to `size` bytes if there is room now, and return whether there was."""
        if size > self.held:
            if not self._budget.take(self._caller, size - self.held):
                return False
            self.held = size
        return True

    async def grow_to(self, size: int) -> None:
        """Grow to `size` bytes, and wait for them if necessary.

        Raises `Problem`: 413 if the caller can never hold so many, 503 `busy` if there was no room in time. Bytes
        that it held before stay reserved.
        """
        if self.try_grow_to(size):
            return
        if size > self.most:
            detail = (
                f"the body is over {self.most} bytes, the most for one caller (a share of HEARTH_BODY_MEMORY)"
            )
            raise Problem("body-too-large", detail)
        if not self._budget.may_wait(self._caller) or not await self._wait(size - self.held):
            self._budget.on_refused("body")
            raise busy()
        self.held = size

    async def _wait(self, more: int) -> bool:
        """Wait for `more` bytes, and return whether they were granted in time. A cancelled wait takes none."""
        granted = asyncio.Event()
        waiter = self._budget.wait(self._caller, more, granted.set)
        try:
            async with self._budget.clock.timeout(WAIT_SECONDS):
                await granted.wait()
        except TimeoutError:
            return not waiter.waiting
        except asyncio.CancelledError:
            if not waiter.waiting:
                self._budget.give_back(self._caller, more)
            raise
        finally:
            self._budget.leave(waiter)
        return True

    def shrink_to(self, size: int) -> None:
        """Free all bytes beyond `size`."""
        if size < self.held:
            more, self.held = self.held - size, size
            self._budget.give_back(self._caller, more)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Return a block in which this is the only request whose large document is parsed.

        Raises `Problem` 503 `busy` if others have not ended in time.
        """
        lock = self._budget.documents
        try:
            async with self._budget.clock.timeout(WAIT_SECONDS):
                await lock.acquire()
        except TimeoutError:
            self._budget.on_refused("document")
            raise busy() from None
        try:
            yield
        finally:
            lock.release()

    def take_head(self, size: int) -> bool:
        """Hold the bytes of the request's head, and return whether there was room. Call it once.

        A small head is not counted.
        """
        if size > SMALL_REQUEST:
            if not self._budget.take(self._caller, size, in_turn=False):
                self._budget.on_refused("head")
                return False
            self._head = size
        return True

    def drop_at_end(self, pieces: list[bytes]) -> None:
        """Have `close` empty the list `pieces`.

        After a failed call, objects refer to each other in a circle. They would wait uncounted for the garbage
        collector.
        """
        self._pieces = pieces

    def close(self) -> None:
        """Free all bytes."""
        self._pieces.clear()
        self.shrink_to(0)
        if self._head:
            self._budget.give_back(self._caller, self._head)
            self._head = 0


def head_bytes(scope: Mapping[str, Any]) -> int:
    """Return the memory of a request's header fields and target."""
    return (
        len(scope["raw_path"])
        + sum(len(name) + len(value) + FIELD_BYTES for name, value in scope["headers"])
        + len(scope["query_string"])
    )


def busy() -> Problem:
    """Return the problem of a request for which there is no memory now."""
    detail = "the memory for requests is used up (HEARTH_BODY_MEMORY); send the request again later"
    return Problem("busy", detail, RETRY_SECONDS)


class _NoLimit(Reservation):
    """Reservation of a request that no client sends. Its creator bounds its size."""

    __slots__ = ()

    def try_grow_to(self, size: int) -> bool:
        return True

    def drop_at_end(self, pieces: list[bytes]) -> None:
        """Do nothing: all such requests share this reservation, and it never ends."""


NO_LIMIT = _NoLimit(BodyBudget(0), "")


def reservation_of(scope: Mapping[str, Any]) -> Reservation:
    """Return the reservation of a request, or `NO_LIMIT` for an accepted call that runs: its body is in the store."""
    found = scope.get(RESERVATION, NO_LIMIT)
    assert isinstance(found, Reservation)
    return found
