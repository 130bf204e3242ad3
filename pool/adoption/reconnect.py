"""Takes over the running container of an instance that an earlier gateway process started: the work on the engine
and on the sockets. What may be taken over is decided in `pool.adoption`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import cast

from pool.clock import Clock
from pool.engine.base import ContainerState, Engine, EngineError
from pool.errors import Nonsense, StartFailed
from pool.host import cgroup, netns
from pool.host.egress import Egress
from pool.instance import Instance
from pool.transport.handler import HandlerLink
from pool.transport.http import HttpLink
from pool.transport.message import Answer, Call, read_said
from pool.transport.server import Server
from pool.workload import Kind, Workload

PATIENCE = 3.0
"""Seconds that an instance gets to be reached, idle and what its record says. Readiness waits for it. A shim that
has lost its gateway dials at least once a second; one that is in a call dials when that has ended."""
LOOK = 0.02
"""Seconds between two looks whether a server has let go of its old connections."""
STATUS = Call(b"GET", b"/hearth/status", [(b"host", b"hearth"), (b"x-hearth-control", b"1")])


class Reconnection:
    """`link_of` makes the gateway's end of a handler's sockets; `fallback`: HTTP images may have a network."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        egress: Egress,
        fallback: bool,
        link_of: Callable[[Instance], HandlerLink],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._egress = egress
        self._fallback = fallback
        self._link_of = link_of

    async def adopt(self, instance: Instance) -> None:
        """Thaw an instance, reach it, and make sure that it is idle and what it is taken for.

        Sets `link` and `cgroup`. Raises `StartFailed` if that is not so within `PATIENCE` seconds.
        """
        workload = instance.workload
        try:
            async with self._clock.timeout(PATIENCE):
                state = await self._engine.inspect(cast(str, instance.container))
                if not state.running:
                    raise StartFailed("its container has ended")
                if workload is not None and workload.egress:
                    await self._egress.ensure()
                instance.cgroup = cgroup.of_container(state.pid, state.id)
                await self._thaw(instance, state)
                if workload is not None and workload.kind is Kind.HTTP:
                    await self._reach_server(instance, workload, state)
                else:
                    await self._reach_handler(instance, workload)
        except TimeoutError:
            raise StartFailed(f"it was not idle and reachable within {PATIENCE:g} s") from None
        except (OSError, EngineError) as error:
            raise StartFailed(str(error)) from error

    async def _thaw(self, instance: Instance, state: ContainerState) -> None:
        if state.paused:
            await self._engine.unpause(state.id)
        if instance.cgroup is not None:
            with contextlib.suppress(OSError):  # where it may not be written, it was not frozen so
                instance.cgroup.thaw()

    async def _reach_handler(self, instance: Instance, workload: Workload | None) -> None:
        link = self._link_of(instance)
        link.slots = workload.concurrency if workload else 1
        instance.link = link
        await link.reopen()
        await link.connected()  # by every slot: none is in a call of the earlier process
        if instance.cgroup is None:
            instance.cgroup = cgroup.of_container(link.peer, cast(str, instance.container))
        connection = link.take()
        if connection is None:
            raise StartFailed("it closed its connection")
        status = await read_status(await connection.exchange(STATUS))
        link.give(connection)
        if not is_as_recorded(status, workload):
            raise StartFailed(f"it says that it is {status}")

    async def _reach_server(self, instance: Instance, workload: Workload, state: ContainerState) -> None:
        await self._egress.fallback(self._fallback)
        server = Server(state, workload.port, self._fallback or workload.egress, self._clock)
        instance.link = HttpLink(server.dial, workload.concurrency, self._clock, server.close)
        again = await self._engine.inspect(state.id)
        if again.pid != state.pid:  # else the namespace could be of who got its pid since
            raise StartFailed("its container has ended")
        while netns.open_connections(state.pid, workload.port):  # calls of the earlier process
            await self._clock.sleep(LOOK)
        await server.ready(workload.health)


async def read_status(answer: Answer) -> dict[str, object]:
    """What an instance says of itself. Raises `StartFailed` if it is no JSON object, and what reading raises."""
    try:
        status = await read_said(answer) if answer.status == 200 else None
    except (ValueError, Nonsense):
        status = None
    if not isinstance(status, dict):
        raise StartFailed("it does not say what it is")
    return status


def is_as_recorded(status: dict[str, object], workload: Workload | None) -> bool:
    """Whether an instance says that it is ready and what its record says."""
    if workload is None:
        return status.get("specialised") is False
    return (
        status.get("specialised") is True
        and status.get("failed") is False
        and status.get("function") == workload.function
        and status.get("version") == workload.version
    )
