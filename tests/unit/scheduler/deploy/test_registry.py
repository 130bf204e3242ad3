"""How the registry sets many functions up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import os
import tarfile
import tracemalloc
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.base import ContainerSpec, Engine, EngineError, EngineUnreachable, Image, NotFound
from pool.engine.labels import LOOK_LABEL
from pool.engine.memory import MemoryEngine
from pool.host.uids import UidRange
from pool.ledger import Ledger
from pool.transport.message import Call, read_said
from pool.workload import Workload
from scheduler.definitions.file import Definitions, FunctionDefinition, load
from scheduler.deploy import registry, workloads
from scheduler.deploy.images.image_lookup import ImageLookup
from scheduler.deploy.images.runtimes import RUNTIMES
from scheduler.deploy.workloads import WorkloadBuilder
from scheduler.dispatch import evictor, upkeep
from scheduler.dispatch.eviction import KeepAlivePolicy
from scheduler.dispatch.function import Revision
from scheduler.dispatch.queued import Queued
from scheduler.dispatch.upkeep import provisioned
from tests.support.memory_shim import run_shim

MANY = 40
COST = 6_000
"""Bytes of a function that is registered and not called."""


@pytest.fixture
def engine() -> MemoryEngine:
    made = MemoryEngine(LoopClock())
    made.add_image(RUNTIMES["python"], program=run_shim)
    return made


@contextlib.asynccontextmanager
async def running(engine: Engine, folder: Path) -> AsyncIterator[Runtime]:
    """A gateway without its edge, in which nothing is deployed yet."""
    runtime = Runtime(Settings(), DataFolder(folder / "data"), engine)
    try:
        yield runtime
    finally:
        await runtime.close()


def functions(folder: Path, *names: str, requirements: str | None = None) -> dict[str, FunctionDefinition]:
    """Functions that share one source folder."""
    source = folder / (requirements or "plain")
    source.mkdir(exist_ok=True)
    (source / "handler.py").write_text("def handle(event, context): return event")
    if requirements is not None:
        (source / "requirements.txt").write_text(requirements)
    return {
        name: FunctionDefinition(name=name, runtime="python", source=source, handler="handler:handle")
        for name in names
    }


async def test_the_engine_is_asked_once_for_an_image_that_all_share(engine: MemoryEngine, tmp_path: Path):
    declared = functions(tmp_path, *(f"f{number}" for number in range(MANY)))
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=declared, prewarm={"python": 1}))
        assert {d.state for d in runtime.scheduler_floor.registry.declared.values()} == {"ready"}
        assert engine.calls["image"] == 1


async def answer_of(runtime: Runtime, name: str) -> object:
    """Call a function, and return its answer."""
    dispatcher = runtime.scheduler_floor.dispatcher
    revision = dispatcher.revision_for(name)
    assert revision is not None
    lease = await Queued(dispatcher, revision, "", 0.0).collect()
    try:
        call = Call(b"POST", b"/", [(b"host", b"hearth")], b"0")
        return await read_said(await (await lease.connect(call)).exchange(call))
    finally:
        dispatcher.release(lease)


async def test_new_code_answers_without_a_question_to_the_engine(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(registry, "RETRY_SECONDS", 3600.0)
    monkeypatch.setattr(upkeep, "UPKEEP_DELAY_SECONDS", 0.0)
    definitions = Definitions(functions=functions(tmp_path, "one"), prewarm={"python": 3})
    async with running(engine, tmp_path) as runtime:
        await runtime.start(definitions)
        async with asyncio.timeout(10):
            while runtime.pool_floor.pool.ledger.states(None) != {"prewarmed": 3}:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)  # the last look at the pool has passed
        monkeypatch.setattr(upkeep, "UPKEEP_DELAY_SECONDS", 3600.0)
        for number in range(3):
            before = engine.calls.copy()
            (tmp_path / "plain/handler.py").write_text(f"def handle(event, context): return {number}")
            await runtime.scheduler_floor.registry.apply(definitions)
            await runtime.scheduler_floor.registry.tried_out()
            assert await answer_of(runtime, "one") == number
            asked = engine.calls - before
            del asked["remove"]  # of instances of the code before, after a pause: test_trials.py
            assert asked == {"resize": 1}, "done without the engine where the instance has a cgroup"


async def test_another_image_of_a_runtime_is_in_service_soon_after_a_load(
    engine: MemoryEngine, tmp_path: Path
):
    definitions = Definitions(functions=functions(tmp_path, "one", "two"), prewarm={"python": 1})
    async with running(engine, tmp_path) as runtime:
        declaring, dispatcher = runtime.scheduler_floor.registry, runtime.scheduler_floor.dispatcher
        await runtime.start(definitions)
        new = engine.add_image(RUNTIMES["python"], {"org": "new"}, program=run_shim).id
        await declaring.apply(definitions)
        declaring.try_again()  # sooner than after `RETRY_SECONDS`
        async with asyncio.timeout(10):
            while {workload.container.image for workload in dispatcher.workloads()} != {new}:
                await asyncio.sleep(0.001)
            while set(dispatcher.prewarm) != {new} or runtime.pool_floor.pool.tasks():
                await asyncio.sleep(0.001)
        await declaring.apply(definitions)
        assert {workload.container.image for workload in dispatcher.workloads()} == {new}
        assert set(dispatcher.prewarm) == {new}


async def test_an_image_that_is_missing_is_told_to_every_function(engine: MemoryEngine, tmp_path: Path):
    declared = {name: FunctionDefinition(name=name, image="absent:1") for name in ("a", "b", "c")}
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=declared))
        faults = {d.fault for d in runtime.scheduler_floor.registry.declared.values()}
        assert faults == {"the engine has no image absent:1; pull or build it: docker pull absent:1"}
        assert engine.calls["image"] == 1


def tar_of_file(data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar of one file, as the engine makes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("passwd")
        entry.type, entry.size = kind, len(data)
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


async def test_no_function_runs_as_a_uid_that_anothers_container_may_have(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEARTH_UIDS", "70000-80000")
    users = {"inside:1": "70001", "odd:1": "+0070001", "outside:1": "69999:69999", "nobody:1": "who"}
    for name, user in users.items():
        engine.add_image(name, user=user)
    for name, uid in {"named-inside:1": 70_001, "named-outside:1": 69_999}.items():
        passwd = tar_of_file(b"root:x:0:0::/:/bin/sh\napp:x:%d:5::/:/bin/sh\n" % uid)
        engine.add_image(name, user="app:5", archives={"/etc/passwd": passwd})
    link = tar_of_file(b"", tarfile.SYMTYPE)
    engine.add_image("linked:1", user="app", archives={"/etc/passwd": link})
    declared = {
        image.removesuffix(":1"): FunctionDefinition(name=image.removesuffix(":1"), image=image, user="image")
        for image in (*users, "named-inside:1", "named-outside:1", "linked:1")
    } | {
        "aims": FunctionDefinition(name="aims", image="outside:1", user="70001"),
        "own": FunctionDefinition(name="own", image="inside:1"),
        "fixed": FunctionDefinition(name="fixed", image="inside:1", user="69999"),
    }
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=declared))
        faults = {
            name: shown.fault
            for name, shown in runtime.scheduler_floor.registry.declared.items()
            if shown.fault
        }
        assert set(faults) == {"aims", "inside", "odd", "named-inside", "linked"}
        assert "it would run as user 70001" in (faults["inside"] or "")
        assert "HEARTH_UIDS" in (faults["named-inside"] or "")
        assert "its /etc/passwd cannot be read" in (faults["linked"] or "")
        assert await engine.containers({LOOK_LABEL: ""}) == []
        assert runtime.pool_floor.pool.ledger.uids.ids == UidRange(70_000, 80_000)


async def test_a_lookup_remembers_faults_without_the_frames_of_all_who_asked(engine: MemoryEngine):
    images = ImageLookup(engine)
    engine.fail_next("image", EngineUnreachable("it is away"))
    depths = []
    for _ in range(3):
        with pytest.raises(EngineUnreachable) as caught:
            await images.find("python")
        depths.append(len(caught.traceback))
    assert engine.calls["image"] == 1
    assert len(set(depths)) == 1
    with pytest.raises(NotFound):
        await images.find("another")


async def test_functions_are_set_up_a_few_at_a_time(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at_once: list[int] = []
    inside = 0
    build = WorkloadBuilder.build

    async def counted(builder: WorkloadBuilder, *arguments: Any) -> Workload:
        nonlocal inside
        inside += 1
        at_once.append(inside)
        try:
            return await build(builder, *arguments)
        finally:
            inside -= 1

    monkeypatch.setattr(WorkloadBuilder, "build", counted)
    declared = functions(tmp_path, *(f"f{number}" for number in range(MANY)))
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=declared))
    assert len(at_once) == MANY
    assert 1 < max(at_once) <= registry.SET_UP_AT_ONCE


async def test_images_that_are_built_hold_back_no_other_function(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go_on = asyncio.Event()

    async def slow_build(engine: Engine, image: Image, *given: Any) -> Image:
        given[-1]()  # says that it builds
        await go_on.wait()
        return image

    monkeypatch.setattr(workloads, "ensure_requirements_image", slow_build)
    building = [f"built{number}" for number in range(registry.SET_UP_AT_ONCE + 1)]
    declared = functions(tmp_path, *building, requirements="Pillow") | functions(tmp_path, "plain")
    async with running(engine, tmp_path) as runtime:
        expected = ["building"] * len(building) + ["ready"]
        applied = asyncio.ensure_future(runtime.start(Definitions(functions=declared)))
        async with asyncio.timeout(10):
            while [d.state for d in runtime.scheduler_floor.registry.declared.values()] != expected:
                await asyncio.sleep(0)
        go_on.set()
        await applied
        assert {d.state for d in runtime.scheduler_floor.registry.declared.values()} == {"ready"}


async def test_a_deleted_image_is_built_or_explained_and_service_goes_on(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = iter(("built-1", "built-2"))

    async def build(runtime_image: Image, *_: object) -> Image:
        return engine.add_image(next(images), program=run_shim)

    monkeypatch.setattr(workloads, "ensure_requirements_image", lambda _engine, *rest: build(*rest))
    declared = functions(tmp_path, "built", requirements="some") | functions(tmp_path, "plain")
    spec = ContainerSpec(name="c", image="")
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=declared))
        before = {workload.function: workload for workload in runtime.scheduler_floor.dispatcher.workloads()}
        for name in declared:
            image = before[name].container.image
            await engine.remove_image(image)
            with pytest.raises(NotFound):
                await runtime.pool_floor.engine.create(replace(spec, image=image))
        shown = runtime.scheduler_floor.registry.declared
        async with asyncio.timeout(10):
            while shown["plain"].fault is None:
                await asyncio.sleep(0.01)
        assert "run `hearth setup`" in (shown["plain"].fault or "")
        assert shown["plain"].state == "ready", "its instances go on"
        engine.add_image(RUNTIMES["python"], {"org": "new"}, program=run_shim)
        runtime.scheduler_floor.registry.try_again()
        async with asyncio.timeout(10):
            while any(shown[name].fault for name in declared):
                await asyncio.sleep(0.01)
        await runtime.scheduler_floor.registry.tried_out()
        for workload in runtime.scheduler_floor.dispatcher.workloads():
            assert workload.container.image != before[workload.function].container.image


async def test_functions_whose_image_was_replaced_need_not_wait_for_each_others_trials(
    engine: MemoryEngine, tmp_path: Path
) -> None:
    declared = functions(tmp_path, "one", "two", "three")
    async with running(engine, tmp_path) as runtime:
        dispatcher = runtime.scheduler_floor.dispatcher
        await runtime.start(Definitions(functions=declared))
        [old] = {workload.container.image for workload in dispatcher.workloads()}
        await engine.remove_image(old)
        new = engine.add_image(RUNTIMES["python"], {"org": "new"}, program=run_shim).id
        with pytest.raises(NotFound):
            await runtime.pool_floor.engine.create(ContainerSpec(name="c", image=old))
        engine.always_fail("start", EngineError("no trial can begin"))
        async with asyncio.timeout(10):
            while {workload.container.image for workload in dispatcher.workloads()} != {new}:
                await asyncio.sleep(0.001)


async def test_the_code_is_that_of_the_registered_version_until_the_next(
    engine: MemoryEngine, tmp_path: Path
):
    declared = functions(tmp_path, "one", "two")
    handler = tmp_path / "plain/handler.py"
    async with running(engine, tmp_path) as runtime:

        def codes() -> set[bytes]:
            orders = [workload.order for workload in runtime.scheduler_floor.dispatcher.workloads()]
            return {b64decode(json.loads(order.read())["files"][0][1]) for order in orders if order}

        await runtime.start(Definitions(functions=declared))
        registered = handler.read_bytes()
        handler.write_text("def handle(event, context): return 2")
        assert codes() == {registered}
        registry = runtime.scheduler_floor.registry
        await registry.apply(Definitions(functions=declared))
        await registry.tried_out()
        assert codes() == {handler.read_bytes()} != {registered}
        registry.try_again()
        async with asyncio.timeout(10):
            while len(list(runtime.folder.code.iterdir())) > 1:
                await asyncio.sleep(0.01)
        assert len(list(runtime.folder.code.iterdir())) == 1, "the older version's code is of no use any more"
    assert not runtime.folder.code.exists()


BROKEN = "def handle(event, context) return 1"
"""A syntax error."""


async def test_a_save_that_breaks_the_code_changes_nothing_and_is_told_once(
    engine: MemoryEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declared = functions(tmp_path, "one")
    handler = tmp_path / "plain/handler.py"
    async with running(engine, tmp_path) as runtime:
        registry, dispatcher = runtime.scheduler_floor.registry, runtime.scheduler_floor.dispatcher
        await runtime.start(Definitions(functions=declared))
        working = dispatcher.revision_for("one")
        code = len(list(runtime.folder.code.iterdir()))
        handler.write_text(BROKEN)
        for _ in range(2):
            await registry.apply(Definitions(functions=declared))
            await registry.tried_out()
            shown = registry.declared["one"]
            assert dispatcher.revision_for("one") is working
            assert (shown.state, shown.version) == ("ready", working and working.version)
            assert shown.fault == (
                "SyntaxError: expected ':' (handler.py, line 1); the version before it stays in service"
            )
            assert await runtime.why_not_ready() is None
        [told] = [record for record in caplog.records if "SyntaxError" in record.getMessage()]
        assert told.getMessage().startswith("function one: SyntaxError")
        assert f"    {BROKEN}" in told.__dict__["printed"].splitlines(), "without its traceback"
        handler.write_text("def handle(event, context): return 3")
        await registry.apply(Definitions(functions=declared))
        await registry.tried_out()
        assert registry.declared["one"].fault is None
        assert dispatcher.revision_for("one") is not working
        registry.try_again()
        async with asyncio.timeout(10):
            while len(list(runtime.folder.code.iterdir())) > code:
                await asyncio.sleep(0.01)


async def test_a_trial_for_which_the_engine_is_away_is_made_again(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = functions(tmp_path, "one")
    async with running(engine, tmp_path) as runtime:
        registry, dispatcher = runtime.scheduler_floor.registry, runtime.scheduler_floor.dispatcher
        await runtime.start(Definitions(functions=declared))
        working = dispatcher.revision_for("one")
        (tmp_path / "plain/handler.py").write_text("def handle(event, context): return 2")
        engine.fail_next("create", EngineError("no space left on device"))
        await registry.apply(Definitions(functions=declared))
        await registry.tried_out()
        shown = registry.declared["one"]
        assert "no space left" in (shown.fault or "") and dispatcher.revision_for("one") is working
        registry.try_again()
        async with asyncio.timeout(10):
            while shown.fault is not None:
                await asyncio.sleep(0.01)
        assert dispatcher.revision_for("one") is not working


@pytest.mark.parametrize(
    ("fault", "tries"),
    [(EngineError("no space left on device"), 1), (NotFound("there is no network hearth-egress"), 2)],
)
async def test_a_trial_that_the_engine_refuses_is_made_again_after_a_pause_only(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: EngineError, tries: int
) -> None:
    monkeypatch.setattr(registry, "RETRY_SECONDS", 3600.0)
    declared = functions(tmp_path, "one")
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=declared))
        (tmp_path / "plain/handler.py").write_text("def handle(event, context): return 2")
        engine.always_fail("create", fault)
        before = engine.calls["create"]
        await runtime.scheduler_floor.registry.apply(Definitions(functions=declared))
        await runtime.scheduler_floor.registry.tried_out()
        for _ in range(200):
            await asyncio.sleep(0.001)
        assert engine.calls["create"] - before == tries, (
            "an image that seems to be gone is looked for at once"
        )
        runtime.scheduler_floor.registry.try_again()
        async with asyncio.timeout(10):
            while engine.calls["create"] - before == tries:
                await asyncio.sleep(0.001)


async def test_a_gateway_that_shuts_down_does_not_wait_for_a_trial(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = functions(tmp_path, "one")
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=declared))
        (tmp_path / "plain/handler.py").write_text("def handle(event, context): return 2")
        create, asked, go_on = engine.create, asyncio.Event(), asyncio.Event()

        async def slow(spec: ContainerSpec) -> str:
            asked.set()
            await go_on.wait()
            return await create(spec)

        monkeypatch.setattr(engine, "create", slow)
        await runtime.scheduler_floor.registry.apply(Definitions(functions=declared))
        async with asyncio.timeout(10):
            await asked.wait()
            await runtime.drain(asyncio.Event())
        go_on.set()


async def test_a_prewarm_pool_that_was_taken_away_is_not_set_again_by_a_cure_under_way(
    engine: MemoryEngine, tmp_path: Path
) -> None:
    async with running(engine, tmp_path) as runtime:
        registry, dispatcher = runtime.scheduler_floor.registry, runtime.scheduler_floor.dispatcher
        await runtime.start(Definitions(prewarm={"python": 1}))
        image = next(iter(dispatcher.prewarm))
        asked, go_on = asyncio.Event(), asyncio.Event()
        find = engine.image

        async def slow(reference: str) -> Image:
            if not asked.is_set():
                asked.set()
                await go_on.wait()
            return await find(reference)

        engine.image = slow  # type: ignore[method-assign]
        registry.image_gone(image)  # the cure finds out what has become of it
        async with asyncio.timeout(10):
            await asked.wait()
            applied = asyncio.ensure_future(registry.apply(Definitions()))
            for _ in range(100):
                await asyncio.sleep(0)
            go_on.set()
            await applied
            for _ in range(100):
                await asyncio.sleep(0.001)
        assert dispatcher.prewarm == {}


async def test_what_a_function_costs_that_nobody_calls(engine: MemoryEngine, tmp_path: Path):
    """In traced bytes, from the file to the service; 1.3 times what was measured is allowed."""
    count = 200
    lines = ["version: 1", "functions:"]
    for number in range(count):
        source = tmp_path / f"f{number}"
        source.mkdir()
        (source / "handler.py").write_text(f"def handle(event, context): return {number}")
        (source / "data.bin").write_bytes(os.urandom(32 * 1024))
        lines.append(f"  f{number}: {{runtime: python, source: f{number}, handler: 'handler:handle'}}")
    (tmp_path / "functions.yaml").write_text("\n".join(lines))
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=functions(tmp_path, "one")))
        gc.collect()
        tracemalloc.start()
        try:
            await runtime.scheduler_floor.registry.apply(load(tmp_path / "functions.yaml"))
            gc.collect()
            traces = tracemalloc.take_snapshot().traces
        finally:
            tracemalloc.stop()
        assert len(runtime.scheduler_floor.dispatcher.functions) == count
        # One large block is a table of the whole process that had to grow just then, such as that of interned names.
        held = sum(trace.size for trace in traces if trace.size < 2**20)
        assert held / count < COST, f"{held / count:.0f} bytes"


async def test_functions_that_nobody_calls_take_no_part_in_decisions(
    engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looked_at: list[str] = []

    def counted(function: Revision, ledger: Ledger) -> int:
        looked_at.append(function.name)
        return provisioned(function, ledger)

    monkeypatch.setattr(upkeep, "provisioned", counted)
    monkeypatch.setattr(evictor, "provisioned", counted)
    declared = functions(tmp_path, *(f"f{number}" for number in range(MANY)))
    async with running(engine, tmp_path) as runtime:
        await runtime.start(Definitions(functions=declared))
        dispatcher = runtime.scheduler_floor.dispatcher
        assert looked_at == []
        [kept] = functions(tmp_path, "kept").values()
        declared["kept"] = kept.model_copy(update={"min_instances": 1})
        await runtime.scheduler_floor.registry.apply(Definitions(functions=declared))
        async with asyncio.timeout(10):
            while not runtime.pool_floor.pool.ledger.count("kept"):
                await asyncio.sleep(0.001)
        pool = runtime.pool_floor.pool
        room = evictor.Evictor(pool, dispatcher.functions, {}, KeepAlivePolicy.GDSF, dispatcher.spares)
        assert not room.make_room(runtime.settings.memory_budget + 1)
    assert set(looked_at) == {"kept"}, "it alone has an instance to keep"
