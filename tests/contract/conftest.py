"""The engines that must keep the one contract."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest

from pool.clock import LoopClock
from pool.engine.base import ContainerSpec, Engine
from pool.engine.docker import DockerEngine
from pool.engine.guarded import GuardedEngine
from pool.engine.memory import Latency, MemoryEngine
from pool.engine.memory_process import Process
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor


async def little_busybox(process: Process) -> int:
    """The few commands of busybox that the contract's tests run, for the engine in memory."""
    match process.spec.command:
        case ("cat",):
            while (data := await process.read()) is not None:
                await process.write(data)
        case ("exit", status):
            return int(status)
        case ("echo", text):
            await process.write(f"{text}\n".encode())
        case ("complain", text):
            await process.write(f"{text}\n".encode(), stream=2)
            return 1
        case ("yes",):
            while True:
                await process.write(b"y\n" * 4096)
        case _:
            await process.clock.sleep(3600)
    return 0


SHELL = {
    "exit": lambda word: ("sh", "-c", f"exit {word}"),
    "complain": lambda word: ("sh", "-c", f"echo {word} >&2; exit 1"),
}
"""How the commands above that are no programs are said to the real busybox."""


@dataclass
class Bench:
    """An engine and what a test needs around it."""

    engine: Engine
    image: str
    labels: dict[str, str]
    metrics: Metrics
    real: bool
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def spec(self, *command: str, **keys: object) -> ContainerSpec:
        """A container of the test's own with this command."""
        if self.real and command and command[0] in SHELL:
            command = SHELL[command[0]](command[1])
        name = f"hearth-contract-{uuid.uuid4().hex[:8]}"
        return ContainerSpec(name=name, image=self.image, labels=self.labels, command=command or None, **keys)

    async def running(self, *command: str, **keys: object) -> str:
        """Create and start one; its id."""
        container = await self.engine.create(self.spec(*command, **keys))
        await self.engine.start(container)
        return container

    def failures(self, verb: str) -> float:
        """How many calls of this verb failed, by the metrics."""
        return self.metrics.registry.get_sample_value("hearth_engine_errors_total", {"verb": verb}) or 0.0

    def timed(self, verb: str) -> float:
        """How many calls of this verb were timed, by the metrics."""
        return self.metrics.registry.get_sample_value("hearth_engine_seconds_count", {"verb": verb}) or 0.0


@pytest.fixture
async def memory_bench(tar_of: Callable[[dict[str, bytes]], bytes]) -> AsyncIterator[Bench]:
    metrics = Metrics()
    engine = MemoryEngine(LoopClock(), latency=Latency(0.002, 0.01, 0.005), metrics=metrics)
    archives = {"/bin": tar_of({"./cat": b"1"}), "/bin/busybox": tar_of({"busybox": b"1"})}
    image = engine.add_image("busybox:test", {"kept": "yes"}, little_busybox, archives=archives)
    yield Bench(engine, image.id, {"org.hearth.test": uuid.uuid4().hex}, metrics, real=False)
    await engine.close()


@pytest.fixture
def guarded_bench(memory_bench: Bench) -> Bench:
    """The guard changes nothing as long as the engine is well."""
    clock, metrics = LoopClock(), memory_bench.metrics
    guarded = GuardedEngine(memory_bench.engine, clock, metrics, Supervisor(clock, metrics))
    return replace(memory_bench, engine=guarded)


@pytest.fixture
def docker_bench(
    docker_engine: DockerEngine, docker_metrics: Metrics, busybox_image: str, test_label: dict[str, str]
) -> Bench:
    return Bench(docker_engine, busybox_image, test_label, docker_metrics, real=True)


@pytest.fixture(params=["memory", "guarded", pytest.param("docker", marks=pytest.mark.engine)])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = request.getfixturevalue(f"{request.param}_bench")
    return made
