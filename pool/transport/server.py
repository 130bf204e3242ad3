"""A server inside a container, on a port of 127.0.0.1 there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pool.backoff import Backoff, Retries
from pool.clock import Clock
from pool.errors import PoolError
from pool.host import netns
from pool.transport.connection import HttpConnection
from pool.transport.init_calls import InitCalls
from pool.transport.message import Call

DIAL_TIMEOUT_SECONDS = 2.0
LOOKS = Backoff(0.004, 0.05)
"""Pauses between two looks whether a server is ready."""


class Server:
    """An instance's server. Connections to it go through its container's init until its namespace is entered."""

    def __init__(self, init: InitCalls, port: int, clock: Clock) -> None:
        self.drain_log = init.link.drain_log
        self._init = init
        self._port = port
        self._clock = clock
        self._namespace: netns.Namespace | None = None
        self._pid = 0

    def enter(self, pid: int) -> None:
        """Open connections in the network namespace of a process from now on, which is faster, if we may.

        Whoever read the pid from the engine must check afterwards that it still is the container's.
        """
        self._namespace, self._pid = netns.enterable(pid), pid

    async def dial(self, connection: HttpConnection) -> None:
        """Connect it to the server. Raises OSError, TimeoutError among them."""
        async with self._clock.timeout(DIAL_TIMEOUT_SECONDS):
            if self._namespace is None:
                await self._init.connect(f"127.0.0.1:{self._port}", connection)
                return
            sock = await self._namespace.dial("127.0.0.1", self._port)
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)

    async def ready(self, health: str | None, tell: Callable[[str], None] = lambda awaits: None) -> None:
        """Return when init has dialled, and the server accepts connections and, with `health`, answers it below 400.

        `tell` is given what is awaited, whenever that changes. Raises OSError if it is closed meanwhile.
        """
        await self._init.reached()  # else output of the first call might come too late to be that call's
        looks, told = Retries(LOOKS), ""
        while awaits := await self._awaits(health):
            if awaits != told:
                tell(awaits)
                told = awaits
            await self._clock.sleep(looks.failed())

    async def _awaits(self, health: str | None) -> str:
        """Return what the server lacks to be ready, or an empty text if it is."""
        awaits = f"nothing accepts connections on port {self._port} (`port`)"
        connection = HttpConnection()
        try:
            await self.dial(connection)
            if health is None:
                return ""
            awaits = f"GET {health} on port {self._port} is not answered (`health`)"
            call = Call(b"GET", health.encode(), [(b"host", b"localhost"), (b"user-agent", b"hearth-health")])
            async with self._clock.timeout(DIAL_TIMEOUT_SECONDS):
                status = (await connection.exchange(call)).status
            failed = f"GET {health} on port {self._port} answers with status {status} (`health`)"
            return failed if status >= 400 else ""
        except (PoolError, OSError):
            return awaits
        finally:
            connection.abort()

    async def open_connections(self) -> int:
        """Return how many connections to its port are open, those included that only the other end has closed.

        The container's init reads them where we do not enter the namespace. Raises OSError.
        """
        if self._namespace is not None:
            tables = netns.tables(self._pid)
        else:
            files = [await self._init.read_file(f"/proc/net/{name}") for name in netns.TABLES]
            tables = [file.decode(errors="replace") for file in files]
        return sum(netns.open_in(table, self._port) for table in tables)

    async def close(self) -> None:
        """Let go of the namespace and of init; safe to call twice."""
        if self._namespace is not None:
            self._namespace.close()
        await self._init.close()
