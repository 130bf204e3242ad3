"""Stopped containers that jobs keep for inspection. Each carries the label of its job's function."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping

from pool.engine.base import ContainerState, Engine, EngineError
from pool.engine.labels import GATEWAY_LABEL, INVOCATION_LABEL, KEPT_LABEL, instance_of, is_kept
from pool.host.etc_files import EtcFiles
from pool.host.kept_calls import KeptCalls

log = logging.getLogger("hearth.jobs")

MAX_REMOVALS_AT_ONCE = 4
"""Removals side by side, so that starts of instances still get their turn on the engine."""


class KeptContainers:
    """Stopped job containers that one gateway has kept."""

    def __init__(self, engine: Engine, gateway_id: str, etc: EtcFiles, calls: KeptCalls) -> None:
        self._engine = engine
        self._gateway_id = gateway_id
        self._etc = etc
        self._calls = calls

    async def of(self, function: str) -> Mapping[str, list[str]]:
        """Return the ids of a function's kept containers, by the id of their call; none if the engine fails."""
        found: dict[str, list[str]] = {}
        try:
            containers = await self._find(function)
        except EngineError:
            return found
        for container in containers:
            # A release before this one wrote the call into a label.
            call = container.labels.get(INVOCATION_LABEL) or self._calls.of(
                instance_of(container.id, container.labels)
            )
            found.setdefault(call, []).append(container.id)
        return found

    async def clear(self, function: str) -> None:
        """Remove the kept containers of a function. After a failure the next start of the gateway removes them."""
        try:
            await self._remove(await self._find(function))
        except EngineError as error:
            log.warning(
                "kept containers of %s are not removed; the next start tries again: %s", function, error
            )

    async def clear_all_but(self, functions: Collection[str]) -> None:
        """Remove the kept containers of all functions but these: their jobs are forgotten."""
        try:
            kept = await self._find("")
            await self._remove(c for c in kept if c.labels[KEPT_LABEL] not in functions)
        except EngineError as error:
            log.info(
                "kept containers of forgotten jobs are not removed; the next start tries again: %s", error
            )

    async def _find(self, function: str) -> list[ContainerState]:
        labels = {GATEWAY_LABEL: self._gateway_id, KEPT_LABEL: function}
        return [container for container in await self._engine.containers(labels) if is_kept(container)]

    async def _remove(self, containers: Iterable[ContainerState]) -> None:
        room = asyncio.Semaphore(MAX_REMOVALS_AT_ONCE)

        async def remove(container: ContainerState) -> None:
            async with room:
                await self._engine.remove(container.id)
                id = instance_of(container.id, container.labels)
                self._etc.drop(id)
                self._calls.drop(id)

        gone = await asyncio.gather(*map(remove, containers), return_exceptions=True)
        for fault in gone:
            if isinstance(fault, BaseException):
                raise fault
