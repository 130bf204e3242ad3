"""The http contract: the container serves HTTP on a port, and the gateway dials it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from pool.contracts.base import Contract
from pool.contracts.starter import Starter
from pool.engine.base import ContainerSpec, ContainerState
from pool.errors import FunctionBroken, StartFailed
from pool.host import cgroup, netns
from pool.instance import Instance
from pool.transport.http import HttpLink
from pool.transport.server import Server
from pool.workload import Workload

OLD_CALL_POLL_SECONDS = 0.02
"""Pause between two looks whether a server has closed the connections of an earlier gateway."""


class HttpContract(Contract):
    """A port inside the container's network namespace; the server's answer is the function's."""

    name = "http"
    dials_in = True
    methods = None
    sub_paths = True
    fast_path = True

    async def launch(self, starter: Starter, instance: Instance, prototype: ContainerSpec) -> None:
        """Start the container and wait until its server is ready."""
        workload = cast(Workload, instance.workload)
        spec = replace(prototype, env={**prototype.env, "PORT": str(workload.port)})
        await starter.start(instance, spec)
        state = await starter.state_of(instance)
        instance.cgroup = cgroup.of_container(state.pid, state.id)
        try:
            server = connect(starter, instance, state)
        except (OSError, StartFailed):
            await starter.raise_if_ended(instance)
            raise
        again = await starter.state_of(instance)
        if again.pid != state.pid:  # else the namespace could belong to whoever got its pid since
            raise FunctionBroken(f"the image ended at once{await starter.last_words(instance)}")
        await starter.unless_it_ends(instance, server.ready(workload.health))

    async def reconnect(self, starter: Starter, instance: Instance, state: ContainerState) -> None:
        """Wait until the server has closed the earlier gateway's connections and is ready."""
        workload = cast(Workload, instance.workload)
        await starter.egress.fallback(starter.settings.network_fallback)
        server = connect(starter, instance, state)
        again = await starter.engine.inspect(state.id)
        if again.pid != state.pid:  # else the namespace could belong to whoever got its pid since
            raise StartFailed("its container has ended")
        while netns.open_connections(state.pid, workload.port):  # calls of the earlier process
            await starter.clock.sleep(OLD_CALL_POLL_SECONDS)
        await server.ready(workload.health)


HTTP = HttpContract()


def connect(starter: Starter, instance: Instance, state: ContainerState) -> Server:
    """Set the link of an instance to its server. Raises `StartFailed` if there is no way to it, and OSError."""
    workload = cast(Workload, instance.workload)
    fallback = starter.settings.network_fallback or workload.egress
    server = Server(state, workload.port, fallback, starter.clock)
    instance.link = HttpLink(server.dial, workload.concurrency, starter.clock, server.close)
    return server
