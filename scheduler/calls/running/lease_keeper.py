"""Keeps the leases of one process: sends heartbeats, and takes over what earlier processes have left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from pool.backoff import Backoff, Retries
from pool.clock import Clock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.leases import LeaseOwner, LeaseStore, new_owner
from scheduler.calls.store import LeaseLost, StoreError

log = logging.getLogger("hearth.durable")

HEARTBEAT_SECONDS = 1.0
"""Time between two heartbeats: one small commit, and none while nothing is leased."""
SILENT_SECONDS = 10.0
"""Silence after which an owner counts as gone. Ten heartbeats: a slow disk is not a death."""
TAKE_OVER_RETRY = Backoff(1.0, 15.0)
"""Pauses until the store is asked again at the start, when it has never worked: the store logs each failure."""
T = TypeVar("T")


class LeaseKeeper:
    """The leases of one process."""

    def __init__(self, store: LeaseStore, clock: Clock, metrics: Metrics, node: str) -> None:
        self.owner = new_owner(node)
        """The process as leases name it now. A lease keeps the owner that it was made for."""
        self.holders: list[Callable[[], bool]] = []
        """Say whether they hold any lease. Set before `start`."""
        self.on_lost: list[Callable[[], None]] = []
        """Told that all leases were lost, when `owner` is a new one already. Set before `start`."""
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._has_taken_over = False
        self._loop: asyncio.Task[None] | None = None

    def start(self, supervisor: Supervisor) -> None:
        """Begin to send heartbeats."""
        self._loop = supervisor.supervise("leases", self._beat)

    async def close(self) -> None:
        """Send no more heartbeats. The next process on this node takes over what is still leased."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def take_over(self) -> None:
        """Queue again what earlier processes have left, once; wait for as long as the store cannot do it."""
        retries = Retries(TAKE_OVER_RETRY)
        while not self._has_taken_over:
            try:
                await self.requeue_abandoned()
            except StoreError:  # direct calls go on without it
                await self._clock.sleep(retries.failed())

    async def requeue_abandoned(self) -> None:
        """Queue again what earlier processes have left, once. Raises `StoreError`."""
        if self._has_taken_over:
            return
        if self._store.exists:
            queued = await self._store.requeue_abandoned(self.owner, self._clock.wall(), SILENT_SECONDS)
            if queued:
                self._metrics.async_interrupted.inc(queued)
                log.warning("%d accepted calls ran when their gateway ended; running them again", queued)
        self._has_taken_over = True

    async def lease(self, verb: Callable[[LeaseOwner], Awaitable[T]]) -> T:
        """Run a verb of a store for the owner, and once more under a new epoch if its leases were lost.

        Raises as the verb does.
        """
        owner = self.owner
        try:
            return await verb(owner)
        except LeaseLost:
            self.renew(owner)
            return await verb(self.owner)

    def renew(self, lost: LeaseOwner) -> None:
        """Go on under a new epoch, as the leases of this one are lost. What was leased is told to stop."""
        if self.owner != lost:
            return
        self.owner = new_owner(lost.node)
        log.error("Lost the leases of %s: stopping its runs, which another process runs again", lost.id)
        for told in self.on_lost:
            told()

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_SECONDS)
            if any(holds() for holds in self.holders):
                await self._send_heartbeat()

    async def _send_heartbeat(self) -> None:
        owner = self.owner
        try:
            is_alive = await self._store.heartbeat(owner, self._clock.wall())
        except StoreError:  # nobody else can take leases away from a store that fails
            return
        if not is_alive:
            self.renew(owner)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Settings of one process that works on the store."""

    leases: LeaseKeeper
    retention: float
    """Seconds for which something that has ended is kept."""
