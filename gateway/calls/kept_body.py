"""A body that is kept while it comes: a small one in memory, a larger one in the store, piece by piece."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.http.forwarding import HeaderList
from pool.clock import Clock
from scheduler.calls.store import CallStore, StoreFull
from scheduler.triggers.cloud_events import is_event
from scheduler.work import Payload

INLINE = 256 * 1024
"""Bytes of a body that is kept in memory until it is whole; with 64 calls at once that is 16 MiB."""
INLINE_EVENT = 2**20
"""`INLINE` for an answer that is an event, or several: it is read whole when its call ends."""
PIECE = 256 * 1024
"""Bytes of a piece: large enough for few commits, and small enough that 64 of them at once are 16 MiB."""
TRIES, TRY_AGAIN_SECONDS = 100, 0.1
"""Attempts of a large answer to get room while others are coming, and the pause between them: 10 s in all, for which
it keeps its instance."""
Begin = Callable[[int], Awaitable[int]]
"""Begins a payload of so many bytes, as far as is known. Raises `StoreFull`."""


class KeptBody:
    """One body. `discard` it unless `end` was reached and the record that refers to it was written."""

    def __init__(
        self,
        store: CallStore,
        begin: Begin,
        clock: Clock,
        coming: set[int] | None = None,
        direct: bool = False,
    ) -> None:
        """Make one that is empty.

        If there is no room, the payloads in `coming` are waited for; None waits for nothing. `direct` is that of
        `shares.usable_bytes`.
        """
        self._store = store
        self._clock = clock
        self._begin_payload = begin
        self._coming = coming
        self._direct = direct
        self._inline = INLINE
        self._expected = 0
        self._waiting: list[bytes] = []
        self._buffered = 0
        self._size = 0
        self._payload: int | None = None

    def expect(self, headers: HeaderList) -> None:
        """Note the length and the kind of body that the head declares."""
        if is_event(headers):
            self._inline = INLINE_EVENT
        for name, value in headers:
            if name == b"content-length" and value.isdigit():
                self._expected = int(value)

    async def add(self, data: bytes) -> None:
        """Keep some more. Raises `StoreFull` if there is no room for it, and `StoreError`."""
        self._waiting.append(data)
        self._buffered += len(data)
        self._size += len(data)
        if self._payload is None and max(self._size, self._expected) > self._inline:
            await self._begin()
        if self._payload is not None and self._buffered >= PIECE:
            await self._flush(self._payload)

    async def end(self) -> tuple[bytes, Payload | None]:
        """Return the body and None, or nothing and its place in the store if it is there. Raises as `add`."""
        if self._payload is None:
            return b"".join(self._waiting), None
        if self._buffered:
            await self._flush(self._payload)
        self._has_come(self._payload)
        return b"", Payload(self._payload, self._size)

    def discard(self) -> None:
        """Keep nothing of it."""
        self._waiting.clear()
        if self._payload is not None:
            self._has_come(self._payload)
            self._store.discard(self._payload)

    def _has_come(self, payload: int) -> None:
        if self._coming is not None:
            self._coming.discard(payload)

    async def _begin(self) -> None:
        """Begin the payload. Wait for others that are just coming: they can be forgotten soon."""
        for left in range(TRIES, -1, -1):
            try:
                self._payload = await self._begin_payload(self._expected)
                if self._coming is not None:
                    self._coming.add(self._payload)
                return
            except StoreFull:
                if not left or not self._coming:
                    raise
            await self._clock.sleep(TRY_AGAIN_SECONDS)

    async def _flush(self, payload: int) -> None:
        data, self._waiting, self._buffered = b"".join(self._waiting), [], 0
        for at in range(0, len(data), PIECE):
            await self._store.add_piece(payload, data[at : at + PIECE], self._direct)
