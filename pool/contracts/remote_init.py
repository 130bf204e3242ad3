"""init on an engine that shares no folder with the gateway: it lies in a named volume, and relays connections."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pool.clock import Clock
from pool.contracts.init_place import INIT, INIT_FOLDER, with_init
from pool.engine.base import ContainerSpec, Engine, Mount, VolumeFile
from pool.engine.labels import GATEWAY_LABEL
from pool.errors import StartFailed
from pool.host.init_program import InitMissing, installed_init
from pool.transport.remote.attach_stream import AttachStream, Relay

VOLUME_NAME = "hearth-init-{digest}"
"""Name of the volume with one build of init. All gateways with the same build share it."""


class FillsVolumes(Protocol):
    """An engine that makes named volumes."""

    async def fill_volume(self, wanted: VolumeFile, image: str) -> None:
        """Make a volume with its file through a container of this image. Raises `EngineError`."""


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """The gateway whose containers are reached, and the secret by which."""

    gateway_id: str
    secret: bytes
    """Secret of the data folder, from which the keys of instances follow: the next gateway can attach again."""


class RemoteInit:
    """The ways to all containers of one gateway on a remote engine."""

    def __init__(self, engine: Engine, volumes: FillsVolumes, clock: Clock, settings: RemoteSettings) -> None:
        self._engine = engine
        self._volumes = volumes
        self._clock = clock
        self._settings = settings
        self._filling = asyncio.Lock()
        self.place: Mount | None = None
        """Mount of the volume, or None until it is filled."""
        self._programs: dict[str, tuple[str, ...]] = {}
        """Programs of images, by the image's id."""

    def way(self, instance: str, image: str) -> AttachStream:
        """Return a way to an instance's container, which has this image."""
        key = hmac.digest(self._settings.secret, instance.encode(), hashlib.sha256)

        async def prepare() -> Relay:
            place = await self._filled(image)
            program = await self._program_of(image)
            return lambda spec: relayed(replace(spec, program=spec.program or program), place)

        return AttachStream(self._engine, self._clock, key, prepare)

    async def _filled(self, image: str) -> Mount:
        """Return the mount of the volume with init; fill it first if this gateway has not looked yet."""
        async with self._filling:
            if self.place is None:
                machine = (await self._engine.info()).architecture
                try:
                    content = await asyncio.to_thread(installed_init(machine).read_bytes)
                except (InitMissing, OSError) as error:
                    raise StartFailed(f"no container can be reached on this engine: {error}") from error
                name = VOLUME_NAME.format(digest=hashlib.sha256(content).hexdigest()[:16])
                labels = {GATEWAY_LABEL: self._settings.gateway_id}
                await self._volumes.fill_volume(VolumeFile(name, "init", content, labels), image)
                self.place = Mount(name, INIT_FOLDER)
        return self.place

    async def _program_of(self, image: str) -> tuple[str, ...]:
        program = self._programs.get(image)
        if program is None:
            found = await self._engine.image(image)
            program = self._programs[image] = (*found.entrypoint, *found.command)
        return program


def relayed(spec: ContainerSpec, place: Mount) -> ContainerSpec:
    """Return a container whose init relays connections. It is put in where the contract has not done so."""
    if spec.entrypoint is None or spec.entrypoint[0] != INIT:
        return with_init(spec, place, ("--relay", "--serve"))
    return replace(spec, entrypoint=(INIT, "--relay", *spec.entrypoint[1:]))


def secret_of(file: Path) -> bytes:
    """Return the secret in a file, which only its owner reads; make it first if it is missing. Raises OSError."""
    try:
        kept = file.read_bytes()
    except FileNotFoundError:
        kept = b""
    if len(kept) != 32:
        kept = secrets.token_bytes(32)
        fresh = file.with_suffix(".new")
        fresh.touch(0o600)
        fresh.write_bytes(kept)
        fresh.replace(file)
    return kept
