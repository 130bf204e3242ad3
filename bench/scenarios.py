"""The scenarios. Each measures the gateway and its reference by turns, so that both have the same machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.client import CallFailed
from bench.closed_loop import Bounds
from bench.figures import Outcome, Ratio, Series, paired_ratio, quartiles
from bench.gateways import Gateway
from bench.instances import Instance
from bench.references import Program, Responder
from bench.targets import Finding, judge
from bench.worker import Job, Workers
from gateway.setup.progress import Step
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
    wrk_rounds: int = 8
    """Where wrk makes the load, which takes whole seconds."""
    responders: int = 4
    """Instances behind nginx. On two cores four are a tenth faster than two."""
    open_seconds: float = 4.0
    open_rounds: int = 5
    accept_seconds: float = 3.0
    """Of a round in which calls are accepted."""
    backlog: int = 8000
    """Accepted calls that are run in a round."""
    accept_rounds: int = 5
    fresh_samples: int = 20
    """Calls of a function with `reuse: false`, one at a time."""
    fresh_seconds: float = 8.0
    fresh_rounds: int = 3
    fresh_clients: int = 4
    """And as fast as they go: clients, and workers of the reference."""
    ready_samples: int = 12
    """First calls of a function with a requirements.txt, of each kind."""
    package: str = "pandas"
    """The package in it; empty for none."""
    stream_size: int = 100 * 2**20
    """Bytes of a long body."""
    stream_rounds: int = 8
    registered: int = 1000
    """Functions of the gateway that has many."""
    idle_clients: int = 2000
    idle_instances: int = 50
    idle_seconds: float = 20.0
    neighbour_rounds: int = 5
    attacks: int = 9
    """How many of the hostile functions a neighbour is measured beside."""

    @property
    def fresh_functions(self) -> int:
        """Functions never called that the samples use up."""
        return self.samples + self.burst * self.bursts


QUICK = Plan(
    warm_up=0.1,
    seconds=0.3,
    rounds=2,
    samples=3,
    burst=6,
    bursts=1,
    prewarm=2,
    wrk_rounds=1,
    open_seconds=0.5,
    open_rounds=2,
    accept_seconds=1.0,
    accept_rounds=1,
    backlog=1000,
    fresh_samples=2,
    fresh_seconds=1.5,
    fresh_rounds=1,
    fresh_clients=2,
    ready_samples=2,
    package="",
    stream_size=8 * 2**20,
    stream_rounds=2,
    registered=60,
    idle_clients=100,
    idle_instances=3,
    idle_seconds=1.0,
    neighbour_rounds=1,
    attacks=2,
)
"""For CI: shows that everything works, and no figure worth keeping."""


@dataclass(frozen=True, slots=True)
class Lab:
    """What the references need: the engine, what to start on it, where, and the run's id."""

    engine: Engine
    workload: Workload
    folder: Path
    run: str
    code: Path
    """What the containers of responders run."""

    def responder(self, program: Program) -> Responder:
        """A container that listens, not started yet."""
        return Responder(self.engine, self.code, self.folder, self.run, program)

    def instance(self) -> Instance:
        """A container that is not started yet."""
        return Instance(self.engine, self.workload, self.folder, self.run)


@dataclass(slots=True)
class Result:
    """What a scenario has found."""

    series: list[Series] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def compare(
        self, name: str, title: str, measured: Series, reference: Series, target: str | None = None
    ) -> Ratio | None:
        """Add the ratio of two series' times, if both have samples; `target` is judged by it."""
        ratio = paired_ratio(name, title, measured.samples, reference.samples)
        return self._add(ratio, target)

    def compare_rates(
        self, name: str, title: str, measured: Series, reference: Series, unit: str, target: str
    ) -> Ratio | None:
        """Add the ratio of two series' rates, if both have some; `target` is judged by it."""
        ratio = paired_ratio(name, title, measured.rates, reference.rates, unit)
        return self._add(ratio, target)

    def _add(self, ratio: Ratio | None, target: str | None) -> Ratio | None:
        if ratio is not None:
            self.ratios.append(ratio)
            if target is not None:
                self.findings.append(judge(target, ratio.value, ratio.low, ratio.high))
        return ratio

    def judge_median(self, target: str, values: Sequence[float]) -> None:
        """Judge a target by the median of some values, if there are any."""
        if values:
            low, value, high = quartiles(values)
            self.findings.append(judge(target, value, low, high))


Loop = tuple[Series, Callable[[], Awaitable[Outcome]]]


async def by_turns(loops: Sequence[Loop], rounds: int, step: Step) -> None:
    """Run loops one after the other, another one first each round, and add what they have seen to their series."""
    for turn in range(rounds):
        for at, (series, loop) in enumerate(rotated(loops, turn)):
            step.show(f"{series.title}, round {turn + 1}", (turn * len(loops) + at) / (rounds * len(loops)))
            series.add(await loop())


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
        await by_turns([(series, partial(workers.run, job)) for series, job in loops], plan.rounds, step)
    finally:
        await workers.stop()
        await instance.remove()
    result = Result([series for series, _ in loops])
    one = next(series for series, _ in loops if series.name == "warm-1")
    result.compare("warm_to_direct", "warm / direct", one, direct)
    result.judge_median("added", [a - b for a, b in zip(one.samples, direct.samples, strict=False)])
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
        target = "cold_to_raw" if kind == "cold" else None
        result.compare(f"{kind}_to_raw_start", f"{kind} / raw start", series, raw, target)
    if prewarmed is not None:
        result.judge_median("prewarmed", by_kind["prewarmed"].samples)
    if len(by_kind) == 2:
        title, (warm_pool, no_pool) = "prewarmed / cold", by_kind.values()
        result.compare("prewarmed_to_cold", title, warm_pool, no_pool, "prewarmed_to_cold")
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
    result.compare("burst_to_raw_starts", "burst / raw starts", calls, raw, "burst_to_raw")
    return result


def burst_of(gateway: Gateway, count: int) -> Callable[[Series], Awaitable[None]]:
    """Samples a burst: the time until the last answer, and of each call its own."""

    async def sample(series: Series) -> None:
        await gateway.quiet()
        functions = [gateway.fresh() for _ in range(count)]
        began = time.perf_counter()
        series.timeline.clear()

        async def call(function: str) -> tuple[float, str]:
            took, start = await gateway.first_call(function)
            series.timeline.append(((time.perf_counter() - began) * 1000, start))
            return took, start

        answers = await asyncio.gather(*map(call, functions), return_exceptions=True)
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
            series.timeline.append(((time.perf_counter() - began) * 1000, "raw"))

        series.timeline.clear()
        began = time.perf_counter()
        try:
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
