"""Scenarios of functions with `reuse: false`: every invocation gets a container that nobody has used."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

from bench.client import CallFailed
from bench.figures import Latencies, Outcome, Series
from bench.gateways import Gateway
from bench.scenarios import Lab, Plan, Result, by_turns
from gateway.setup.progress import Step


async def paced(gateway: Gateway, function: str, plan: Plan, step: Step) -> Result:
    """One call at a time, each when the prewarm pool is full again: how long its start took."""
    series = Series("fresh", "reuse: false, paced")
    starts: list[float] = []
    for number in range(plan.fresh_samples):
        step.show(f"{number + 1} of {plan.fresh_samples}", number / plan.fresh_samples)
        await gateway.quiet()
        try:
            took, reply = await gateway.call(function)
        except CallFailed as error:
            series.faults[str(error)] += 1
            continue
        start = reply.took("start")
        if start is None or reply.start != "prewarmed":
            series.faults[f"started {reply.start or 'in no known way'}, not prewarmed"] += 1
            continue
        series.starts[reply.start] += 1
        series.latencies.record(took)
        series.samples.append(took * 1000)
        starts.append(start)
    result = Result([series])
    result.judge_median("fresh_start", starts)
    return result


async def flat_out(gateway: Gateway, function: str, lab: Lab, plan: Plan, step: Step) -> Result:
    """As many calls as go, beside create, start and remove through the engine by as many workers."""
    calls = Series("fresh-max", f"reuse: false, {plan.fresh_clients} clients")
    raw = Series("fresh-raw", f"create, start, remove, {plan.fresh_clients} workers")

    async def call(seen: Outcome) -> None:
        _, reply = await gateway.call(function)
        seen.starts[reply.start] += 1

    async def cycle(seen: Outcome) -> None:
        instance = lab.instance()
        try:
            await instance.launch()
        finally:
            await instance.remove()

    async def measured(work: Callable[[Outcome], Awaitable[None]]) -> Outcome:
        await gateway.quiet()
        return await flat_out_of(work, plan.fresh_clients, plan.fresh_seconds)

    loops = [(calls, partial(measured, call)), (raw, partial(measured, cycle))]
    await by_turns(loops, plan.fresh_rounds, step)
    await gateway.quiet()
    result = Result([calls, raw])
    result.compare_rates("fresh_to_raw", "reuse: false / raw workers", calls, raw, "1/s", "fresh_to_raw")
    return result


async def flat_out_of(work: Callable[[Outcome], Awaitable[None]], workers: int, seconds: float) -> Outcome:
    """Workers that do one piece of work after the other. The first quarter of the time does not count: the gateway
    begins with a full prewarm pool, and that is not what it can go on with. Raises what is not `CallFailed`."""
    began = time.perf_counter()
    counts, ends = began + seconds / 4, began + seconds
    seen = Outcome(Latencies(), 0.0, 0, Counter(), Counter())
    done = 0

    async def worker() -> None:
        nonlocal done
        while (start := time.perf_counter()) < ends:
            seen.requests += 1
            try:
                await work(seen)
            except CallFailed as error:
                seen.faults[str(error)] += 1
                continue
            finished = time.perf_counter()
            if counts <= finished <= ends:  # by their end: as many reach into the time as reach out of it
                done += 1
                seen.latencies.record(finished - start)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker())
    seen.rate = done / (ends - counts)
    return seen
