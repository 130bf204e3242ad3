"""Reconnects to the running container of an instance that an earlier gateway process started.

`pool.adoption.adoption` decides which instances may be taken over.
"""

from __future__ import annotations

import contextlib
from typing import cast

from pool.contracts.registry import contract_of
from pool.contracts.starter import Starter
from pool.engine.base import ContainerState, EngineError
from pool.errors import StartFailed
from pool.host import cgroup
from pool.instance import Instance

RECONNECT_SECONDS = 3.0
"""Bounds how long an instance may take to be reached, idle and ready, since the gateway's own readiness waits for it.
A shim that has lost its gateway dials at least once a second; one that is in a call dials after its end."""


class Reconnection:
    """Reaches instances again, each by its contract."""

    def __init__(self, starter: Starter) -> None:
        self._starter = starter

    async def adopt(self, instance: Instance) -> None:
        """Thaw an instance, reach it, and make sure that it is idle and what it is taken for.

        Sets `link` and `cgroup`. Raises `StartFailed` if that fails or takes over `RECONNECT_SECONDS`.
        """
        starter, workload = self._starter, instance.workload
        try:
            async with starter.clock.timeout(RECONNECT_SECONDS):
                state = await starter.engine.inspect(cast(str, instance.container))
                if not state.running:
                    raise StartFailed("its container has ended")
                if workload is not None and workload.egress:
                    await starter.egress.ensure()
                instance.cgroup = cgroup.of_container(state.pid, state.id)
                await self._thaw(instance, state)
                await contract_of(instance).reconnect(starter, instance, state)
        except TimeoutError:
            raise StartFailed(f"it was not idle and reachable within {RECONNECT_SECONDS:g} s") from None
        except (OSError, EngineError) as error:
            raise StartFailed(str(error)) from error

    async def _thaw(self, instance: Instance, state: ContainerState) -> None:
        if state.paused:
            await self._starter.engine.unpause(state.id)
        if instance.cgroup is not None:
            with contextlib.suppress(
                OSError
            ):  # a cgroup that cannot be written was not frozen through it either
                instance.cgroup.thaw()
