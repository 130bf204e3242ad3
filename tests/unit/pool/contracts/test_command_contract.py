"""Containers of commands: what init is told, and what becomes of one that is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.clock import LoopClock
from pool.contracts.command import COMMAND
from pool.contracts.init_place import INIT, INIT_FOLDER
from pool.contracts.starter import InstanceReports, LaunchSettings
from pool.engine.base import ContainerSpec, Mount
from pool.engine.labels import KEPT_LABEL
from pool.engine.memory import Latency, MemoryEngine
from pool.engine.memory_process import Process
from pool.errors import CommandFailed, FunctionBroken, StartFailed
from pool.host.egress import Egress
from pool.instance import Instance
from pool.launcher import Launcher
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from pool.transport.message import Call
from pool.workload import Keep, Workload
from tests.support.memory_init import under_init

CALL = Call(b"POST", b"/", [], b"3", meta={"HEARTH_INVOCATION_ID": "call-1"})


async def exits(process: Process) -> int:
    """Ends with the status that its input says."""
    return int(await process.read() or b"0")


class Bench:
    """A launcher over an engine in memory."""

    def __init__(self, folder: Path) -> None:
        self.clock = LoopClock()
        self.engine = MemoryEngine(self.clock, latency=Latency(0, 0, 0, 0))
        self.engine.add_image("image", program=under_init(exits))
        self.launcher = Launcher(
            self.engine,
            self.clock,
            LaunchSettings("g", folder / "run", folder / "hosts", 5.0),
            Egress(self.engine, "g", self.clock, Supervisor(self.clock, Metrics())),
            InstanceReports(on_slots=lambda _: None, on_output=lambda _, __: None),
        )
        self.launcher.starter.init = Mount(str(folder), INIT_FOLDER)
        self.instances: list[Instance] = []

    async def launched(self, program: tuple[str, ...] = ("exit", "-n"), **keys: object) -> Instance:
        container = ContainerSpec(name="", image="image", program=program)
        workload = Workload(function="f", version="1", contract=COMMAND, container=container, **keys)  # type: ignore[arg-type]
        instance = Instance(f"i{len(self.instances)}", "image", 2**27, workload, 0.0)
        self.instances.append(instance)
        await self.launcher.launch(instance, container)
        return instance

    def spec(self, instance: Instance) -> ContainerSpec:
        assert instance.container is not None
        return self.engine.find(instance.container).spec


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for instance in made.instances:
        await made.launcher.destroy(instance)
    for container in await made.engine.containers({}):
        await made.engine.remove(container.id)
    for _ in range(5):
        await asyncio.sleep(0)
    await made.engine.close()


async def test_init_is_told_how_many_runs_go_on_at_once(bench: Bench) -> None:
    instance = await bench.launched(concurrency=3)
    spec = bench.spec(instance)
    assert spec.entrypoint == (INIT, "--wait", "--calls", "3", "--", "exit", "-n")
    assert spec.command is None
    assert not spec.keep_output
    assert KEPT_LABEL not in spec.labels
    assert instance.link is not None
    assert instance.link.free_slots(0) == 3


async def run(instance: Instance) -> None:
    """Make a call, and end it as a lease does."""
    link = instance.link
    assert link is not None
    connection = link.take()
    try:
        await connection.exchange(CALL)
    finally:
        link.give(connection)


@pytest.mark.parametrize("keep", [Keep.FAILED, Keep.ALL])
async def test_a_container_that_may_be_kept_ends_with_the_status_of_its_run(bench: Bench, keep: Keep) -> None:
    instance = await bench.launched(keep=keep, reuse=False)
    spec = bench.spec(instance)
    assert spec.entrypoint is not None and "--once" in spec.entrypoint
    assert spec.labels[KEPT_LABEL] == "f"
    with pytest.raises(CommandFailed, match="exit status 3"):
        await run(instance)
    await bench.launcher.destroy(instance)
    assert instance.container is not None
    state = await bench.engine.inspect(instance.container)
    assert (state.running, state.exit_code) == (False, 3)
    assert bench.launcher.starter.kept_calls.of(instance.id) == "call-1"


async def test_a_container_that_never_got_a_call_is_not_kept(bench: Bench) -> None:
    instance = await bench.launched(keep=Keep.ALL, reuse=False)
    await bench.launcher.destroy(instance)
    assert await bench.engine.containers({}) == []
    assert bench.launcher.starter.kept_calls.of(instance.id) == ""


async def test_what_cannot_start(bench: Bench) -> None:
    with pytest.raises(FunctionBroken, match="neither ENTRYPOINT nor CMD"):
        await bench.launched(program=())
    bench.launcher.starter.init = None
    with pytest.raises(StartFailed, match="run `hearth setup`"):
        await bench.launched()


@pytest.mark.parametrize("status", [b'{"init": 1, "running": true}', b'{"specialised": false}'])
async def test_what_is_no_idle_init_is_not_adopted(
    bench: Bench, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await bench.launched()
    await bench.launcher.leave(instance)
    monkeypatch.setattr("tests.support.fake_init.STATUS", status)
    with pytest.raises(StartFailed, match="it says that it is"):
        await bench.launcher.adopt(instance)
