"""The memory of one request: reserved before its body is read, given back when the request ends.

How to use it, from a request's ASGI scope:

    reservation = reservation_of(scope)      # made by `Edge` for the caller that it admitted
    await reservation.grow_to(size)          # before these bytes are read; raises `Problem` 503 `busy` or 413
    reservation.shrink_to(left)              # as soon as fewer bytes are held

`Edge` gives all of it back at the end of the request. A whole body is reserved by its declared length before the
first byte is read, so that half-read bodies never wait for each other. One in chunks grows by `PIECE`.

Whoever writes a body to a file as it comes needs `PIECE` at a time, whatever the body's size: reserve `PIECE`, then
write what each `await body.more()` gives until it is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.http.problems import Problem
from gateway.memory.budget import BodyBudget

RESERVATION = "hearth.reservation"
"""Key of a request's scope under which its reservation is."""
PIECE = 256 * 1024
"""Bytes that one read of a connection brings at most: uvloop reads 256,000 at once."""
FIELD_BYTES = 160
"""Memory that the objects of one header field take beside its characters: a tuple, two bytes objects, a place in a
list."""
SMALL_REQUEST = 8 * 1024
"""Memory of a head, or of a small call that waits, that is not counted: a connection's own part has room for it."""
WAIT_SECONDS = 5.0
"""Time that a request waits for room: long enough for bodies on their way to end, short for a client's time-out."""
RETRY_SECONDS = 2.0
"""Seconds that `Retry-After` says where there was no room."""


class Reservation:
    """The bytes that one request holds of the budget, on account of `caller`."""

    __slots__ = ("_budget", "_caller", "_head", "_pieces", "held")

    def __init__(self, budget: BodyBudget, caller: str) -> None:
        self._budget = budget
        self._caller = caller
        self._head = 0
        self._pieces: list[bytes] = []
        self.held = 0
        """Bytes, beside those of the head."""

    @property
    def most(self) -> int:
        """Bytes that it can ever have."""
        return self._budget.most(self._caller)

    def try_grow_to(self, size: int) -> bool:
        """Hold `size` bytes in all, if there is room at once."""
        if size > self.held:
            if not self._budget.take(self._caller, size - self.held):
                return False
            self.held = size
        return True

    async def grow_to(self, size: int) -> None:
        """Hold `size` bytes in all; waits for them if need be. Raises `Problem`: 413 if the caller can never have so
        many, 503 `busy` if there was no room in time. It keeps what it held."""
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
        """Return whether `more` bytes came in time. A wait that is cancelled leaves nothing behind."""
        granted = asyncio.Event()
        waiter = self._budget.wait(self._caller, more, granted.set)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
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
        """Hold at most `size` bytes."""
        if size < self.held:
            more, self.held = self.held - size, size
            self._budget.give_back(self._caller, more)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be the only request that has so large a document parsed, until the end of the block. Raises `Problem` 503
        `busy` if others have not ended in time."""
        lock = self._budget.documents
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await lock.acquire()
        except TimeoutError:
            self._budget.on_refused("document")
            raise busy() from None
        try:
            yield
        finally:
            lock.release()

    def take_head(self, size: int) -> bool:
        """Hold the request's head too, once; False if there is no room for it. A small one is not counted."""
        if size > SMALL_REQUEST:
            if not self._budget.take(self._caller, size, in_turn=False):
                self._budget.on_refused("head")
                return False
            self._head = size
        return True

    def drop_at_end(self, pieces: list[bytes]) -> None:
        """Have what is still in `pieces` dropped by `close`. Who refers to whom goes in circles after a failed call:
        it would wait for the garbage collector, and nobody would count it."""
        self._pieces = pieces

    def close(self) -> None:
        """Hold nothing."""
        self._pieces.clear()
        self.shrink_to(0)
        if self._head:
            self._budget.give_back(self._caller, self._head)
            self._head = 0


def head_bytes(scope: Mapping[str, Any]) -> int:
    """Memory that a request's header fields and target take."""
    return (
        len(scope["raw_path"])
        + sum(len(name) + len(value) + FIELD_BYTES for name, value in scope["headers"])
        + len(scope["query_string"])
    )


def busy() -> Problem:
    """The problem of a request for which there is no memory now."""
    detail = "the memory for requests is used up (HEARTH_BODY_MEMORY); send the request again later"
    return Problem("busy", detail, RETRY_SECONDS)


class _NoLimit(Reservation):
    """The reservation of what no client sends: whoever made it bounds it."""

    __slots__ = ()

    def try_grow_to(self, size: int) -> bool:
        return True

    def drop_at_end(self, pieces: list[bytes]) -> None:
        """It is everybody's, and has no end."""


NO_LIMIT = _NoLimit(BodyBudget(0), "")


def reservation_of(scope: Mapping[str, Any]) -> Reservation:
    """Return the reservation of a request. An accepted call that runs has none: its body is not on its way here."""
    found = scope.get(RESERVATION, NO_LIMIT)
    assert isinstance(found, Reservation)
    return found
