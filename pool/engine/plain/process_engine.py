"""A container engine without containers: each is a plain process of this user, without any isolation.

For developing handlers where no Docker is. A process may use as much memory and processor as it likes, sees the files
and the network of its user, and ends with the gateway, whatever becomes of that. Verbs are neither timed nor counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pool.engine.base import (
    Attachment,
    ContainerEvent,
    ContainerSpec,
    ContainerState,
    EngineError,
    EngineInfo,
    Image,
    Network,
    NotFound,
)
from pool.engine.labels import SOCKETS_FOLDER

OUTPUT_BYTES = 64 * 1024
"""Output that is kept of a process whose shim does not send it yet: the end of a traceback."""
KILLED = 128 + signal.SIGKILL
PASSED = ("PATH", "LANG", "LC_ALL", "TZ", "TERM", "TMPDIR")
"""Variables of the gateway that a process gets. Others may hold secrets, and no container has them."""
STARTER = Path(__file__).with_name("process_start.py")
PACKAGES = "packages"
"""Folder in the context of a build that has a function's requirements."""


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """Settings of a `ProcessEngine`."""

    folder: Path
    """Holds the code of processes and the packages of images, while the engine lives."""
    shim: Path
    """The program of every process."""
    image: Image
    """The only image that is there from the start."""


@dataclass(slots=True, eq=False)
class PlainProcess:
    """One container of a `ProcessEngine`."""

    id: str
    spec: ContainerSpec
    image: Image
    process: asyncio.subprocess.Process | None = None
    paused: bool = False
    output: bytearray = field(default_factory=bytearray)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Return whether its process runs."""
        return self.process is not None and self.process.returncode is None

    def state(self) -> ContainerState:
        """Return the state as `inspect` does."""
        status = self.process.returncode if self.process is not None else None
        return ContainerState(
            id=self.id,
            name=self.spec.name,
            image=self.image.id,
            labels=dict(self.spec.labels),
            running=self.running,
            pid=self.process.pid if self.process is not None and self.running else 0,
            paused=self.paused,
            exit_code=None if status is None else exit_code(status),
        )


class ProcessEngine:
    """An engine that runs the Python shim as plain processes. It has no networks, and reads no files of images."""

    def __init__(self, settings: ProcessSettings) -> None:
        self._settings = settings
        self._ids = itertools.count(1)
        self._processes: dict[str, PlainProcess] = {}
        self._images: dict[str, Image] = {}
        self._listeners: list[tuple[Mapping[str, str], asyncio.Queue[ContainerEvent]]] = []
        self._add_image(settings.image)

    # -- the engine ------------------------------------------------------------------------------------------

    async def info(self) -> EngineInfo:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return EngineInfo(
            version="plain processes",
            api_version="",
            cgroup_version=0,
            live_restore=False,
            runtimes=(),
            cpus=os.cpu_count() or 1,
            memory=memory,
            architecture=os.uname().machine,
            data_root="",
            user_namespaces=True,  # all run as this user: no file need be given to another
        )

    async def ping(self) -> None:
        return

    async def create(self, spec: ContainerSpec) -> str:
        image = self._image(spec.image)
        container = f"{next(self._ids):064x}"
        self._processes[container] = PlainProcess(container, spec, image)
        self._publish(self._processes[container], "create")
        return container

    async def start(self, container: str) -> None:
        found = self._find(container)
        sockets = next((mount.source for mount in found.spec.mounts if mount.target == SOCKETS_FOLDER), None)
        if sockets is None:
            raise EngineError("only handlers run without a container, and this function has an image")
        code = self._code_of(found)
        code.mkdir(parents=True)
        packages = self._packages_of(found.image)
        found.process = await asyncio.create_subprocess_exec(
            # Isolated and without site-packages, so that a handler finds no package of the gateway.
            *(sys.executable, "-I", "-S", STARTER, self._settings.shim, str(os.getpid())),
            *((packages,) if packages.is_dir() else ()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=code,
            env={
                **{name: os.environ[name] for name in PASSED if name in os.environ},
                **found.spec.env,
                "HEARTH_SOCKET_DIR": sockets,
                "HEARTH_CODE_DIR": str(code),
            },
        )
        found.tasks = [asyncio.ensure_future(self._read(found)), asyncio.ensure_future(self._reap(found))]
        self._publish(found, "start")

    async def inspect(self, container: str) -> ContainerState:
        return self._find(container).state()

    async def remove(self, container: str) -> None:
        with contextlib.suppress(NotFound):
            found = self._find(container)
            if found.process is not None and found.running:
                for pid in [*descendants(found.process.pid), found.process.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*found.tasks)
            await asyncio.to_thread(shutil.rmtree, self._code_of(found), ignore_errors=True)
            if self._processes.pop(found.id, None) is not None:
                self._publish(found, "destroy")

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        return [each.state() for each in self._processes.values() if carries(each.spec.labels, labels)]

    async def attach(self, container: str, stdin: bool = True, output: bool = True) -> Attachment:
        raise EngineError("a plain process has no streams to attach to")

    async def wait(self, container: str) -> int:
        found = self._find(container)
        if found.process is None:
            raise EngineError("the process was not started")
        return exit_code(await found.process.wait())

    async def logs(self, container: str, limit: int) -> bytes:
        kept = self._find(container).output
        return bytes(kept[-limit:]) if limit > 0 else b""

    async def archive(self, container: str, path: str, limit: int) -> bytes:
        raise NotFound(f"There is no {path}: a plain process has no image")

    async def resize(self, container: str, memory: int, cpus: float) -> None:
        self._find(container)  # no limit can be set

    async def pause(self, container: str) -> None:
        self._signal(container, signal.SIGSTOP)

    async def unpause(self, container: str) -> None:
        self._signal(container, signal.SIGCONT)

    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[ContainerEvent]:
        listener = (dict(labels), asyncio.Queue[ContainerEvent]())
        self._listeners.append(listener)
        try:
            while True:
                yield await listener[1].get()
        finally:
            self._listeners.remove(listener)

    async def image(self, reference: str) -> Image:
        return self._image(reference)

    async def images(self, labels: Mapping[str, str]) -> list[Image]:
        return [
            image
            for image in {i.id: i for i in self._images.values()}.values()
            if carries(image.labels, labels)
        ]

    async def build(self, context: bytes, tag: str, labels: Mapping[str, str]) -> Image:
        made = replace(
            self._settings.image, id=f"sha256:{tag.rpartition(':')[2]:0>64}", tags=(tag,), labels=labels
        )
        await asyncio.to_thread(unpack, context, self._packages_of(made))
        self._add_image(made)
        return made

    async def remove_image(self, reference: str) -> None:
        with contextlib.suppress(NotFound):
            image = self._image(reference)
            if any(each.running and each.image.id == image.id for each in self._processes.values()):
                raise EngineError(f"Cannot remove image {reference}: a running process uses it")
            self._images = {name: kept for name, kept in self._images.items() if kept.id != image.id}
            await asyncio.to_thread(shutil.rmtree, self._packages_of(image).parent, ignore_errors=True)

    async def networks(self, labels: Mapping[str, str]) -> list[Network]:
        return []

    async def create_network(
        self, name: str, bridge: str, internal: bool, labels: Mapping[str, str]
    ) -> Network:
        raise EngineError("plain processes have the host's own network")

    async def remove_network(self, name: str) -> None:
        return

    async def close(self) -> None:
        for container in list(self._processes):
            await self.remove(container)
        await asyncio.to_thread(shutil.rmtree, self._settings.folder, ignore_errors=True)

    # -- its parts ---------------------------------------------------------------------------------------------

    def _find(self, container: str) -> PlainProcess:
        found = self._processes.get(container)
        if found is None:
            found = next((each for each in self._processes.values() if each.spec.name == container), None)
        if found is None:
            raise NotFound(f"There is no process {container[:12]}")
        return found

    def _image(self, reference: str) -> Image:
        if reference not in self._images:
            raise NotFound(f"There is no image {reference}: only Python handlers run without a container")
        return self._images[reference]

    def _add_image(self, image: Image) -> None:
        for name in (image.id, *image.tags):
            self._images[name] = image

    def _code_of(self, found: PlainProcess) -> Path:
        return self._settings.folder / "code" / found.id[-12:]

    def _packages_of(self, image: Image) -> Path:
        return self._settings.folder / "images" / image.id.rpartition(":")[2][-24:] / PACKAGES

    def _signal(self, container: str, number: int) -> None:
        found = self._find(container)
        if found.process is not None and found.running:
            os.kill(found.process.pid, number)
            found.paused = number == signal.SIGSTOP

    async def _read(self, found: PlainProcess) -> None:
        """Keep the last output until the shim takes it, or until the process ends."""
        stream: Any = found.process.stdout if found.process is not None else None
        while data := await stream.read(OUTPUT_BYTES):
            found.output += data
            del found.output[:-OUTPUT_BYTES]

    async def _reap(self, found: PlainProcess) -> None:
        if found.process is not None:
            await found.process.wait()
        self._publish(found, "die")

    def _publish(self, found: PlainProcess, action: str) -> None:
        status = found.state().exit_code if action == "die" else None
        event = ContainerEvent(found.id, action, dict(found.spec.labels), status)
        for labels, queue in self._listeners:
            if carries(event.labels, labels):
                queue.put_nowait(event)


def exit_code(status: int) -> int:
    """Return the exit status of a container for one of a process, which is negative after a signal."""
    return 128 - status if status < 0 else status


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes that a process has started and that still belong to it, children before parents."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield from descendants(child)
                yield child


def unpack(context: bytes, folder: Path) -> None:
    """Write the packages in the context of a build into a folder. Blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(context)) as tar:
        for entry in tar:
            data = tar.extractfile(entry) if entry.name.startswith(f"{PACKAGES}/") else None
            if data is not None:
                file = folder.parent / entry.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data.read())


def carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether labels have all that are wanted; an empty value stands for any."""
    return all(key in labels and (not value or labels[key] == value) for key, value in wanted.items())
