"""uvicorn's HTTP protocol with one system call for a response. uvicorn makes one for the head and one for the body.

A write that wakes the client is among the most costly steps of a warm call.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_JOINED_BYTES = 32 * 1024
"""Bound of the bytes that wait for the end of the turn: joining more gains nothing."""


class OneWriteTransport:
    """A transport that joins what is written within one turn of the loop, up to `MOST_JOINED_BYTES` bytes.

    Everything else goes to the transport behind it. `close` writes first; `abort` does not.
    """

    __slots__ = ("_behind", "_loop", "_pending", "_size")

    def __init__(self, behind: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._behind = behind
        self._loop = loop
        self._pending: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write at the end of this turn of the loop, or now if much is waiting: a slow reader must be noticed."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)
        self._size += len(data)
        if self._size > MOST_JOINED_BYTES:
            self._flush()

    def write_now(self, data: bytes) -> None:
        """Write all that is pending, and this behind it: for who knows that nothing more follows."""
        self._flush()
        self._behind.write(data)

    def _flush(self) -> None:
        pending = self._pending
        if pending:
            self._pending, self._size = [], 0
            if self._behind.is_closing():
                return  # it was lost, or aborted, since
            self._behind.write(pending[0] if len(pending) == 1 else b"".join(pending))

    def close(self) -> None:
        """Write what is pending, then close."""
        self._flush()
        self._behind.close()

    def write_eof(self) -> None:
        """Write what is pending, then end our direction of the connection."""
        self._flush()
        self._behind.write_eof()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's protocol over a `OneWriteTransport`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the loop."""
        super().connection_made(OneWriteTransport(transport, self.loop))  # type: ignore[arg-type]
