"""Starts, changes and removes the containers behind instances: all engine work of the pool.

Nothing is decided here. How a container is spoken to is its contract's matter (`pool/contracts/`).
"""

from __future__ import annotations

import contextlib
from typing import cast

from pool.clock import Clock
from pool.contracts.missing_rights import missing_right
from pool.contracts.obituary import END_WAIT_SECONDS, Obituary, obituary_of
from pool.contracts.reconnect import Reconnection
from pool.contracts.registry import as_contract, contract_of
from pool.contracts.starter import InstanceReports, LaunchSettings, Starter, start_failed
from pool.engine.base import ContainerSpec, Engine, EngineError, NotRunnable
from pool.engine.labels import container_name
from pool.errors import FunctionBroken, PoolError, StartFailed
from pool.host.egress import Egress
from pool.instance import Instance
from pool.workload import Keep, Workload


class Launcher:
    """Starts, specialises and destroys the containers behind instances."""

    def __init__(
        self, engine: Engine, clock: Clock, settings: LaunchSettings, egress: Egress, reports: InstanceReports
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings
        self.starter = Starter(engine, clock, settings, egress, reports)
        self._reconnection = Reconnection(self.starter)

    async def launch(self, instance: Instance, prototype: ContainerSpec) -> None:
        """Create and start the container of an instance and wait until it can be reached.

        Sets `container`, `cgroup` and `link` as soon as they are known. Raises `StartFailed` (platform) or
        `FunctionBroken` (the image does not start or does not serve).
        """
        if not self._settings.run_folder.parent.is_dir():
            # Made anew, it would be in the way of the one that comes back.
            raise StartFailed("the data folder was deleted or moved; move it back, or restart the gateway")
        try:
            await contract_of(instance).launch(self.starter, instance, prototype)
        except OSError as error:
            raise StartFailed(f"the instance's folders could not be made: {error}") from error
        except NotRunnable as error:
            raise FunctionBroken(f"the image does not start: {error}") from error
        except EngineError as error:
            raise start_failed("the engine could not start the instance", error) from error

    async def specialise(self, instance: Instance, workload: Workload) -> None:
        """Turn a generic instance into one of a function. It cannot be undone.

        Raises `FunctionBroken` if the handler cannot be imported, `StartFailed` if the instance does not answer.
        """
        await as_contract(workload.contract).specialise(self.starter, instance, workload)

    async def adopt(self, instance: Instance) -> None:
        """Reconnect to the running container of an instance that an earlier process started. Raises `StartFailed`."""
        try:
            await self._reconnection.adopt(instance)
        except StartFailed:
            raise
        except PoolError as error:
            raise StartFailed(str(error)) from error

    async def leave(self, instance: Instance) -> None:
        """Close the links of an instance that the next process shall adopt; its container goes on."""
        if instance.link is not None:
            await instance.link.close()

    async def pause(self, instance: Instance) -> None:
        """Freeze an instance over the engine. Raises `EngineError`."""
        await self._engine.pause(cast(str, instance.container))

    async def unpause(self, instance: Instance) -> None:
        """Thaw an instance that was paused. Raises `EngineError`."""
        await self._engine.unpause(cast(str, instance.container))

    async def obituary(self, instance: Instance) -> Obituary:
        """Return how an instance ended that has just closed its connection. Waits a moment for its end."""
        found = await obituary_of(self._engine, self._clock, instance)
        if not found.ended:
            return found
        return found._replace(
            words=found.words + missing_right(await self.starter.printed(instance), instance)
        )

    async def destroy(self, instance: Instance) -> None:
        """Remove the container and everything that belonged to the instance. Raises `EngineError`; call again.

        The container goes by its name: it may have been created although the answer never reached us.
        """
        if instance.link is not None:
            await instance.link.close()
        if not (stays(instance) and await self._has_ended(instance)):
            await self._engine.remove(instance.container or container_name(instance.id))
            self.starter.etc.drop(instance.id)
            self.starter.kept_calls.drop(instance.id)

    async def _has_ended(self, instance: Instance) -> bool:
        """Return whether an instance's container has ended, within a moment. Raises `EngineError`."""
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(END_WAIT_SECONDS):
                await self._engine.wait(cast(str, instance.container))
                return True
        return False

    async def logs(self, instance: Instance, limit: int) -> bytes:
        """Return the last output of an instance that the engine has, `limit` bytes at most. Raises `EngineError`."""
        if instance.container is None:
            return b""
        return await self._engine.logs(instance.container, limit)


def stays(instance: Instance) -> bool:
    """Return whether an instance's container is left on the engine when the instance goes."""
    link, workload = instance.link, instance.workload
    if link is None or workload is None or workload.keep is Keep.NONE:
        return False
    return workload.keep.keeps(link.exit_status)
