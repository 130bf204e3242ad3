"""Each background loop of a gateway outlives an error that nobody foresaw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway.access.access import LOOK_SECONDS, Access
from gateway.access.key_file import KeyFile
from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from gateway.memory.allocator import give_back_freed
from gateway.memory.budget import BodyBudget
from pool import supervise
from pool.backoff import Backoff
from pool.clock import LoopClock, VirtualClock
from pool.data_folder import DataFolder
from pool.engine.memory import Latency, MemoryEngine
from pool.observe.metrics import Metrics
from pool.supervise import RESTART, UNREADY_SECONDS, Supervisor
from scheduler.calls.running import lease_keeper, worker
from scheduler.definitions.file import Definitions
from scheduler.deploy import registry
from scheduler.jobs import jobs
from scheduler.triggers.triggers import Triggers
from scheduler.work import NewCallback
from scheduler.workflows import runs

Break = Callable[[Runtime, pytest.MonkeyPatch], object]
"""Breaks something that a loop uses, and has the loop use it."""


class Broken(Exception):
    """A fault that nobody foresaw."""


class MemoryRuntime(Runtime):
    """A gateway whose engine is in memory."""

    def __init__(self, folder: DataFolder, engine: MemoryEngine) -> None:
        super().__init__(Settings(), folder, engine)
        self.memory_engine = engine


def fails(*_: object, **__: object) -> None:
    raise Broken


def broken_store(area: str, verb: str, kick: Callable[[Runtime], object] = lambda runtime: None) -> Break:
    """Return how to break a verb of one area of the store."""

    def broken(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(getattr(runtime.scheduler_floor.stores, area), verb, fails)
        kick(runtime)

    return broken


def break_reaper(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runtime.scheduler_floor.reaper, "reap", fails)


def break_events(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    assert isinstance(runtime, MemoryRuntime)
    patch.setattr(runtime.pool_floor.engine, "events", fails)
    runtime.memory_engine.stop()  # the stream of events is cut
    runtime.memory_engine.resume()


def break_registry(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(registry, "ImageLookup", fails)
    runtime.scheduler_floor.registry.try_again()


def break_schedules(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Triggers, "all", property(fails))
    runtime.scheduler_floor.triggers.on_change()


def break_heartbeats(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runtime.scheduler_floor.worker.leases, "holders", [fails])


def tell_of_a_callback(runtime: Runtime) -> None:
    runtime.gateway_floor.deliverer.begun([object.__new__(NewCallback)])


LOOPS: dict[str, Break] = {
    "reaper": break_reaper,
    "engine-events": break_events,
    "registry": break_registry,
    "leases": break_heartbeats,
    "calls": broken_store("calls", "backlogs", lambda runtime: runtime.scheduler_floor.worker.notify()),
    "calls-pruning": broken_store("calls", "prune"),
    "runs-pruning": broken_store("runs", "prune"),
    "jobs": broken_store("jobs", "unfinished", lambda runtime: runtime.scheduler_floor.jobs.begun()),
    "jobs-pruning": broken_store("jobs", "outdated"),
    "schedules": break_schedules,
    "callbacks": broken_store("callbacks", "due", tell_of_a_callback),
}
"""Every loop of a gateway that runs without a server, and how it is broken."""


@pytest.fixture
async def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runtime]:
    """A gateway whose loops look often, and are started again soon."""
    monkeypatch.setattr(supervise, "RESTART", Backoff(0.01, 0.02))
    monkeypatch.setattr(supervise, "STEADY_SECONDS", 0.1)
    monkeypatch.setattr(registry, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(lease_keeper, "HEARTBEAT_SECONDS", 0.01)
    for module in (worker, runs, jobs):
        [constant] = [name for name in vars(module) if name.startswith("PRUNE_EVERY")]
        monkeypatch.setattr(module, constant, 0.01)
    engine = MemoryEngine(LoopClock(), latency=Latency(0.0, 0.0, 0.0, 0.0))
    made = MemoryRuntime(DataFolder(tmp_path / "data"), engine)
    await made.scheduler_floor.stores.writer.do(lambda _: None)  # its file is there: the loops use it
    await made.start(Definitions())
    await until(lambda: set(LOOPS) <= set(up(made)))
    yield made
    await made.close()


def up(runtime: Runtime) -> dict[str, float]:
    """Return the gauge of each loop."""
    return {name: number for (name,), number in runtime.metrics.loop_up.read()}


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_loop_goes_on_after_an_error_that_nobody_foresaw(
    loop: str, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    restarts = runtime.metrics.loop_restarts.labels(loop)
    with pytest.MonkeyPatch.context() as patch:
        LOOPS[loop](runtime, patch)
        await until(lambda: restarts.value >= 2)
        assert up(runtime)[loop] == 0.0
    await until(lambda: up(runtime)[loop] == 1.0)
    assert {name for name, number in up(runtime).items() if number} >= set(LOOPS), "the others never stopped"
    faults = [record for record in caplog.records if record.exc_info and record.name == "hearth.loops"]
    assert {record.exc_info[0] for record in faults if record.exc_info} == {Broken}


async def test_every_loop_of_a_gateway_is_tried(runtime: Runtime) -> None:
    await until(
        lambda: set(up(runtime)) == set(LOOPS)
    )  # "runs" is done when it has found the unfinished ones


async def test_readiness_names_a_loop_that_keeps_failing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await runtime.why_not_ready() is None
    monkeypatch.setattr(supervise, "UNREADY_SECONDS", 0.05)
    with pytest.MonkeyPatch.context() as patch:
        break_reaper(runtime, patch)
        async with asyncio.timeout(20):
            while await runtime.why_not_ready() is None:
                await asyncio.sleep(0.005)
        assert await runtime.why_not_ready() == "background loops keep failing: reaper; the log says why"
    await until(lambda: up(runtime)["reaper"] == 1.0)
    assert await runtime.why_not_ready() is None


async def test_memory_is_given_back_after_trimming_has_failed() -> None:
    clock, metrics, budget = VirtualClock(), Metrics(), BodyBudget(2**30)
    trimmed: list[int] = []
    faults = iter([Broken()])

    def trim(pad: int) -> None:
        for fault in faults:
            raise fault
        trimmed.append(pad)

    supervised = Supervisor(clock, metrics)
    task = supervised.supervise("memory", lambda: give_back_freed(budget, clock, trim))
    for _ in range(2):
        budget.take("a", 2**27)
        budget.give_back("a", 2**27)
        for _ in range(20):
            await clock.advance(RESTART.first)
            await asyncio.sleep(0.005)  # trimming is done in a thread
    assert trimmed == [0]
    assert metrics.loop_restarts.value_of("memory") == 1
    assert UNREADY_SECONDS > 0 and supervised.why_not_ready() is None
    task.cancel()


async def test_changes_of_the_keys_are_followed_after_a_look_has_failed(tmp_path: Path) -> None:
    clock, metrics = VirtualClock(), Metrics()
    file = KeyFile(tmp_path)
    access = Access(clock, metrics, file=file)
    looks = 0

    def faulty_then_not(self: KeyFile) -> Iterator[object] | None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise Broken
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyFile, "signature", faulty_then_not)
        task = Supervisor(clock, metrics).supervise("keys", access.follow)
        await clock.advance(5 * LOOK_SECONDS + 1.0)
    assert looks >= 3
    assert metrics.loop_restarts.value_of("keys") == 1
    task.cancel()
