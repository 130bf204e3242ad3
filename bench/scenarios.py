"""The scenarios. Each measures the gateway and its reference by turns, so that both have the same machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.client import CallFailed
from bench.closed_loop import Bounds
from bench.figures import Ratio, Series, paired_ratio
from bench.gateways import Gateway
from bench.instances import Instance
from bench.worker import Job, Workers
from deploy.progress import Step
from pool.engine.base import Engine
from pool.workload import Workload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Times in seconds."""

    clients: Sequence[int] = (1, 16)
    processes: int = 1
    warm_up: float = 0.5
    seconds: float = 2.0
    """Of each loop of a round."""
    rounds: int = 8
    samples: int = 30
    """First calls of each kind."""
    burst: int = 32
    bursts: int = 5
    prewarm: int = 4
    """Of the benchmark's own gateway."""

    @property
    def fresh_functions(self) -> int:
        """Functions never called that the samples use up."""
        return self.samples + self.burst * self.bursts


QUICK = Plan(warm_up=0.1, seconds=0.3, rounds=2, samples=3, burst=6, bursts=1, prewarm=2)
"""For CI: shows that everything works, and no figure worth keeping."""


@dataclass(frozen=True, slots=True)
class Lab:
    """What the references need: the engine, what to start on it, where, and the run's id."""

    engine: Engine
    workload: Workload
    folder: Path
    run: str

    def instance(self) -> Instance:
        """A container that is not started yet."""
        return Instance(self.engine, self.workload, self.folder, self.run)


@dataclass(slots=True)
class Result:
    """What a scenario has found."""

    series: list[Series] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)

    def compare(self, name: str, title: str, measured: Series, reference: Series) -> None:
        """Add a ratio, if both have samples."""
        if ratio := paired_ratio(name, title, measured.samples, reference.samples):
            self.ratios.append(ratio)


async def warm(gateway: Gateway, function: str, lab: Lab, plan: Plan, step: Step) -> Result:
    """Calls of one function as fast as they are answered, beside calls of an equal instance without a gateway."""
    bounds = Bounds(plan.warm_up, plan.seconds)
    target = f"/invoke/{function}"
    direct = Series("warm-direct", "direct, 1 client")
    loops = [
        (
            Series(f"warm-{n}", f"warm, {n} client{'s' if n > 1 else ''}"),
            Job(n, bounds, gateway.address, target),
        )
        for n in plan.clients
    ]
    # One client beside the direct call, whatever else was asked for: what the gateway adds is their difference.
    if 1 not in plan.clients:
        loops.insert(0, (Series("warm-1", "warm, 1 client"), Job(1, bounds, gateway.address, target)))
    loops.append((direct, Job(1, bounds)))
    workers, instance = Workers(), lab.instance()
    try:
        await instance.start()
        await workers.start(plan.processes, instance.lend())
        for turn in range(plan.rounds):
            for at, (series, job) in enumerate(rotated(loops, turn)):
                step.show(
                    f"{series.title}, round {turn + 1}", (turn * len(loops) + at) / (plan.rounds * len(loops))
                )
                outcome = await workers.run(job)
                once = outcome.latencies
                series.latencies.add_encoded(once.encode())
                series.faults.update(outcome.faults)
                series.starts.update(outcome.starts)
                if len(once):
                    series.samples.append(once.percentile(50))
                    series.rates.append(outcome.rate)
    finally:
        await workers.stop()
        await instance.remove()
    result = Result([series for series, _ in loops])
    one = next(series for series, _ in loops if series.name == "warm-1")
    result.compare("warm_to_direct", "warm / direct", one, direct)
    return result


async def first_calls(
    prewarmed: Gateway | None, cold: Gateway | None, lab: Lab, plan: Plan, step: Step
) -> Result:
    """First calls of functions never called, with a prewarmed instance and without, beside raw starts."""
    raw = Series("raw-start", "raw start")
    kinds: list[tuple[Series, Callable[[Series], Awaitable[None]]]] = []
    result = Result()
    by_kind: dict[str, Series] = {}
    for kind, gateway in (("prewarmed", prewarmed), ("cold", cold)):
        if gateway is not None:
            by_kind[kind] = series = Series(kind, kind)
            kinds.append((series, first_call_of(gateway, kind)))
    kinds.append((raw, raw_start_of(lab)))
    for turn in range(plan.samples):
        for at, (series, sample) in enumerate(rotated(kinds, turn)):
            done = (turn * len(kinds) + at) / (plan.samples * len(kinds))
            step.show(f"{series.title}, {turn + 1} of {plan.samples}", done)
            await sample(series)
    result.series = [series for series, _ in kinds]
    for kind, series in by_kind.items():
        result.compare(f"{kind}_to_raw_start", f"{kind} / raw start", series, raw)
    if len(by_kind) == 2:
        title = "prewarmed / cold"
        result.compare("prewarmed_to_cold", title, by_kind["prewarmed"], by_kind["cold"])
    return result


def first_call_of(gateway: Gateway, kind: str) -> Callable[[Series], Awaitable[None]]:
    """Samples the first call of a function. One that starts in another way than it should is a fault."""

    async def sample(series: Series) -> None:
        await gateway.quiet()
        function = gateway.fresh()
        try:
            took, start = await gateway.first_call(function)
        except CallFailed as error:
            series.faults[str(error)] += 1
        else:
            series.starts[start] += 1
            if start != kind:
                series.faults[f"started {start or 'in no known way'}, not {kind}"] += 1
            note(series, took)
        await gateway.forget([function])

    return sample


def raw_start_of(lab: Lab) -> Callable[[Series], Awaitable[None]]:
    """Samples a container's start through the engine's API until its first reply; removing it does not count."""

    async def sample(series: Series) -> None:
        instance = lab.instance()
        try:
            note(series, await raw_start(instance))
        except CallFailed as error:
            series.faults[str(error)] += 1
        finally:
            await instance.remove()

    return sample


async def raw_start(instance: Instance) -> float:
    """Seconds from the create call to the first reply. Raises `CallFailed`, `EngineError` and OSError."""
    began = time.perf_counter()
    await instance.start()
    await instance.call()
    return time.perf_counter() - began


async def burst(gateway: Gateway, lab: Lab, plan: Plan, step: Step) -> Result:
    """Calls of many functions never called, all at once, beside as many raw starts, as many at once as cores."""
    calls = Series("burst", f"burst of {plan.burst}")
    raw = Series("burst-raw", f"{plan.burst} raw starts, {os.cpu_count()} at once")
    kinds: list[tuple[Series, Callable[[Series], Awaitable[None]]]] = [
        (calls, burst_of(gateway, plan.burst)),
        (raw, raw_burst_of(lab, plan.burst)),
    ]
    for turn in range(plan.bursts):
        for at, (series, sample) in enumerate(rotated(kinds, turn)):
            step.show(f"{series.title}, {turn + 1} of {plan.bursts}", (2 * turn + at) / (2 * plan.bursts))
            await sample(series)
    result = Result([calls, raw])
    result.compare("burst_to_raw_starts", "burst / raw starts", calls, raw)
    return result


def burst_of(gateway: Gateway, count: int) -> Callable[[Series], Awaitable[None]]:
    """Samples a burst: the time until the last answer, and of each call its own."""

    async def sample(series: Series) -> None:
        await gateway.quiet()
        functions = [gateway.fresh() for _ in range(count)]
        began = time.perf_counter()
        answers = await asyncio.gather(*map(gateway.first_call, functions), return_exceptions=True)
        took = time.perf_counter() - began
        right = 0
        for answer in answers:
            if isinstance(answer, CallFailed):
                series.faults[str(answer)] += 1
            elif isinstance(answer, BaseException):
                raise answer
            else:
                right += 1
                series.latencies.record(answer[0])
                series.starts[answer[1]] += 1
        if right == count:
            series.samples.append(took * 1000)
        await gateway.forget(functions)

    return sample


def raw_burst_of(lab: Lab, count: int) -> Callable[[Series], Awaitable[None]]:
    """Samples as many raw starts, no more of them at once than there are cores: more only add latency."""

    async def sample(series: Series) -> None:
        instances = [lab.instance() for _ in range(count)]
        at_once = asyncio.Semaphore(os.cpu_count() or 1)

        async def one(instance: Instance) -> None:
            async with at_once:
                series.latencies.record(await raw_start(instance))

        try:
            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for instance in instances:
                    group.create_task(one(instance))
            series.samples.append((time.perf_counter() - began) * 1000)
        except* CallFailed as faults:
            series.faults.update(map(str, faults.exceptions))
        finally:
            await asyncio.gather(*(instance.remove() for instance in instances))

    return sample


def note(series: Series, seconds: float) -> None:
    """Add a single call."""
    series.latencies.record(seconds)
    series.samples.append(seconds * 1000)


def rotated(items: Sequence[T], turn: int) -> Sequence[T]:
    """The same items, another one first each turn: none always follows the same other."""
    at = turn % len(items)
    return [*items[at:], *items[:at]]
