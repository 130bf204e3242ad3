"""The answer of an accepted call while it comes: small ones in memory, larger ones into the store, piece by piece."""

from __future__ import annotations

import asyncio

from gateway.forwarding import HeaderList
from gateway.problems import Problem
from scheduler.durable.model import Payload
from scheduler.durable.store import Store, StoreFull
from scheduler.triggers.wire import is_event

INLINE = 256 * 1024
"""Bytes of an answer that is kept in memory until its call ends; with 64 calls at once that is 16 MiB."""
INLINE_EVENT = 2**20
"""The same of an answer that is an event, or several: it is read whole when its call ends."""
PIECE = 256 * 1024
"""Bytes of a piece: large enough for few commits, and small enough that 64 of them at once are 16 MiB."""
TRIES, TRY_AGAIN_SECONDS = 100, 0.1
"""How often a large answer asks for room while others are coming, and how long it waits in between: 10 s in all, with
its instance."""


class KeptAnswer:
    """The body of one answer. `call` is the id of the accepted call, `coming` the payloads of all that come now."""

    def __init__(self, store: Store, call: str, coming: set[int]) -> None:
        self._store = store
        self._coming = coming
        self._call = call
        self._inline = INLINE
        self._expected = 0
        self._waiting: list[bytes] = []
        self._buffered = 0
        self._size = 0
        self._payload: int | None = None

    def begin(self, headers: HeaderList) -> None:
        """Take note of what is to come."""
        if is_event(headers):
            self._inline = INLINE_EVENT
        for name, value in headers:
            if name == b"content-length" and value.isdigit():
                self._expected = int(value)

    async def add(self, data: bytes) -> None:
        """Keep some more. Raises `Problem` not-kept if there is no room for it, and `StoreError`."""
        self._waiting.append(data)
        self._buffered += len(data)
        self._size += len(data)
        if self._payload is None and max(self._size, self._expected) > self._inline:
            await self._begin()
        if self._payload is not None and self._buffered >= PIECE:
            await self._flush(self._payload)

    async def end(self) -> tuple[bytes, Payload | None]:
        """Return the body; if it lies in the store, that it does, and an empty one. Raises as `add`."""
        if self._payload is None:
            return b"".join(self._waiting), None
        if self._buffered:
            await self._flush(self._payload)
        self._coming.discard(self._payload)
        return b"", Payload(self._payload, self._size)

    def discard(self) -> None:
        """Keep nothing of it."""
        self._waiting.clear()
        if self._payload is not None:
            self._coming.discard(self._payload)
            self._store.discard(self._payload)

    async def _begin(self) -> None:
        """Announce it. Other answers that are just coming can be forgotten soon: they are waited for."""
        for left in range(TRIES, -1, -1):
            try:
                self._payload = await self._store.begin_payload(self._call, self._expected)
                self._coming.add(self._payload)
                return
            except StoreFull as full:
                if not left or not self._coming:
                    raise _not_kept(full) from full
            await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def _flush(self, payload: int) -> None:
        data, self._waiting, self._buffered = b"".join(self._waiting), [], 0
        try:
            for at in range(0, len(data), PIECE):
                await self._store.add_piece(payload, data[at : at + PIECE])
        except StoreFull as full:
            raise _not_kept(full) from full


def _not_kept(full: StoreFull) -> Problem:
    return Problem("not-kept", f"the answer was not kept: {full}")
