"""One gateway without its HTTP server: its three floors, how they start, drain and close."""

from __future__ import annotations

import asyncio
import logging
import os

from gateway.assembly.closing import Closing
from gateway.assembly.foundation import Foundation
from gateway.assembly.gateway_floor import build_api_parts, build_gateway_floor
from gateway.assembly.pool_floor import build_pool_floor
from gateway.assembly.scheduler_floor import build_scheduler_floor
from gateway.assembly.settings import Settings
from pool.backoff import Backoff, Retries
from pool.clock import LoopClock
from pool.contracts.init_place import INIT_FOLDER
from pool.data_folder import DataFolder
from pool.engine.base import Engine, EngineError, Mount
from pool.host.init_program import InitMissing, place_init
from pool.host.uids import usable_range
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.definitions.file import Definitions

log = logging.getLogger("hearth")
stop_log = logging.getLogger("hearth.stop")
"""Tells somebody who has pressed Ctrl-C what the gateway still does."""

ENGINE_RETRY = Backoff(0.5, 2.0)
"""Pauses between two attempts to reach an engine that does not answer at the start."""
DRAIN_POLL_SECONDS = 0.05
"""Pause between two looks at how many calls still run."""
ENGINE_TRUST_SECONDS = 1.0
"""Time for which an answer of the engine counts: `/readyz` needs no key and must not flood the engine."""


class Runtime:
    """A gateway without its HTTP server. Make it inside a running loop, then `start`, `drain` and `close` it.

    It runs on `engine`, or on Docker if that is None. It closes `folder` at its end. Raises `KeyFileFault`.
    """

    def __init__(self, settings: Settings, folder: DataFolder, engine: Engine | None = None) -> None:
        self.settings = settings
        self.folder = folder
        self.clock = LoopClock()
        self.metrics = Metrics()
        self.supervisor = Supervisor(self.clock, self.metrics)
        self.closing = Closing()
        self.closing.push("data folder", folder.close)
        foundation = Foundation(
            settings=settings,
            folder=folder,
            clock=self.clock,
            metrics=self.metrics,
            supervisor=self.supervisor,
            closing=self.closing,
            cores=os.cpu_count() or 1,
        )
        self.pool_floor = build_pool_floor(foundation, engine)
        self.scheduler_floor = build_scheduler_floor(foundation, self.pool_floor)
        self.gateway_floor = build_gateway_floor(foundation, self.pool_floor, self.scheduler_floor)
        self.closing.push("start of durable work", self._stop_starting)
        self.closing.push("dispatcher", self.scheduler_floor.dispatcher.close)
        self.api_parts = build_api_parts(
            foundation, self.pool_floor, self.scheduler_floor, self.gateway_floor, self.why_not_ready
        )
        self._durable: asyncio.Task[None] | None = None
        """Starts everything that the store has kept."""
        self._engine_seen = False
        """Set when the engine has told how it makes containers, and which of ours it still holds."""
        self._engine_answered = float("-inf")

    async def start(self, definitions: Definitions) -> None:
        """Adopt or remove everything that an earlier process left, and bring the functions into service."""
        self.pool_floor.journal.start()
        retries = Retries(ENGINE_RETRY)
        while not self._engine_seen:
            try:
                await self._learn_of_engine()
                await self.pool_floor.adoption.look()
                self._engine_seen = True
            except EngineError as error:
                if not retries.failures:
                    log.warning("The container engine does not answer; trying again until it does: %s", error)
                await self.clock.sleep(retries.failed())
        self.scheduler_floor.reaper.start(self.supervisor)
        self.scheduler_floor.registry.start(self.supervisor)
        self.scheduler_floor.leases.start(self.supervisor)
        await self.scheduler_floor.jobs.start(self.supervisor)
        self._durable = asyncio.ensure_future(self._start_durable())
        await self.scheduler_floor.registry.apply(definitions)

    async def _learn_of_engine(self) -> None:
        """Ask the engine for everything that decides how containers are made. Raises `EngineError`."""
        maps_uids = (await self.pool_floor.engine.info()).user_namespaces
        uids = usable_range(self.settings.uids, maps_uids)
        if uids != self.settings.uids:
            log.info(
                "The engine has user namespaces, so containers get the uids %s and not %s",
                uids,
                self.settings.uids,
            )
        self.pool_floor.launcher.starter.maps_uids = maps_uids
        self.pool_floor.launcher.starter.init = await asyncio.to_thread(self._placed_init)
        self.pool_floor.pool.ledger.uids.use(uids)

    def _placed_init(self) -> Mount | None:
        """Return the mount of init for containers, or None if it is missing. Then only handlers can run."""
        try:
            return Mount(str(place_init(self.folder.init).folder), INIT_FOLDER)
        except (InitMissing, OSError) as error:
            log.warning("Functions with an image cannot run: %s", error)
            return None

    async def _start_durable(self) -> None:
        """Go on with everything in the store.

        The end of a call may fire triggers, so triggers are loaded before any call runs.
        """
        scheduler = self.scheduler_floor
        try:
            await scheduler.triggers.load()
        except Exception:  # calls go on
            log.exception(
                "Cannot read the triggers from the store, so none of them fires; restart the gateway to try again"
            )
        scheduler.worker.start(self.supervisor)
        scheduler.runs.start(self.supervisor)
        scheduler.schedules.start(self.supervisor)
        self.gateway_floor.deliverer.start(self.supervisor)

    async def _stop_starting(self) -> None:
        if self._durable is not None:
            self._durable.cancel()
            await asyncio.gather(self._durable, return_exceptions=True)

    async def why_not_ready(self) -> str | None:
        """Return why the gateway cannot run functions now, or None if it can."""
        scheduler, pool = self.scheduler_floor, self.pool_floor
        if scheduler.dispatcher.draining:
            return "the gateway is shutting down"
        if (unkept := self.folder.fault() or scheduler.stores.calls.fault) is not None:
            return unkept
        if (failing := self.supervisor.why_not_ready()) is not None:
            return failing
        if (fault := pool.engine.down()) is not None:
            return str(fault)
        if self.clock.now() - self._engine_answered >= ENGINE_TRUST_SECONDS:
            try:
                await pool.engine.ping()
            except EngineError as error:
                return str(error)
            self._engine_answered = self.clock.now()
        if not self._engine_seen or not scheduler.registry.loaded:
            return "the functions are being loaded"
        if pool.adoption.under_way:
            return "warm containers are being adopted"
        if not scheduler.registry.settled():
            return "min_instances are being started"
        return None

    async def drain(self, hurry: asyncio.Event) -> None:
        """Accept nothing new, and wait until every call has ended: `drain_timeout` at most, or until `hurry`."""
        scheduler = self.scheduler_floor
        scheduler.dispatcher.draining = True
        await self.gateway_floor.brokers.close()
        await self._stop_starting()
        await scheduler.schedules.stop()
        await scheduler.worker.stop()
        await scheduler.registry.end_trials()  # nobody will call what they start
        give_up = self.clock.now() + self.settings.drain_timeout
        if count := self._running_calls():
            still = "1 call still runs" if count == 1 else f"{count} calls still run"
            stop_log.info("Stopping: %s; press Ctrl-C again to end them at once", still)
        while self._running_calls() and not hurry.is_set():
            if self.clock.now() >= give_up:
                log.warning(
                    "Ending the calls that still run after the drain_timeout of %g s",
                    self.settings.drain_timeout,
                )
                return
            await self.clock.sleep(DRAIN_POLL_SECONDS)
        if left := self._running_calls():
            stop_log.info("Stopping: ending %d calls that still run", left)

    def _running_calls(self) -> int:
        ledger, functions = self.pool_floor.pool.ledger, self.scheduler_floor.dispatcher.functions
        return sum(i.in_use for i in ledger.instances.values()) + sum(f.waiting for f in functions.values())

    async def close(self) -> None:
        """Close every part, and let go of the engine and the data folder. A part that fails is logged.

        Every instance, network and socket folder is removed. With `keep_warm`, those stay that the next start can
        adopt.
        """
        await self.closing.close()
