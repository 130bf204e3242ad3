"""A container engine that is only memory: the same contract, on an injected clock, with faults on demand.

For the tests of the pool and for the simulator. On a `VirtualClock` it is deterministic."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import io
import itertools
import posixpath
import tarfile
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from pool.clock import Clock
from pool.engine.base import (
    Attachment,
    ContainerEvent,
    ContainerSpec,
    ContainerState,
    EngineError,
    EngineInfo,
    EngineUnreachable,
    Image,
    Network,
    NotFound,
)
from pool.engine.container_config import TMP
from pool.engine.measure import measured
from pool.engine.memory_process import KILLED, MemoryAttachment, MemoryContainer, Program, sleep_forever
from pool.observe.metrics import Metrics

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Latency:
    """The times of the slow verbs, in seconds. The defaults were measured on Docker."""

    create: float = 0.012
    start: float = 0.118
    remove: float = 0.071
    pause: float = 0.016
    """For pause and for unpause."""


class MemoryEngine:
    """An engine whose containers are objects.

    It behaves as Docker does where that hurts: at most `cpus` starts go on at once and the others queue, and
    a verb whose caller is cancelled is carried out all the same."""

    def __init__(
        self,
        clock: Clock,
        cpus: int = 2,
        memory: int = 8 * 2**30,
        latency: Latency | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.calls: Counter[str] = Counter()
        """Number of calls of each verb."""
        self.volumes_made = 0
        """Volumes on the host's disk that containers got because nothing was mounted at the path."""
        self._clock = clock
        self._cpus, self._memory = cpus, memory
        self._latency = latency or Latency()
        self._metrics = metrics or Metrics()
        self._reachable = True
        self._ids = itertools.count(1)
        self._cores_free_at = [0.0] * cpus
        self._containers: dict[str, MemoryContainer] = {}
        self._images: dict[str, tuple[Image, Program]] = {}
        self._archives: dict[str, dict[str, bytes]] = {}
        self._networks: dict[str, Network] = {}
        self._broken: dict[str, EngineError] = {}
        self._faults: defaultdict[str, deque[tuple[EngineError, bool]]] = defaultdict(deque)
        self._listeners: list[tuple[Mapping[str, str], asyncio.Queue[ContainerEvent | None]]] = []
        self._alive: Counter[tuple[str, str]] = Counter()
        self._peak: Counter[tuple[str, str]] = Counter()

    # What tests and the simulator arrange and look at

    def add_image(
        self,
        reference: str,
        labels: Mapping[str, str] | None = None,
        program: Program = sleep_forever,
        volumes: tuple[str, ...] = (),
        archives: Mapping[str, bytes] | None = None,
        user: str = "",
    ) -> Image:
        """Add an image whose containers run `program`; without one they do nothing until removed.

        `volumes` and `user` are what it declares, `archives` tars of what it has, by path.
        """
        digest = hashlib.sha256(f"{reference} {sorted((labels or {}).items())}".encode()).hexdigest()
        image = Image(f"sha256:{digest}", (reference,), dict(labels or {}), 1, volumes, user=user)
        self._images[reference] = self._images[image.id] = (image, program)
        self._archives[image.id] = dict(archives or {})
        return image

    def fail_next(self, verb: str, error: EngineError, carried_out: bool = False) -> None:
        """Make the next call of `verb` without a fault raise `error`: before it does anything, or, if `carried_out`,
        after it has done everything, as if the answer were lost."""
        self._faults[verb].append((error, carried_out))

    def always_fail(self, verb: str, error: EngineError) -> None:
        """Make every call of `verb` raise `error`, before it does anything, until `heal`."""
        self._broken[verb] = error

    def heal(self) -> None:
        """Forget all requested faults."""
        self._broken.clear()
        self._faults.clear()

    def kill(self, container: str, exit_code: int = KILLED, oom: bool = False) -> None:
        """Let a running container die, as a crash or (`oom`) the kernel would."""
        self.find(container).end(exit_code, oom)

    def stop(self) -> None:
        """Become unreachable; containers live on, as with live-restore."""
        self._reachable = False
        for _, queue in self._listeners:
            queue.put_nowait(None)
        for container in self._containers.values():
            container.changed.set()

    def resume(self) -> None:
        """Be reachable again."""
        self._reachable = True

    def alive(self, label: str = "", value: str = "") -> int:
        """Return the number of containers with this label (any, without one), from create until removal is done."""
        return self._alive[label, value]

    def peak(self, label: str = "", value: str = "") -> int:
        """Return the highest value that `alive` has had."""
        return self._peak[label, value]

    # The contract

    async def info(self) -> EngineInfo:
        with self._verb("info"):
            return EngineInfo("memory", "0", 2, True, (), self._cpus, self._memory, "none", "")

    async def ping(self) -> None:
        with self._verb("ping"):
            pass

    async def create(self, spec: ContainerSpec) -> str:
        container = f"{next(self._ids):064x}"

        def create() -> str:
            try:
                self._check()
                return self._create(container, spec)
            except EngineError:
                self.count(spec, -1)
                raise

        with self._verb("create"):
            self.count(spec, 1)
            return await self._spend(self._latency.create, create)

    async def start(self, container: str) -> None:
        with self._verb("start"):
            self.find(container)
            core = max(heapq.heappop(self._cores_free_at), self._clock.now()) + self._latency.start
            heapq.heappush(self._cores_free_at, core)
            await self._spend(core - self._clock.now(), lambda: self._reach(container).start(self._clock))

    async def inspect(self, container: str) -> ContainerState:
        with self._verb("inspect"):
            return self.find(container).state()

    async def remove(self, container: str) -> None:
        with self._verb("remove"), suppress(NotFound):
            self.find(container)
            await self._spend(self._latency.remove, lambda: self._remove(container))

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        with self._verb("containers"):
            return [c.state() for c in self._containers.values() if _carries(c.spec.labels, labels)]

    async def attach(self, container: str, stdin: bool = True, output: bool = True) -> Attachment:
        with self._verb("attach"):
            return MemoryAttachment(self.find(container), stdin, output)

    async def wait(self, container: str) -> int:
        with self._verb("wait"):
            found = self.find(container)
            while found.running:
                found.changed.clear()
                await found.changed.wait()
                self._check()
            return found.exit_code or 0

    async def logs(self, container: str, limit: int) -> bytes:
        with self._verb("logs"):
            kept = self.find(container).output
            return bytes(kept[-limit:]) if limit > 0 else b""

    async def archive(self, container: str, path: str, limit: int) -> bytes:
        with self._verb("archive"):
            archives = self._archives.get(self.find(container).image, {})
            if path not in archives:
                raise NotFound(f"There is no {path} in container {container[:12]}")
            return archives[path][:limit]

    async def resize(self, container: str, memory: int, cpus: float) -> None:
        with self._verb("resize"):
            self.find(container).resize(memory, cpus)

    async def pause(self, container: str) -> None:
        with self._verb("pause"):
            self.find(container)
            await self._spend(self._latency.pause, lambda: self._reach(container).pause())

    async def unpause(self, container: str) -> None:
        with self._verb("unpause"):
            self.find(container)
            await self._spend(self._latency.pause, lambda: self._reach(container).unpause())

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[ContainerEvent]:
        self.calls["events"] += 1
        listener = (dict(labels), asyncio.Queue[ContainerEvent | None]())
        if not self._reachable:
            listener[1].put_nowait(None)
        self._listeners.append(listener)
        return self._events(listener)

    async def image(self, reference: str) -> Image:
        with self._verb("image"):
            return self._image(reference)[0]

    async def images(self, labels: Mapping[str, str]) -> list[Image]:
        with self._verb("images"):
            found = {image.id: image for image, _ in self._images.values() if _carries(image.labels, labels)}
            return list(found.values())

    async def build(self, context: bytes, tag: str, labels: Mapping[str, str]) -> Image:
        with self._verb("build"):
            try:
                with tarfile.open(fileobj=io.BytesIO(context)) as tar:
                    tar.getmember("Dockerfile")
            except (tarfile.TarError, KeyError) as error:
                raise EngineError(f"Cannot build image {tag}: no Dockerfile in the context") from error
            return self.add_image(tag, labels)

    async def remove_image(self, reference: str) -> None:
        with self._verb("remove_image"), suppress(NotFound):
            image = self._image(reference)[0]
            if any(c.running and c.image == image.id for c in self._containers.values()):
                raise EngineError(f"Cannot remove image {reference}: a running container uses it")
            self._images = {name: kept for name, kept in self._images.items() if kept[0].id != image.id}

    async def networks(self, labels: Mapping[str, str]) -> list[Network]:
        with self._verb("networks"):
            return [network for network in self._networks.values() if _carries(network.labels, labels)]

    async def create_network(
        self, name: str, bridge: str, internal: bool, labels: Mapping[str, str]
    ) -> Network:
        with self._verb("create_network"):
            if name in self._networks:
                raise EngineError(f"Cannot create network {name}: there is one of that name")
            self._networks[name] = Network(f"{next(self._ids):064x}", name, bridge, dict(labels))
            return self._networks[name]

    async def remove_network(self, name: str) -> None:
        with self._verb("remove_network"):
            self._networks.pop(name, None)

    async def close(self) -> None:
        for container in list(self._containers.values()):
            container.stop_program()

    # How

    @contextmanager
    def _verb(self, verb: str) -> Iterator[None]:
        self.calls[verb] += 1
        with measured(self._metrics, verb, self._clock.now):
            self._check()
            if verb in self._broken:
                raise self._broken[verb]
            fault, carried_out = self._faults[verb].popleft() if self._faults[verb] else (None, False)
            if fault and not carried_out:
                raise fault
            yield
            if fault:
                raise fault

    def _check(self) -> None:
        if not self._reachable:
            raise EngineUnreachable("The engine in memory was stopped")

    async def _spend(self, seconds: float, deed: Callable[[], T]) -> T:
        """Do the deed after a while and return its result, even if the caller is cancelled. The deed itself checks
        that the engine is still reachable."""
        if seconds <= 0:
            return deed()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def do() -> None:
            try:
                result = deed()
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self._clock.call_later(seconds, do)
        return await done

    def _create(self, container: str, spec: ContainerSpec) -> str:
        image, program = self._image(spec.image)
        if any(other.spec.name == spec.name for other in self._containers.values()):
            raise EngineError(f"Cannot create container {spec.name}: there is one of that name")
        if spec.network is not None and spec.network not in self._networks:
            raise NotFound(f"Cannot create container {spec.name}: there is no network {spec.network}")
        self._containers[container] = MemoryContainer(
            container, 100_000 + int(container, 16), spec, image.id, program, self._publish
        )
        covered = {path for path, _ in spec.writable} | {mount.target for mount in spec.mounts}
        covered |= {volume.path for volume in spec.volumes} | {TMP}
        made = tuple(path for path in map(posixpath.normpath, image.volumes) if path not in covered)
        self._containers[container].volumes = made
        self.volumes_made += len(made)
        self._publish(self._containers[container], "create")
        return container

    def _remove(self, container: str) -> None:
        self._check()
        found = self.find(container)
        found.end(KILLED)
        del self._containers[found.id]
        self.count(found.spec, -1)
        self._publish(found, "destroy")

    def count(self, spec: ContainerSpec, change: int) -> None:
        """Count a container more, when its create call begins, or less, when it is gone or was never made."""
        for key in [("", ""), *spec.labels.items()]:
            self._alive[key] += change
            self._peak[key] = max(self._peak[key], self._alive[key])

    def find(self, container: str) -> MemoryContainer:
        """Return the container of this id or name. Raises `NotFound`."""
        found = self._containers.get(container)
        by_name = (c for c in self._containers.values() if c.spec.name == container)
        if found is None and (found := next(by_name, None)) is None:
            raise NotFound(f"There is no container {container[:12]}")
        return found

    def _reach(self, container: str) -> MemoryContainer:
        self._check()
        return self.find(container)

    def _image(self, reference: str) -> tuple[Image, Program]:
        if reference not in self._images:
            raise NotFound(f"There is no image {reference}")
        return self._images[reference]

    def _publish(self, container: MemoryContainer, action: str) -> None:
        exit_code = container.exit_code if action == "die" else None
        event = ContainerEvent(container.id, action, dict(container.spec.labels), exit_code)
        for labels, queue in self._listeners:
            if self._reachable and _carries(event.labels, labels):
                queue.put_nowait(event)

    async def _events(
        self, listener: tuple[Mapping[str, str], asyncio.Queue[ContainerEvent | None]]
    ) -> AsyncIterator[ContainerEvent]:
        try:
            with self._listening():
                while (event := await listener[1].get()) is not None:
                    yield event
                raise EngineUnreachable("The engine in memory was stopped")
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except EngineError:
            self._metrics.engine_errors.labels("events").inc()
            raise


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(key in labels and (not value or labels[key] == value) for key, value in wanted.items())
