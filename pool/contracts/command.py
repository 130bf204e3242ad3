"""The command contract: the container runs once for each call, with the body as stdin and stdout as the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from pool.contracts.base import Contract
from pool.contracts.facts import Freezing
from pool.contracts.starter import Starter
from pool.engine.base import ContainerSpec
from pool.engine.labels import KEPT_LABEL
from pool.instance import Instance
from pool.transport.command import CommandLink
from pool.workload import Keep, Workload


class CommandContract(Contract):
    """A container is created for its call, since the call's meta-variables are part of its environment."""

    name = "command"
    single_use = True
    freezing = Freezing.NEVER
    cgi_variables = True
    untyped = True
    resends = False

    async def launch(self, starter: Starter, instance: Instance, prototype: ContainerSpec) -> None:
        """Prepare the container; the call creates it."""
        workload = cast(Workload, instance.workload)
        spec = await starter.spec_of(instance, prototype)
        spec = replace(spec, stdin=True, keep_output=False)
        if workload.keep is not Keep.NONE:
            spec = replace(spec, labels={**spec.labels, KEPT_LABEL: workload.function})
        created = starter.container_setter(instance)
        link = CommandLink(starter.engine, spec, starter.call_starts, created, workload.max_response)
        link.log = starter.sink_of(instance)
        instance.link = link


COMMAND = CommandContract()
