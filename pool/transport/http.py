"""The way to an image that serves HTTP: the gateway opens connections to its port, and keeps them for a while."""

from __future__ import annotations

from typing import Protocol

from pool.clock import Clock
from pool.errors import NotSent
from pool.transport.connection import HttpConnection
from pool.transport.message import Call

IDLE_LIMIT_SECONDS = 1.5
"""Bounds the age of an idle connection that is used again. Servers wait longer (gunicorn: 2 s), so that none closes a
connection just as it is used."""


class Dials(Protocol):
    """A server in a container, as its link needs it."""

    async def dial(self, connection: HttpConnection) -> None:
        """Connect it to the server. Raises OSError, TimeoutError among them."""

    def drain_log(self) -> None:
        """Read what the container has printed until now."""

    async def close(self) -> None:
        """Open no more connections."""


class HttpLink:
    """Connections to a server, kept open between calls. A slot is a right to call, `slots` in all."""

    exit_status = None

    def __init__(self, server: Dials, slots: int, clock: Clock) -> None:
        self.drain_log = server.drain_log
        """Reads what the container has printed until now."""
        self._server = server
        self._clock = clock
        self._slots = slots
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
        connection = HttpConnection(None, self._lost)
        try:
            await self._server.dial(connection)
        except OSError as error:
            reason = str(error) or "it did not answer in time"
            raise NotSent(f"the instance does not accept a connection: {reason}") from error
        if connection.open:  # else it was lost at once, and nobody would take it out again
            self._all.add(connection)
        return connection

    def give(self, connection: HttpConnection) -> None:
        """Take a connection back after its call."""
        if connection.finish():
            connection.idle_since = self._clock.now()
            self._free.append(connection)

    async def close(self) -> None:
        """Close every connection."""
        for connection in list(self._all):
            connection.abort()
        await self._server.close()
