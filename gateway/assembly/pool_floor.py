"""Builds the pool floor: the engine, the launcher, the pool and adoption."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gateway.assembly.foundation import Foundation
from gateway.assembly.settings import is_apart
from pool.adoption.adoption import Adoption
from pool.adoption.records import Records
from pool.contracts.remote_init import RemoteInit, RemoteSettings, secret_of
from pool.contracts.starter import InstanceReports, LaunchSettings
from pool.data_folder import DataFolder
from pool.engine.base import Engine, EngineError
from pool.engine.docker import DockerEngine
from pool.engine.guarded import GuardedEngine
from pool.host.egress import Egress
from pool.launcher import Launcher
from pool.observe.journal.journal import Journal, JournalBounds
from pool.observe.logs import LogStore
from pool.pool import Pool

log = logging.getLogger("hearth")

REMOVAL_TIMEOUT_SECONDS = 30.0
"""Limit for removing every instance and network when the gateway stops: an engine that hangs must not hold it."""


@dataclass(frozen=True)
class PoolFloor:
    """The parts of one gateway that hold containers."""

    engine: GuardedEngine
    egress: Egress
    launcher: Launcher
    logs: LogStore
    journal: Journal
    pool: Pool
    adoption: Adoption


def build_pool_floor(foundation: Foundation, engine: Engine | None = None) -> PoolFloor:
    """Build the pool floor on `engine`, or on Docker if it is None."""
    settings, folder, closing = foundation.settings, foundation.folder, foundation.closing
    clock, metrics = foundation.clock, foundation.metrics
    inner = engine or DockerEngine(None, metrics, clock, is_apart(settings.engine_files))
    guarded = GuardedEngine(inner, clock, metrics, foundation.supervisor)
    closing.push("engine", guarded.close)
    logs = LogStore(per_invocation=settings.log_limit)
    dropped = {reason: metrics.log_lines_dropped.labels(reason) for reason in ("flood", "disk")}
    bounds = JournalBounds(settings.log_disk, settings.log_age)
    journal = Journal(folder.output, bounds, clock, dropped)
    closing.push("journal of output", journal.close)
    egress = Egress(guarded, folder.id, clock, foundation.supervisor)
    closing.push("watch over the firewall", egress.close)
    launcher = Launcher(
        guarded,
        clock,
        LaunchSettings(
            gateway_id=folder.id,
            run_folder=folder.run,
            etc_folder=folder.etc,
            start_timeout=settings.start_timeout,
        ),
        egress,
        InstanceReports(
            on_slots=lambda instance: pool.slots_changed(instance),
            on_output=lambda instance, data: pool.output(instance, data),
            on_running=lambda instance: pool.running(instance),
            printed=lambda instance: pool.printed.of_instance(instance),
        ),
    )
    if isinstance(inner, DockerEngine) and inner.apart:
        remote = RemoteSettings(folder.id, secret_of(folder.engine_secret))
        launcher.starter.remote = RemoteInit(guarded, inner, clock, remote)
    records = Records(folder.records, clock)
    pool = Pool(launcher, clock, metrics, logs, settings.memory_budget, records)
    pool.printed.journal = journal
    removal = Removal(pool, egress, folder, settings.keep_warm)
    closing.push("data folder's contents", removal.clear_folder)
    closing.push("networks", removal.remove_networks)
    closing.push("instances", removal.remove_instances)
    adoption = Adoption(guarded, pool, records, folder, clock)
    return PoolFloor(guarded, egress, launcher, logs, journal, pool, adoption)


class Removal:
    """The removal of all that a gateway has made on the engine and in its data folder.

    With `keep_warm`, whatever the next start can adopt stays.
    """

    def __init__(self, pool: Pool, egress: Egress, folder: DataFolder, keep_warm: bool) -> None:
        self._pool = pool
        self._egress = egress
        self._folder = folder
        self._keep_warm = keep_warm
        self._networks_stay = False

    async def remove_instances(self) -> None:
        """Remove every instance, or leave those that the next start can adopt."""
        try:
            async with self._pool.clock.timeout(REMOVAL_TIMEOUT_SECONDS):
                left = await self._pool.close(self._keep_warm)
        except TimeoutError:
            self._networks_stay = True
            log.error(
                "The engine has not removed everything in %g s. The next start, or hearth prune, removes the rest.",
                REMOVAL_TIMEOUT_SECONDS,
            )
            return
        if left:
            self._networks_stay = True
            log.info("Leaving %d warm containers for the next start", left)
        else:
            self._keep_warm = False

    async def remove_networks(self) -> None:
        """Remove the gateway's networks unless a container may still be on them."""
        if self._networks_stay:
            return
        try:
            async with self._pool.clock.timeout(REMOVAL_TIMEOUT_SECONDS):
                await self._egress.remove()
        except (EngineError, TimeoutError) as error:
            log.warning(
                "Cannot remove the gateway's networks: %s. The next start, or hearth prune, removes them.",
                error or "the engine did not answer in time",
            )

    def clear_folder(self) -> None:
        """Remove from the data folder what the next start does not need."""
        if self._keep_warm:
            self._folder.clear_own()
        else:
            self._folder.clear()
