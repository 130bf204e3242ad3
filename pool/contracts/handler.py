"""The handler contract: a shim in the container dials the gateway and calls a function of the user's code.

docs/runtime-protocol.md is its specification.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import replace
from typing import cast

from pool.contracts import problem_slugs as slugs
from pool.contracts.base import Contract
from pool.contracts.facts import PLAIN_ENDINGS, AnsweredLease, Freezing
from pool.contracts.obituary import obituary_of
from pool.contracts.starter import Starter, start_failed
from pool.engine.base import ContainerSpec, ContainerState, EngineError
from pool.errors import AnswerFault, FunctionBroken, MalformedAnswer, NotSent, PoolError, StartFailed
from pool.instance import Instance
from pool.transport.connection import HttpConnection
from pool.transport.message import Answer, Call, read_report, read_said
from pool.transport.slots import SlotLink
from pool.workload import Order, Workload

CODE = "/function"
EXEC = b"x-hearth-exec"
SILENT = (b"x-hearth-silent", b"1")
"""Field of a shim that has no output waiting. Without it, as from older shims, somebody has to look."""
OUTCOME = b"x-hearth-outcome"
SLUGS = {
    b"raised": slugs.HANDLER_RAISED,
    b"bad-json": slugs.BAD_REQUEST,
    b"bad-result": slugs.CONTRACT_BROKEN,
}
"""Problems by the outcome that a shim reports; any other outcome breaks the contract."""
REPORT_STATUSES = frozenset({400, 500})
"""Statuses with which a shim reports a failure."""
CONTROL = (b"x-hearth-control", b"1")
STATUS = Call(b"GET", b"/hearth/status", [(b"host", b"hearth"), CONTROL])


class HandlerContract(Contract):
    """The gateway listens in a folder that is mounted in the container; each connection of the shim is one slot."""

    name = "handler"
    specialises = True
    freezing = Freezing.ALWAYS
    fast_path = True
    long_way_statuses = PLAIN_ENDINGS | REPORT_STATUSES
    dies_with_connection = True

    async def launch(self, starter: Starter, instance: Instance, prototype: ContainerSpec) -> None:
        """Listen, start the container, and wait until its shim has dialled."""
        spec = replace(prototype, writable=(*prototype.writable, (CODE, starter.settings.code_size)))
        await starter.start_slots(instance, spec, link_of(starter, instance))

    async def specialise(self, starter: Starter, instance: Instance, workload: Workload) -> None:
        """Send a generic instance its code and wait until its handler is imported."""
        link = cast(SlotLink, instance.link)
        try:
            order = await asyncio.to_thread(cast(Order, workload.order).read)
        except OSError as error:
            raise StartFailed(f"the function's code is not in the data folder any more: {error}") from error
        timeout = starter.settings.start_timeout
        instance.awaits = "its handler is still being imported"
        try:
            if instance.born_generic:
                await resize(starter, instance, workload.container)
            async with starter.clock.timeout(timeout):
                connection = link.take()
                if connection is None:
                    raise StartFailed("the prewarmed instance has lost its connection")
                link.slots = workload.concurrency
                await send_order(connection, order)
                link.give(connection)
        except TimeoutError:
            raise FunctionBroken(
                f"the handler was not imported within {timeout:g} s (HEARTH_START_TIMEOUT)"
            ) from None
        except NotSent as error:
            raise StartFailed(str(error)) from error
        except EngineError as error:
            raise start_failed("the engine could not set the instance's limits", error) from error
        except (FunctionBroken, StartFailed):
            raise
        except PoolError as error:
            death = await obituary_of(starter.engine, starter.clock, instance)
            raise FunctionBroken(
                f"the instance ended while it imported the handler: {death.words}"
            ) from error

    async def reconnect(self, starter: Starter, instance: Instance, state: ContainerState) -> None:
        """Listen again, wait until every slot has dialled, and ask the shim what it is."""
        workload = instance.workload
        link = link_of(starter, instance)
        link.slots = workload.concurrency if workload else 1
        await starter.reopen_slots(instance, link)
        connection = link.take()
        if connection is None:
            raise StartFailed("it closed its connection")
        status = await read_status(await connection.exchange(STATUS))
        link.give(connection)
        if not is_as_recorded(status, workload):
            raise StartFailed(f"it says that it is {status}")

    async def check_answer(self, answer: Answer) -> None:
        """Raise what a shim reports in place of the handler's own answer."""
        if answer.status not in REPORT_STATUSES:
            return
        outcome = next((value for name, value in answer.headers if name == OUTCOME), None)
        if outcome is not None:
            kind, message = await read_report(answer)
            raise AnswerFault(SLUGS.get(outcome, slugs.CONTRACT_BROKEN), f"{kind}: {message}")

    def note_answer(self, lease: AnsweredLease, answer: Answer) -> None:
        """Take from the answer how long the handler ran, and whether its output waits to be read."""
        headers = answer.headers
        lease.exec_seconds = take_exec_seconds(headers)
        lease.silent = SILENT in headers


HANDLER = HandlerContract()


def link_of(starter: Starter, instance: Instance) -> SlotLink:
    """Return the gateway's end of an instance's connections."""
    on_slots = starter.reports.on_slots
    return SlotLink(starter.way_of(instance), lambda: on_slots(instance), starter.sink_of(instance))


async def resize(starter: Starter, instance: Instance, container: ContainerSpec) -> None:
    """Give an instance a container's memory and CPUs. Raises `EngineError`."""
    if instance.cgroup is not None:
        with contextlib.suppress(OSError):
            instance.cgroup.resize(container.memory, container.cpus)
            return
    await starter.engine.resize(cast(str, instance.container), container.memory, container.cpus)


async def send_order(connection: HttpConnection, order: bytes) -> None:
    """Send a shim the order to become a function. Raises `FunctionBroken` if it cannot, and other `PoolError`s."""
    headers = [(b"host", b"hearth"), (b"content-type", b"application/json"), CONTROL]
    answer = await connection.exchange(Call(b"POST", b"/specialise", headers, order))
    if answer.status != 200:
        kind, message = await read_report(answer)
        raise FunctionBroken(message, kind, imported=False)
    while await answer.read():
        pass


async def read_status(answer: Answer) -> dict[str, object]:
    """Return what a shim says of itself. Raises `StartFailed` if it is no JSON object, and what reading raises."""
    try:
        status = await read_said(answer) if answer.status == 200 else None
    except (ValueError, MalformedAnswer):
        status = None
    if not isinstance(status, dict):
        raise StartFailed("it does not say what it is")
    return status


def is_as_recorded(status: dict[str, object], workload: Workload | None) -> bool:
    """Return whether a shim says that it is ready and what its record says."""
    if workload is None:
        return status.get("specialised") is False
    return (
        status.get("specialised") is True
        and status.get("failed") is False
        and status.get("function") == workload.function
        and status.get("version") == workload.version
    )


def take_exec_seconds(headers: list[tuple[bytes, bytes]]) -> float | None:
    """Remove from an answer's fields how many seconds the handler ran, and return it, or None if it is not there.

    What is left is then the same for most calls of a function. Unlike the time that the gateway measures, this one
    does not grow while the gateway is busy.
    """
    at = len(headers) - 1
    while at >= 0 and headers[at][0] != EXEC:  # it is the last field; of older shims the last but one
        at -= 1
    if at < 0:
        return None
    try:
        seconds = float(headers.pop(at)[1])
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
