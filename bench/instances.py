"""The references: containers like the gateway's own, started and called without a gateway.

Same image, same container config, same sockets, same protocol (docs/runtime-protocol.md); the engine is asked
directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import uuid
from dataclasses import replace
from pathlib import Path
from typing import cast

from bench.client import CallFailed, Connection, Greeting, fault_of
from pool.contracts.handler import CODE
from pool.contracts.starter import LaunchSettings
from pool.engine.base import ContainerSpec, Engine, Mount
from pool.engine.labels import SOCKETS_FOLDER
from pool.host.etc_files import EtcFiles
from pool.host.uids import Uids, with_uid
from pool.transport.socket_folder import listen
from pool.workload import Order, Workload
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.source_folder import collect
from scheduler.deploy import workloads
from scheduler.deploy.code_store import CodeStore
from scheduler.deploy.images.runtimes import RUNTIMES
from scheduler.deploy.revision_digest import version_digest

BENCH_LABEL = "org.hearth.bench"
"""Marks the benchmark's own containers; its value is the run's id."""
LOG_LIMIT = 256 * 1024
"""As the gateway's own default."""
START_TIMEOUT = 60.0
"""Seconds until a container must have dialled, and until an answer must be here."""


async def workload_of(engine: Engine, definition: FunctionDefinition, folder: Path) -> Workload:
    """A handler without requirements as the gateway would start it; its code is kept in `folder`.

    Raises `EngineError` and `SourceError`.
    """
    assert definition.source is not None
    image = await engine.image(RUNTIMES[definition.runtime or "python"])
    source = await asyncio.to_thread(collect, Path(definition.source))
    version = version_digest(definition, source, image.id)
    return Workload(
        function=definition.name,
        version=version,
        contract=definition.contract,
        container=workloads.container_of(definition, image),
        order=Order(
            workloads.order_head(definition, version, LOG_LIMIT),
            await asyncio.to_thread(CodeStore(folder).keep, source),
        ),
    )


def container_of(workload: Workload, folder: Path, run: str) -> ContainerSpec:
    """The container that the gateway would make for an instance, but for its name and labels."""
    prototype = workload.container
    code_size = LaunchSettings(gateway_id="", run_folder=folder, etc_folder=folder).code_size
    name = f"hearth-bench-{folder.name}"
    spec = replace(
        prototype,
        name=name,
        hostname=folder.name,
        labels={BENCH_LABEL: run},
        mounts=(*prototype.mounts, Mount(str(folder.resolve()), SOCKETS_FOLDER)),
        writable=(*prototype.writable, (CODE, code_size)),
    )
    spec = with_uid(spec, Uids().free())
    return replace(spec, mounts=(*spec.mounts, *EtcFiles(folder.parent / "etc").mounts(folder.name, spec)))


class Instance:
    """One container that has become a function, and the connection to it. `start`, then `remove`."""

    def __init__(self, engine: Engine, workload: Workload, folder: Path, run: str) -> None:
        self._engine = engine
        self._workload = workload
        self._folder = folder / uuid.uuid4().hex[:12]
        self._run = run
        self._sockets: list[socket.socket] = []
        self._greeting = Greeting("/", "hearth")
        self.connection = Connection()

    async def start(self) -> None:
        """Create, start, wait until it dials, specialise. Raises `EngineError`, `CallFailed` and OSError."""
        loop = asyncio.get_running_loop()
        log, calls = await self.launch()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                # Its output is let lie: the example prints nothing, and a shim never waits for a reader for long.
                self._sockets.append((await loop.sock_accept(log))[0])
                dialled, _ = await loop.sock_accept(calls)
        except TimeoutError:
            raise CallFailed("a container did not dial in time") from None
        _, self.connection = await loop.connect_accepted_socket(Connection, dialled)
        order = await asyncio.to_thread(cast(Order, self._workload.order).read)
        reply = await self.connection.call(specialise_request(order), START_TIMEOUT)
        if reply.status != 200:
            raise CallFailed(f"a container answered its specialising with status {reply.status}")

    async def launch(self) -> tuple[socket.socket, socket.socket]:
        """Create and start only; returns the sockets that it will dial. Raises `EngineError` and OSError."""
        self._folder.mkdir(parents=True, mode=0o755)
        log, calls = listen(self._folder, "log.sock"), listen(self._folder, "calls.sock")
        self._sockets += (log, calls)
        container = await self._engine.create(container_of(self._workload, self._folder, self._run))
        await self._engine.start(container)
        return log, calls

    async def call(self) -> None:
        """One call. Raises `CallFailed` if there is no answer, or not the right one."""
        request, expected = self._greeting.next()
        fault = fault_of(await self.connection.call(request, START_TIMEOUT), expected)
        if fault is not None:
            raise CallFailed(fault)

    def lend(self) -> int:
        """File descriptor of the connection, for another process; nothing is read here from now on."""
        assert self.connection.transport is not None
        self.connection.transport.pause_reading()
        return int(self.connection.transport.get_extra_info("socket").fileno())

    async def remove(self) -> None:
        """Remove the container and the folder; what was never made is fine. Raises `EngineError`."""
        self.connection.close()
        for made in self._sockets:
            made.close()
        self._sockets.clear()
        try:
            await self._engine.remove(f"hearth-bench-{self._folder.name}")
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)


def specialise_request(order: bytes) -> bytes:
    """The request that makes a generic instance a function."""
    head = (
        "POST /specialise HTTP/1.1\r\nhost: hearth\r\ncontent-type: application/json\r\n"
        f"x-hearth-control: 1\r\ncontent-length: {len(order)}\r\n\r\n"
    )
    return head.encode() + order


async def remove_all(engine: Engine, run: str) -> int:
    """Remove every container of a run, whatever became of it; how many there were. Raises `EngineError`."""
    left = await engine.containers({BENCH_LABEL: run})
    await asyncio.gather(*(engine.remove(container.id) for container in left))
    return len(left)
