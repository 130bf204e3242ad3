"""The way to a server inside a container: into its network namespace, or else at its address."""

from __future__ import annotations

import asyncio
import socket

from pool.backoff import Backoff, Retries
from pool.clock import Clock
from pool.engine.base import ContainerState
from pool.errors import PoolError, StartFailed
from pool.host import netns
from pool.transport.http import HttpLink
from pool.transport.message import Call

DIAL_TIMEOUT_SECONDS = 2.0
LOOKS = Backoff(0.004, 0.05)
"""Pauses between two looks whether a server is ready."""


class Server:
    """The address of an instance's server. Raises `StartFailed` if there is no way to it."""

    def __init__(self, state: ContainerState, port: int, fallback: bool, clock: Clock) -> None:
        self._clock = clock
        self._port = port
        self._namespace: netns.Namespace | None = None
        self._address: str | None = None
        if netns.can_enter(state.pid):
            self._namespace = netns.Namespace(state.pid)
        elif state.addresses and fallback:
            self._address = next(iter(state.addresses.values()))
        else:
            raise StartFailed(
                "the gateway may not open sockets inside the container's network namespace; run it as root "
                "(CAP_SYS_ADMIN) on the engine's host, or set HEARTH_ALLOW_NETWORK_FALLBACK=1 to give such "
                "functions an internal network"
            )

    async def dial(self) -> socket.socket:
        """Return a connected, non-blocking socket to the server. Raises OSError."""
        if self._namespace is not None:
            async with self._clock.timeout(DIAL_TIMEOUT_SECONDS):
                return await self._namespace.dial("127.0.0.1", self._port)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with self._clock.timeout(DIAL_TIMEOUT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, (self._address, self._port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def ready(self, health: str | None) -> None:
        """Return when the server accepts connections and, with `health`, answers it below 400."""
        looks = Retries(LOOKS)
        while not await self._looks_ready(health):
            await self._clock.sleep(looks.failed())

    async def _looks_ready(self, health: str | None) -> bool:
        link = HttpLink(self.dial, 1, self._clock)
        try:
            connection = await link.connect()
            if health is None:
                return True
            call = Call(b"GET", health.encode(), [(b"host", b"localhost"), (b"user-agent", b"hearth-health")])
            async with self._clock.timeout(DIAL_TIMEOUT_SECONDS):
                answer = await connection.exchange(call)
            return answer.status < 400
        except (PoolError, TimeoutError):
            return False
        finally:
            await link.close()

    def close(self) -> None:
        """Let go of the namespace; safe to call twice."""
        if self._namespace is not None:
            self._namespace.close()
