"""The command contract: init runs the image's program for each call. The body is stdin, and stdout is the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from pool.contracts.base import Contract
from pool.contracts.facts import AnsweredLease, Freezing
from pool.contracts.handler import STATUS, read_status
from pool.contracts.obituary import killed_processes
from pool.contracts.starter import Starter
from pool.engine.base import ContainerSpec, ContainerState
from pool.engine.labels import KEPT_LABEL
from pool.errors import StartFailed
from pool.instance import Instance
from pool.transport.command import HELD_BYTES, CommandFacts, CommandLink
from pool.transport.message import Answer
from pool.transport.run import RunAnswer, RunConnection
from pool.workload import Keep, Workload


class CommandContract(Contract):
    """init waits in the container and dials; each of its connections carries one run at a time.

    So a container can be started before its call, whose meta-variables are part of the run.
    """

    name = "command"
    fresh_by_default = True
    under_init = True
    freezing = Freezing.NEVER
    """Between runs only init is there, and it waits."""
    cgi_variables = True
    untyped = True
    dies_with_connection = True

    async def launch(self, starter: Starter, instance: Instance, prototype: ContainerSpec) -> None:
        """Listen, start the container, and wait until init has dialled."""
        workload = cast(Workload, instance.workload)
        kept = workload.keep is not Keep.NONE
        flags = ("--wait", *(["--once"] if kept else []), "--calls", str(workload.concurrency))
        spec = replace(starter.with_init(prototype, *flags), keep_output=False)
        if kept:
            spec = replace(spec, labels={**spec.labels, KEPT_LABEL: workload.function})
        await starter.start_slots(instance, spec, link_of(starter, instance))

    async def reconnect(self, starter: Starter, instance: Instance, state: ContainerState) -> None:
        """Listen again, and wait until init has dialled for every slot: no run of the earlier process is left."""
        link = link_of(starter, instance)
        await starter.reopen_slots(instance, link)
        connection = cast(RunConnection | None, link.take())
        if connection is None:
            raise StartFailed("it closed its connection")
        status = await read_status(await connection.ask(STATUS))
        link.give(connection)
        if status.get("init") != 1 or status.get("running") is not False:
            raise StartFailed(f"it says that it is {status}")

    def note_answer(self, lease: AnsweredLease, answer: Answer) -> None:
        """Take from the answer how long the program ran."""
        lease.exec_seconds = cast(RunAnswer, answer).exec_seconds


COMMAND = CommandContract()


def link_of(starter: Starter, instance: Instance) -> CommandLink:
    """Return the gateway's end of init's connections."""
    workload = cast(Workload, instance.workload)
    on_slots = starter.reports.on_slots
    facts = CommandFacts(
        held_bytes=0 if workload.stream else HELD_BYTES,
        most_bytes=workload.max_response,
        own_variables=frozenset(workload.container.env),
        memory=workload.container.memory,
        memory_kills=lambda: killed_processes(instance),
        note_call=None
        if workload.keep is Keep.NONE
        else lambda invocation: starter.kept_calls.note(instance.id, invocation),
    )
    link = CommandLink(starter.way_of(instance), lambda: on_slots(instance), starter.sink_of(instance), facts)
    link.slots = workload.concurrency
    return link
