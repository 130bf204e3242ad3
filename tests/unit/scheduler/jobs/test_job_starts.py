"""Starting jobs on a gateway's own parts and an engine in memory: what is refused, what triggers start, functions
that jobs have of their own, containers that they have kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.base import ContainerSpec, EngineError, EngineUnreachable, Image
from pool.engine.labels import GATEWAY_LABEL, INVOCATION_LABEL, KEPT_LABEL
from pool.engine.memory import MemoryEngine
from pool.host.etc_files import EtcFiles
from pool.host.kept_calls import KeptCalls
from pool.workload import Keep, Workload
from scheduler.calls.plans import Plans
from scheduler.calls.targets import Start
from scheduler.definitions.file import Definitions, FunctionDefinition
from scheduler.definitions.jobs import JobDefinition
from scheduler.definitions.language.call_overrides import CallOverrides
from scheduler.jobs.kept_containers import KeptContainers
from scheduler.jobs.own_function import command_definition
from scheduler.jobs.starting import JobStarts, NotStarted

OF_IMAGE = JobDefinition(image="busybox", count=7)
FUNCTIONS = {"f": FunctionDefinition(name="f", image="busybox", max_instances=8)}
JOBS = {
    "counted": JobDefinition(function="f", count=2),
    "listed": JobDefinition(function="f", inputs=("a", "b")),
    "open": JobDefinition(image="busybox"),
}


@pytest.fixture
def engine() -> MemoryEngine:
    made = MemoryEngine(LoopClock())
    made.add_image("busybox")
    return made


@pytest.fixture
async def runtime(engine: MemoryEngine, tmp_path: Path) -> AsyncIterator[Runtime]:
    made = Runtime(Settings(memory_budget="1GiB"), DataFolder(tmp_path / "data"), engine)
    await made.start(Definitions(functions=FUNCTIONS, jobs=JOBS))
    yield made
    await made.close()


def own(name: str = "job:1", **keys: object) -> FunctionDefinition:
    return command_definition(name, JobDefinition.model_validate({"image": "busybox", "count": 1, **keys}), 3)


def workload_of(runtime: Runtime, function: str) -> Workload:
    """What a function in service is made of."""
    revision = runtime.scheduler_floor.dispatcher.revision_for(function)
    assert revision is not None
    return revision.workload


async def test_what_cannot_be_started_is_named(runtime: Runtime, engine: MemoryEngine) -> None:
    large = OF_IMAGE.model_copy(update={"memory": 2**31})
    for definition, slug, words in (
        (JobDefinition(image="absent", count=1), "not-found", "docker pull absent"),
        (JobDefinition(function="absent", count=1), "no-such-function", "absent"),
        (OF_IMAGE.model_copy(update={"on_failure": "absent"}), "no-such-function", "absent"),
        (large, "invalid-input", "2GiB is over the gateway's whole memory budget, 1GiB"),
    ):
        with pytest.raises(NotStarted, match=words) as caught:
            await runtime.scheduler_floor.job_starts.start("1", "", definition)
        assert caught.value.slug == slug
    engine.fail_next("image", EngineError("it has a fault"))
    with pytest.raises(NotStarted, match="it has a fault") as caught:
        await runtime.scheduler_floor.job_starts.start("1", "", OF_IMAGE)
    assert (caught.value.slug, caught.value.retry_after) == ("engine-down", 5.0)
    runtime.scheduler_floor.dispatcher.draining = True
    with pytest.raises(NotStarted) as caught:
        await runtime.scheduler_floor.job_starts.start("1", "", OF_IMAGE)
    assert caught.value.slug == "draining"


def test_how_many_tasks_run_at_once_if_nobody_says(runtime: Runtime) -> None:
    floor = runtime.scheduler_floor
    plans = Plans(floor.registry, floor.dispatcher)
    starts = JobStarts(floor.jobs, floor.registry, plans, 2, lambda: False)
    assert starts.new_job("1", "", OF_IMAGE).parallel == 4
    assert starts.new_job("1", "", OF_IMAGE.model_copy(update={"count": 3})).parallel == 3
    assert starts.new_job("1", "", OF_IMAGE.model_copy(update={"memory": 2**29})).parallel == 2
    assert starts.new_job("1", "", OF_IMAGE.model_copy(update={"parallel": 9})).parallel == 9
    assert starts.new_job("1", "", JOBS["counted"]).parallel == 4, "half of the function's slots"


async def test_triggers_start_declared_jobs_with_what_comes_with_them(runtime: Runtime) -> None:
    target = runtime.scheduler_floor.targets["job"]
    assert set(target.names()) == set(JOBS)
    assert set(target.functions("counted")) == {"f"} and set(target.functions("open")) == {"open"}

    def new(name: str, body: bytes) -> object:
        return target.work(
            Start("0" * 32, name, body, [], CallOverrides(context=(("Trigger", "t"),)), depth=2)
        )

    counted = new("counted", b'{"an": "event"}')
    assert (counted.each, counted.depth, counted.context) == (b'{"an": "event"}', 2, (("Trigger", "t"),))  # type: ignore[attr-defined]
    assert new("counted", b"").each is None  # type: ignore[attr-defined]
    assert new("listed", b"ignored").definition.inputs == ("a", "b")  # type: ignore[attr-defined]
    assert new("open", b'[1, "two"]').definition.inputs == (1, "two")  # type: ignore[attr-defined]
    for body in (b"", b"{}", b"[]", b"no json", b"[NaN]"):
        with pytest.raises(ValueError, match="list of"):
            new("open", body)
    await runtime.scheduler_floor.stores.calls.begin([new("listed", b"")], runtime.clock.wall())
    assert await target.running("0" * 32)
    await runtime.scheduler_floor.jobs.cancel("0" * 32)
    assert not await target.running("f" * 32)


async def test_a_jobs_own_function_survives_a_reload_and_is_not_declared(runtime: Runtime) -> None:
    registry, dispatcher = runtime.scheduler_floor.registry, runtime.scheduler_floor.dispatcher
    added = await registry.add(own(), Keep.FAILED)
    assert (added.state, workload_of(runtime, "job:1").keep) == ("ready", Keep.FAILED)
    await registry.apply(Definitions(functions=FUNCTIONS))
    assert "job:1" in dispatcher.functions and "job:1" not in registry.declared
    assert registry.fault_of("job:1") == "" and registry.known("job:1") is added
    plan = Plans(registry, dispatcher).of("job:1")
    assert plan.slots == 2 * 3, "half of them is all that it has"
    await registry.add(own("job:2", memory="400MiB"))
    plan = Plans(registry, dispatcher).of("job:2")
    assert plan.slots == 2 * 2, "no more than there is memory for: the others would hold places and wait"
    registry.remove("job:1")
    registry.remove("job:1")
    assert "job:1" not in dispatcher.functions and registry.fault_of("job:1") is None


async def test_one_whose_image_is_missing_is_tried_again_unless_it_was_removed(
    runtime: Runtime, engine: MemoryEngine
) -> None:
    registry, dispatcher = runtime.scheduler_floor.registry, runtime.scheduler_floor.dispatcher
    for name in ("job:1", "job:2"):
        added = await registry.add(own(name, image="late"))
        assert added.curable and "docker pull late" in (registry.fault_of(name) or "")
    engine.add_image("late")
    find = engine.image

    async def removed_meanwhile(reference: str) -> Image:
        registry.remove("job:2")
        return await find(reference)

    engine.image = removed_meanwhile  # type: ignore[method-assign]
    registry.try_again()
    async with asyncio.timeout(10):
        while "job:1" not in dispatcher.functions:
            await asyncio.sleep(0.001)
    await registry.apply(Definitions(functions=FUNCTIONS))  # after all set-ups that are under way
    assert "job:1" in dispatcher.functions and "job:2" not in dispatcher.functions
    registry.image_gone(workload_of(runtime, "job:1").container.image)
    assert registry.private_functions["job:1"].curable


async def test_containers_that_were_kept_are_found_and_cleared(
    runtime: Runtime, engine: MemoryEngine
) -> None:
    async def leave(function: str, invocation: str) -> str:
        labels = {GATEWAY_LABEL: runtime.folder.id, KEPT_LABEL: function, INVOCATION_LABEL: invocation}
        return await engine.create(ContainerSpec(name=f"kept-{invocation}", image="busybox", labels=labels))

    folder = runtime.folder
    kept = KeptContainers(engine, folder.id, EtcFiles(folder.etc), KeptCalls(folder.run))
    first, second = await leave("job:1", "a"), await leave("job:1", "b")
    other = await leave("job:2", "c")
    running = await leave("job:1", "d")
    await engine.start(running)
    assert await kept.of("job:1") == {"a": [first], "b": [second]}, "what runs is not kept yet"
    await kept.clear("job:1")
    assert {c.id for c in await engine.containers({})} == {other, running}
    engine.always_fail("containers", EngineUnreachable("away"))
    assert await kept.of("job:2") == {}
    await kept.clear("job:2")
    await kept.clear_all_but(())
    engine.heal()
    engine.fail_next("remove", EngineError("not now"))
    await kept.clear("job:2")
    assert other in {c.id for c in await engine.containers({})}
    await kept.clear_all_but({"job:2"})
    assert other in {c.id for c in await engine.containers({})}
    await kept.clear_all_but(())
    assert {c.id for c in await engine.containers({})} == {running}
    await engine.remove(running)


def test_which_containers_stay() -> None:
    assert not any(keep.keeps(None) for keep in Keep), "what had to be ended never does"
    assert [keep.keeps(0) for keep in Keep] == [False, False, True]
    assert [keep.keeps(1) for keep in Keep] == [False, True, True]


def test_the_json_of_a_definition_brings_it_back() -> None:
    given = {
        "image": "busybox",
        "count": 3,
        "memory": "100MB",
        "timeout": "90s",
        "env": {"A": "1"},
        "user": "image",
    }
    definition = JobDefinition.model_validate(given)
    kept = json.loads(json.dumps(definition.model_dump(mode="json", exclude_unset=True)))
    assert JobDefinition.model_validate(kept) == definition
