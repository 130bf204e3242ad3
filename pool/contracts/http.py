"""The http contract: an unchanged image serves HTTP on a port inside its container.

The container's first process is our init, which starts the image's program, passes on what it prints, and connects
the gateway with the port where the gateway cannot enter the container's network namespace.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from pool.contracts.base import Contract
from pool.contracts.starter import Starter
from pool.engine.base import ContainerSpec, ContainerState
from pool.errors import FunctionBroken, StartFailed
from pool.host import cgroup
from pool.instance import Instance
from pool.transport.http import HttpLink
from pool.transport.init_calls import InitCalls
from pool.transport.server import Server
from pool.workload import Workload

OLD_CALL_POLL_SECONDS = 0.02
"""Pause between two looks whether a server has closed the connections of an earlier gateway."""


class HttpContract(Contract):
    """A port inside the container's network namespace; the server's answer is the function's."""

    name = "http"
    under_init = True
    methods = None
    sub_paths = True
    fast_path = True
    own_processes = 1
    late_output = True

    async def launch(self, starter: Starter, instance: Instance, prototype: ContainerSpec) -> None:
        """Start the container and wait until its server is ready."""
        workload = cast(Workload, instance.workload)
        init, server = ends_of(starter, instance)
        await init.link.open()
        spec = replace(prototype, env={**prototype.env, "PORT": str(workload.port)})
        spec = starter.with_init(spec, "--serve", "--calls", "1")
        await starter.start_with(init.link.way, instance, spec)
        state = await starter.state_of(instance)
        instance.cgroup = cgroup.of_container(state.pid, state.id)
        if starter.remote is None:
            server.enter(state.pid)
        again = await starter.state_of(instance)
        if again.pid != state.pid:  # else the namespace could belong to whoever got its pid since
            raise FunctionBroken(f"the image ended at once{await starter.last_words(instance)}")

        def note(awaits: str) -> None:
            instance.awaits = awaits

        await starter.unless_it_ends(instance, server.ready(workload.health, note))

    async def reconnect(self, starter: Starter, instance: Instance, state: ContainerState) -> None:
        """Wait until the server has closed the earlier gateway's connections and is ready."""
        workload = cast(Workload, instance.workload)
        init, server = ends_of(starter, instance)
        await init.link.reopen(state.id)
        if starter.remote is None:
            server.enter(state.pid)
        again = await starter.engine.inspect(state.id)
        if again.pid != state.pid:  # else the namespace could belong to whoever got its pid since
            raise StartFailed("its container has ended")
        while await server.open_connections():  # calls of the earlier process
            await starter.clock.sleep(OLD_CALL_POLL_SECONDS)
        await server.ready(workload.health)


HTTP = HttpContract()


def ends_of(starter: Starter, instance: Instance) -> tuple[InitCalls, Server]:
    """Set the link of an instance to its server. Return the gateway's ends of its init and of its server."""
    workload = cast(Workload, instance.workload)
    init = InitCalls(starter.way_of(instance), starter.sink_of(instance))
    server = Server(init, workload.port, starter.clock)
    instance.link = HttpLink(server, workload.concurrency, starter.clock)
    return init, server
