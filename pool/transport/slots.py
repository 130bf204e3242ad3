"""Slots of an instance that dials: one open connection is one slot.

An open connection is readiness, capacity and health in one fact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pool.errors import NotSent
from pool.transport.connection import HttpConnection
from pool.transport.message import Call
from pool.transport.way import Way, WayEnds


class SlotLink:
    """Connections that a container has dialled over a way.

    `on_change` is called when a slot comes or goes, `sink` with what the container prints. At most `slots`
    connections are accepted: 1 until a contract says more.
    """

    exit_status: int | None = None

    def __init__(self, way: Way, on_change: Callable[[], None], sink: Callable[[bytes], None]) -> None:
        self.way = way
        self.slots = 1
        self.peer = 0
        """Id of the process that dialled last, or 0 if there is none or we cannot see it."""
        self.drain_log = way.drain_log
        """Reads what the container has printed until now. Not a method: warm calls would pay for one more."""
        self._on_change = on_change
        self._ends = WayEnds(lambda: HttpConnection(self._opened, self._lost), sink)
        self._free: list[HttpConnection] = []
        self._all: set[HttpConnection] = set()
        self._connected = asyncio.Event()

    async def open(self) -> None:
        """Open the way, before the container starts. Raises OSError."""
        await self.way.open(self._ends)

    async def reopen(self, container: str) -> None:
        """Open the way of a running container, in place of a gateway that is gone. Raises `EngineError`, OSError."""
        await self.way.reopen(self._ends, container)

    def _opened(self, connection: HttpConnection) -> None:
        if len(self._all) >= self.slots:
            connection.abort()
            return
        self._all.add(connection)
        self._free.append(connection)
        self.peer = connection.peer_pid()
        self._connected.set()
        self._on_change()

    def _lost(self, connection: HttpConnection) -> None:
        if connection not in self._all:
            return
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        self._on_change()

    async def connected(self) -> None:
        """Wait until the container has dialled for every slot."""
        while len(self._all) < self.slots:
            self._connected.clear()
            await self._connected.wait()

    @property
    def alive(self) -> bool:
        """Return whether any connection is open."""
        return bool(self._all) or self.way.mending

    def free_slots(self, in_use: int) -> int:
        """Return how many open connections carry no call."""
        return len(self._free)

    def take(self) -> HttpConnection | None:
        """Return a free connection, or None."""
        return self._free.pop() if self._free else None

    async def connect(self, call: Call) -> HttpConnection:
        """Raise `NotSent`: only the container dials."""
        raise NotSent("the instance has no open connection")

    def give(self, connection: HttpConnection) -> None:
        """Take a connection back after its call. One that is not clean is closed, and the container dials again."""
        if connection.finish() and connection in self._all:
            self._free.append(connection)

    async def close(self) -> None:
        """Close the way and every connection."""
        await self.way.close()
        for connection in list(self._all):
            connection.abort()
