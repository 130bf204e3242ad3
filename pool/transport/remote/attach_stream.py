"""The way to a container on an engine that shares no folder with the gateway: frames over its attached streams.

A connection that breaks is made again, as a new epoch: calls in flight end, and nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

from pool.backoff import Backoff, Retries
from pool.clock import Clock
from pool.engine.base import ContainerSpec, Engine, EngineError, EngineFault, EngineUnreachable
from pool.engine.hijack import HijackedConnection
from pool.engine.labels import SOCKETS_FOLDER
from pool.transport.remote.frame_wire import FrameWire
from pool.transport.way import WayEnds

log = logging.getLogger("hearth.remote")

ATTACH_AGAIN = Backoff(0.05, 5.0)
"""Pauses between attempts to attach again."""
HELLO_SECONDS = 5.0
"""Time in which init must begin an epoch."""
SILENT_EPOCHS = 3
"""Epochs in a row that init may fail to begin, before its container counts as dead."""
DIAL_SECONDS = 2.0
"""Time after an epoch has begun in which the program must dial: the longest pause of a shim is 1 s."""
SOCKETS_SIZE = 64 * 1024
"""Bytes of the tmpfs that holds the sockets of a container."""

Relay = Callable[[ContainerSpec], ContainerSpec]
"""Returns a container whose first process is init, with `--relay`."""


class AttachStream:
    """A `Way` over the engine. `key` is known to the container's init and to us.

    `prepare` sees to it that the engine has init, and returns what puts it into a container.
    """

    def __init__(
        self, engine: Engine, clock: Clock, key: bytes, prepare: Callable[[], Awaitable[Relay]]
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._key = key
        self._prepare = prepare
        self._relay: Relay | None = None
        self._ends: WayEnds | None = None
        self._wire: FrameWire | None = None
        self._container = ""
        self._epoch = 0
        self._mending: asyncio.Task[None] | None = None
        self._dials_until = 0.0
        self._closed = False

    async def open(self, ends: WayEnds) -> None:
        """See to it that the engine has init. Raises `EngineError` and `StartFailed`."""
        self._ends = ends
        self._relay = await self._prepare()

    def container(self, spec: ContainerSpec) -> ContainerSpec:
        """Return a container with init, whose streams stay open between connections."""
        assert self._relay is not None
        writable = (*spec.writable, (SOCKETS_FOLDER, SOCKETS_SIZE))
        return replace(self._relay(spec), stdin=True, stdin_stays=True, keep_output=False, writable=writable)

    async def started(self, container: str) -> None:
        """Attach to a container. Raises `EngineError`."""
        self._container = container
        await self._attach()

    async def reopen(self, ends: WayEnds, container: str) -> None:
        """Attach to a running container and wait until init has begun the epoch. Raises `EngineError`."""
        self._ends = ends
        await self.started(container)
        if self._wire is not None:
            await self._wire.hello.wait()

    async def _attach(self) -> None:
        assert self._ends is not None
        attached = cast(HijackedConnection, await self._engine.attach(self._container))
        if self._closed:
            await attached.close()
            return
        # It grows over gateways too: an answer to an earlier opening is never taken for one to this.
        self._epoch = max(self._epoch + 1, int(self._clock.wall() * 1e6))
        wire = FrameWire(self._ends, self._key, self._epoch, self._clock, self._lost)
        self._wire = wire
        attached.hand_over(wire)

    @property
    def mending(self) -> bool:
        """Return whether connections may come although none is there: the engine is attached to again."""
        return self._mending is not None or self._clock.now() < self._dials_until

    def _lost(self, wire: FrameWire, why: str) -> None:
        if wire is self._wire and not self._closed and self._mending is None:
            log.warning(
                "The connection to container %s broke, attaching again: %s", self._container[:12], why
            )
            self._mending = asyncio.ensure_future(self._mend())

    async def _mend(self) -> None:
        """Attach again until init answers, or until its container is known to be gone."""
        retries, silent = Retries(ATTACH_AGAIN), 0
        try:
            while not self._closed and silent < SILENT_EPOCHS:
                try:
                    await self._engine.unpause(self._container)  # a frozen init begins no epoch
                    await self._attach()
                    if await self._greeted():
                        self._dials_until = self._clock.now() + DIAL_SECONDS
                        return
                    silent += 1
                except (EngineUnreachable, EngineFault) as error:
                    log.debug("Cannot attach to container %s yet: %s", self._container[:12], error)
                except EngineError as error:
                    log.info("Container %s cannot be attached to any more: %s", self._container[:12], error)
                    return
                await self._clock.sleep(retries.failed())
        finally:
            self._mending = None

    async def _greeted(self) -> bool:
        """Return whether init begins the epoch in time."""
        wire = self._wire
        if wire is None:
            return False
        try:
            async with self._clock.timeout(HELLO_SECONDS):
                await wire.hello.wait()
        except TimeoutError:
            wire.end()
            return False
        return not wire.over

    def drain_log(self) -> None:
        """Do nothing: what was printed has come before the answer of its call."""

    async def close(self) -> None:
        """Let go of the container. The next gateway can attach to it."""
        self._closed = True
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)
        if self._wire is not None:
            self._wire.end()
            self._wire = None
