"""A container like those of a function's instances, in which somebody can look around.

It has the function's image, limits, user, network and mounts, and its code in /function. It belongs to no gateway, so
that none that runs takes it for a leftover. After a kill, `hearth prune --all` finds it.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gateway.assembly.settings import Settings
from pool.clock import LoopClock
from pool.contracts.handler import CODE
from pool.engine.base import ContainerSpec, EngineError, Mount
from pool.engine.docker import DockerEngine
from pool.engine.labels import GATEWAY_LABEL, INSTANCE_LABEL, container_name
from pool.host.egress import Egress
from pool.host.etc_files import EtcFiles
from pool.host.uids import Uids, usable_range, with_uid
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.definitions.file import FunctionDefinition, Kind
from scheduler.definitions.source_folder import collect
from scheduler.deploy.code_store import CodeStore
from scheduler.deploy.images.function_images import PackageRoom
from scheduler.deploy.images.image_lookup import ImageLookup
from scheduler.deploy.images.image_users import ImageUsers
from scheduler.deploy.images.image_volumes import ImageVolumes
from scheduler.deploy.images.shared_builds import SharedBuilds
from scheduler.deploy.images.volume_images import VolumeImages
from scheduler.deploy.workloads import WorkloadBuilder

SHELL = ("/bin/sh", "-c", "if command -v bash >/dev/null; then exec bash; else exec sh; fi")
PYTHON = ("python3", "-i")
PACKAGES = "/opt/deps"
MINE = {"PYTHONPATH": f"{CODE}:{PACKAGES}", "TERM": "xterm", "PS1": "$ "}
"""Variables that make the function's code importable, and programs usable on a terminal."""


class NoProgram(Exception):
    """The image has none of the programs. The message says what to do."""


class ShellRoom:
    """A container for one function. Make it in a running loop, `open` it, and `close` it in any case."""

    def __init__(self, settings: Settings) -> None:
        self.engine = DockerEngine(None, Metrics())
        self.container = ""
        self._settings = settings
        self._clock = LoopClock()
        self._id = str(uuid.uuid4())
        self._name = uuid.uuid4().hex[:12]
        self._folder = Path(tempfile.mkdtemp(prefix="hearth-shell-"))
        self._folder.chmod(0o711)
        self._egress = Egress(self.engine, self._id, self._clock, Supervisor(self._clock, Metrics()))

    async def open(self, definition: FunctionDefinition, python: bool) -> None:
        """Create the container with the first program that its image has; `start` starts it.

        Raises `NoProgram`, `EngineError`, and what making a workload raises.
        """
        prototype = await self._prototype(definition)
        programs = (PYTHON,) if python else (SHELL, PYTHON)
        for program in programs:
            spec = replace(prototype, entrypoint=program[:1], command=program[1:])
            self.container = await self.engine.create(spec)
            if await self._has(program[0]):
                return
            await self.engine.remove(self.container)
        wanted = "Python" if python else "neither a shell nor Python"
        raise NoProgram(
            f"the image of {definition.name} has {'no ' if python else ''}{wanted}; "
            f"look at it from outside with `hearth invoke {definition.name}` and `hearth logs`"
        )

    async def _has(self, program: str) -> bool:
        """Return whether the container's image has a program."""
        paths = (
            [program]
            if "/" in program
            else [f"{folder}/{program}" for folder in ("/usr/bin", "/usr/local/bin")]
        )
        for path in paths:
            try:
                await self.engine.archive(self.container, path, 512)
            except EngineError:
                continue
            return True
        return False

    async def _prototype(self, definition: FunctionDefinition) -> ContainerSpec:
        identity = self._settings.data_dir / "identity"
        builder = WorkloadBuilder(
            engine=self.engine,
            clock=self._clock,
            code=CodeStore(self._folder / "kept"),
            volumes=ImageVolumes(self.engine, self._id),
            volume_images=VolumeImages(self.engine, self._id, SharedBuilds()),
            users=ImageUsers(self.engine, self._id),
            # An image with the function's packages that the gateway has built is used, and one that is built stays.
            gateway_id=identity.read_text().strip() if identity.exists() else self._id,
            packages=PackageRoom(self._folder / "work", self._settings.package_size),
            log_limit=0,
        )
        workload = await builder.build(definition, ImageLookup(self.engine), lambda: None)
        uids = usable_range(self._settings.uids, (await self.engine.info()).user_namespaces)
        spec = with_uid(workload.container, Uids(uids).free())
        environment: Mapping[str, str] = {**MINE, **spec.env, **dict(definition.env)}
        spec = replace(
            spec,
            name=container_name(self._name),
            hostname=self._name,
            labels={**spec.labels, GATEWAY_LABEL: self._id, INSTANCE_LABEL: self._name},
            env=environment,
            stdin=True,
            tty=True,
            network=await self._egress.ensure() if workload.egress else None,
        )
        if definition.kind is Kind.HANDLER and definition.source is not None:
            spec = replace(spec, mounts=(*spec.mounts, self._code_of(Path(definition.source))))
        etc = EtcFiles(self._folder / "etc")
        return replace(spec, mounts=(*spec.mounts, *etc.mounts(self._name, spec)))

    def _code_of(self, source: Path) -> Mount:
        """Return the mount of a copy of a function's code that the container's user may read."""
        folder = self._folder / "code"
        folder.mkdir()
        for name, data in collect(source).files:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return Mount(str(folder), CODE)

    async def close(self) -> None:
        """Remove the container, its network and its files."""
        try:
            if self.container:
                await self.engine.remove(self.container)
            await self._egress.close()
            await self._egress.remove()
        finally:
            await self.engine.close()
            shutil.rmtree(self._folder, ignore_errors=True)
