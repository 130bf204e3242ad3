"""Scenarios of what lies idle: registered functions, open connections and warm instances that nobody calls now."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from bench import wrk
from bench.client import CallFailed, Connection, Greeting, connect, fault_of
from bench.closed_loop import ANSWER_TIMEOUT, Bounds
from bench.figures import Outcome, Series
from bench.gateways import Gateway, GatewayFault
from bench.processes import cpu_seconds, resident
from bench.scenarios import Plan, Result, by_turns
from bench.throughput import CLIENTS, warm_up
from bench.worker import Job, Workers
from gateway.setup.progress import Step

MIB = 2**20
CONNECTING = 100
"""Connections that are opened at once."""


async def many_functions(few: Gateway, many: Gateway, function: str, plan: Plan, step: Step) -> Result:
    """Warm calls of one client where many functions are registered, beside where one is; and the memory."""
    loops, bounds, workers = [], Bounds(plan.warm_up, plan.seconds), Workers()
    for name, title, gateway in (
        ("many-functions", f"{plan.registered} functions, 1 client", many),
        ("one-function", "1 function, 1 client", few),
    ):
        job = Job(1, bounds, gateway.address, f"/invoke/{function}")
        loops.append((Series(name, title), partial(workers.run, job)))
    try:
        await workers.start(1, None)
        await by_turns(loops, plan.rounds, step)
    finally:
        await workers.stop()
    result = Result([series for series, _ in loops])
    of_many, of_one = result.series
    result.compare("many_latency", f"{plan.registered} functions / 1", of_many, of_one, "many_latency")
    held, held_by_few = resident(many.own_pid), resident(few.own_pid)
    result.judge_median("many_growth", [held / held_by_few])
    result.judge_median("many_memory", [held / MIB])
    return result


async def idle_clients(gateway: Gateway, function: str, plan: Plan, step: Step) -> Result:
    """Calls of 16 clients while many others keep their connections open, beside calls of 16 alone."""
    alone, beside = (
        Series("clients-alone", f"{CLIENTS} clients alone"),
        Series("clients-beside-idle", f"{CLIENTS} clients, {plan.idle_clients} idle"),
    )
    target = f"/invoke/{function}"

    async def load() -> Outcome:
        return await wrk.load(gateway.address, target, CLIENTS, plan.seconds)

    async def with_idle_ones() -> Outcome:
        connections = await open_all(gateway, target, plan.idle_clients)
        try:
            outcome = await load()
            closed = sum(not connection.is_open for connection in connections)
            if closed:
                outcome.faults["idle connection closed"] += closed
        finally:
            for connection in connections:
                connection.close()
        return outcome

    await warm_up([(alone, load)], gateway, [(gateway.address, target)])
    await by_turns([(beside, with_idle_ones), (alone, load)], plan.wrk_rounds, step)
    result = Result([beside, alone])
    result.compare_rates(
        "idle_clients", f"{plan.idle_clients} idle / alone", beside, alone, "req/s", "idle_clients"
    )
    return result


async def open_all(gateway: Gateway, target: str, count: int) -> list[Connection]:
    """Open connections and make one call on each, so that it is one that is kept alive. Raises `CallFailed`."""
    connections: list[Connection] = []
    at_once = asyncio.Semaphore(CONNECTING)

    async def one(number: int) -> None:
        async with at_once:
            connection = await connect(gateway.address)
            connections.append(connection)
            request, expected = Greeting(target, gateway.address.authority, prefix=f"i{number:x}-").next()
            fault = fault_of(await connection.call(request, ANSWER_TIMEOUT), expected)
            if fault is not None:
                raise CallFailed(f"opening an idle connection: {fault}")

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))
    return connections


async def idle_gateway(gateway: Gateway, function: str, plan: Plan, step: Step) -> Result:
    """What a gateway takes of a core when nobody calls its warm instances. Raises `GatewayFault`."""
    await gateway.quiet()
    warm = [i for i in await gateway.get("/pool/instances") if i["function"] == function]
    if len(warm) != plan.idle_instances:
        raise GatewayFault(f"{len(warm)} warm instances, not {plan.idle_instances}")
    step.show(f"{plan.idle_seconds:g} s")
    before, began = cpu_seconds(gateway.own_pid), time.monotonic()
    await asyncio.sleep(plan.idle_seconds)
    taken, seconds = cpu_seconds(gateway.own_pid) - before, time.monotonic() - began
    result = Result()
    result.judge_median("idle_cpu", [100 * taken / seconds])
    return result
