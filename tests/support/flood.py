"""Closed-loop clients on virtual time: floods of functions, and what their callers saw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scheduler.dispatch.errors import NoCapacity, QueueFull
from scheduler.dispatch.function import Limits, Revision
from tests.support.virtual_pool import World

PATIENT = Limits(queue_timeout=60.0)


@dataclass(eq=False)
class Flood:
    """Clients that call one function again and again until `stop`."""

    world: World
    function: Revision
    seconds: Callable[[], float]
    """Returns how long the next call runs."""
    pause: float
    """Seconds that a client rests between two calls."""
    waits: list[float] = field(default_factory=list)
    """How long each call that was served had waited, in seconds."""
    refused: list[Exception] = field(default_factory=list)
    stopped: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, clients: int) -> None:
        """Begin to call."""
        self._tasks = [asyncio.ensure_future(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        world = self.world
        while not self.stopped:
            caller = world.arrive(self.function)
            try:
                lease = caller.lease or await world.result_of(caller)
            except (NoCapacity, QueueFull) as fault:
                self.refused.append(fault)
                await world.clock.sleep(max(self.pause, 0.05))
                continue
            self.waits.append(world.clock.now() - caller.arrived)
            await world.clock.sleep(self.seconds())
            world.dispatcher.release(lease)
            await world.clock.sleep(self.pause)

    async def stop(self) -> None:
        """Call no more, and let what runs and waits come to its end."""
        self.stopped = True
        await self.world.clock.run(asyncio.wait(self._tasks))

    @property
    def held(self) -> int:
        """Bytes of the function's instances that stay."""
        return self.world.pool.ledger.memory_of(self.function.name)


class Floods:
    """All floods of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.all: list[Flood] = []

    def of(
        self,
        name: str,
        seconds: float | Callable[[], float] = 0.2,
        clients: int = 100,
        pause: float = 0.0,
        **keys: Any,
    ) -> Flood:
        """Deploy a function and have it called by so many clients, for `seconds` each time."""
        function = self.world.deploy(name, limits=keys.pop("limits", PATIENT), **keys)
        lasts = seconds if callable(seconds) else lambda: seconds
        flood = Flood(self.world, function, lasts, pause)
        flood.start(clients)
        self.all.append(flood)
        return flood

    async def stop(self) -> None:
        """Stop all of them."""
        for flood in self.all:
            flood.stopped = True
        for flood in self.all:
            await flood.stop()
