"""Containers of jobs that were told to keep them: stopped, labelled with the job's function, nobody's instance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping

from pool.engine.base import ContainerState, Engine, EngineError
from pool.engine.labels import GATEWAY_LABEL, INVOCATION_LABEL, KEPT_LABEL, instance_of, is_kept
from pool.host.hosts_files import HostsFiles

log = logging.getLogger("hearth.jobs")

REMOVED_AT_ONCE = 4


class KeptContainers:
    """Those of one gateway."""

    def __init__(self, engine: Engine, gateway_id: str, hosts: HostsFiles) -> None:
        self._engine = engine
        self._gateway_id = gateway_id
        self._hosts = hosts

    async def of(self, function: str) -> Mapping[str, list[str]]:
        """Ids of those of a function, by the id of the call that each was made for; none where the engine does not
        say."""
        found: dict[str, list[str]] = {}
        try:
            containers = await self._find(function)
        except EngineError:
            return found
        for container in containers:
            found.setdefault(container.labels.get(INVOCATION_LABEL, ""), []).append(container.id)
        return found

    async def clear(self, function: str) -> None:
        """Remove those of a function. What cannot be removed now is when the gateway starts next."""
        try:
            await self._remove(await self._find(function))
        except EngineError as error:
            log.warning("containers that were kept of %s are left: %s", function, error)

    async def clear_all_but(self, functions: Collection[str]) -> None:
        """Remove those of functions that no job has (any more)."""
        try:
            kept = await self._find("")
            await self._remove(c for c in kept if c.labels[KEPT_LABEL] not in functions)
        except EngineError as error:
            log.info("containers that were kept of jobs that are forgotten are left: %s", error)

    async def _find(self, function: str) -> list[ContainerState]:
        labels = {GATEWAY_LABEL: self._gateway_id, KEPT_LABEL: function}
        return [container for container in await self._engine.containers(labels) if is_kept(container)]

    async def _remove(self, containers: Iterable[ContainerState]) -> None:
        room = asyncio.Semaphore(REMOVED_AT_ONCE)

        async def remove(container: ContainerState) -> None:
            async with room:
                await self._engine.remove(container.id)
                self._hosts.drop(instance_of(container.id, container.labels))

        gone = await asyncio.gather(*map(remove, containers), return_exceptions=True)
        for fault in gone:
            if isinstance(fault, BaseException):
                raise fault
