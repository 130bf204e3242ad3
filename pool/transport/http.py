"""The way to an image that serves HTTP: the gateway dials, by default into the container's own namespace."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from pool.clock import Clock
from pool.errors import NotSent
from pool.transport.connection import HttpConnection
from pool.transport.message import Call

IDLE_LIMIT_SECONDS = 1.5
"""Bounds the age of an idle connection that is used again. Servers wait longer (gunicorn: 2 s), so that none closes a
connection just as it is used."""

Dial = Callable[[], Awaitable[socket.socket]]
"""Opens a connected, non-blocking socket to the server; raises OSError."""


class HttpLink:
    """Connections to a server, kept open between calls. A slot is a right to call, `slots` in all."""

    exit_status = None

    def __init__(
        self, dial: Dial, slots: int, clock: Clock, on_close: Callable[[], None] | None = None
    ) -> None:
        self._clock = clock
        self._dial = dial
        self._slots = slots
        self._on_close = on_close
        self._free: list[HttpConnection] = []
        self._all: set[HttpConnection] = set()

    def _lost(self, connection: HttpConnection) -> None:
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)

    @property
    def alive(self) -> bool:
        """Return True: a server may close connections at will, so they say nothing."""
        return True

    @property
    def connections(self) -> int:
        """Return how many connections are open, with a call or without."""
        return len(self._all)

    def free_slots(self, in_use: int) -> int:
        """Return how many calls it may be given on top of those that run."""
        return self._slots - in_use

    def take(self) -> HttpConnection | None:
        """Return an open connection that was used a moment ago, or None."""
        now = self._clock.now()
        while self._free:
            connection = self._free.pop()
            if connection.open and now - connection.idle_since < IDLE_LIMIT_SECONDS:
                return connection
            connection.abort()
        return None

    async def connect(self, call: Call | None = None) -> HttpConnection:
        """Open a connection. Raises `NotSent` if the server does not accept one."""
        try:
            sock = await self._dial()
        except OSError as error:
            raise NotSent(f"the instance does not accept a connection: {error}") from error
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(None, self._lost), sock=sock
        )
        self._all.add(connection)
        return connection

    def give(self, connection: HttpConnection) -> None:
        """Take a connection back after its call."""
        if connection.finish():
            connection.idle_since = self._clock.now()
            self._free.append(connection)

    def drain_log(self) -> None:
        """Do nothing: the engine keeps a server's output, which belongs to no single call."""

    async def close(self) -> None:
        """Close every connection."""
        for connection in list(self._all):
            connection.abort()
        if self._on_close is not None:
            self._on_close()
