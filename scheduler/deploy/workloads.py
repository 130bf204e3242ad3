"""Making a workload from a definition: the image by its digest, the code, the version, the container."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from pool.clock import Clock
from pool.engine.base import ContainerSpec, Engine, Image, VolumeMount
from pool.host.passwd import number_of
from pool.workload import Order, Workload
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.input_check import InputCheck
from scheduler.definitions.source_folder import SourceCode, collect
from scheduler.deploy.code_store import CodeStore
from scheduler.deploy.container_user import container_user, user_of
from scheduler.deploy.images.function_images import (
    REQUIREMENTS_LABEL,
    PackageRoom,
    ensure_requirements_image,
    prune_function_images,
)
from scheduler.deploy.images.image_lookup import ImageLookup
from scheduler.deploy.images.image_users import ImageUsers
from scheduler.deploy.images.image_volumes import ImageVolumes
from scheduler.deploy.images.runtimes import RUNTIMES
from scheduler.deploy.images.shared_builds import SharedBuilds
from scheduler.deploy.images.volume_images import VOLUMES_LABEL, ContentReaders, VolumeImages, check_sizes
from scheduler.deploy.revision_digest import version_digest
from scheduler.dispatch.function import Limits

GENERIC_MEMORY = 128 * 2**20
"""Memory of a prewarmed instance in bytes, until it is specialised."""
UNKNOWN_TYPE = "application/octet-stream"
"""Content type of answers that name none, unless the function declares one."""


def limits_of(definition: FunctionDefinition) -> Limits:
    """Return the limits for calls of a definition."""
    return Limits(
        timeout=definition.timeout,
        queue_timeout=definition.queue_timeout,
        queue_size=definition.queue_size,
        max_body=definition.body_limit,
        max_response=definition.max_response,
        web=definition.web,
        content_type=(definition.content_type or UNKNOWN_TYPE) if definition.contract.untyped else None,
        check=check_of(definition),
    )


def check_of(definition: FunctionDefinition) -> InputCheck | None:
    """Return the check of a function's input, or None if it is not checked."""
    schema = definition.schemas
    if schema is None or not schema.check or schema.input is None:
        return None
    return InputCheck(schema.input)


def generic_container(
    image: Image, passwd: bytes | None = None, volumes: tuple[VolumeMount, ...] = ()
) -> ContainerSpec:
    """Return the container of a prewarmed instance: every key that is fixed at creation has its default."""
    user = container_user(ContainerKeys(), image, passwd)
    return ContainerSpec(
        name="",
        image=image.id,
        user=user.user,
        usual_env=user.variables,
        passwd=user.passwd,
        memory=GENERIC_MEMORY,
        volumes=volumes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadBuilder:
    """Makes workloads from definitions, for one gateway."""

    engine: Engine
    clock: Clock
    code: CodeStore
    volumes: ImageVolumes
    volume_images: VolumeImages
    users: ImageUsers
    gateway_id: str
    packages: PackageRoom
    """Room for building images with requirements."""
    log_limit: int
    """Output of one invocation that is kept, bytes."""
    builds: SharedBuilds = field(default_factory=SharedBuilds)

    async def build(
        self, definition: FunctionDefinition, images: ImageLookup, on_build: Callable[[], None]
    ) -> Workload:
        """Everything that is needed to start instances of a function as it is declared and lies on disk now.

        `on_build` is called if an image has to be built first, which takes long. Raises `SourceError`,
        `ImageBuildError`, `VolumeRefused` and `EngineError` (`NotFound` where the image is not there).
        """
        contract, order, own_image = definition.contract, None, True
        if definition.source is not None:
            image, (source, files) = await asyncio.gather(
                images.find(RUNTIMES[definition.runtime or "python"]),
                asyncio.to_thread(self._keep, Path(definition.source)),
            )
            own_image = source.requirements is not None
            if source.requirements is not None:
                self.packages.folder.mkdir(parents=True, exist_ok=True)
                image = await ensure_requirements_image(
                    self.engine,
                    image,
                    source.requirements,
                    self.gateway_id,
                    self.packages,
                    self.clock,
                    self.builds,
                    on_build,
                )
                files = await asyncio.to_thread(self.code.keep, source)  # a long build may have seen a prune
            version = version_digest(definition, source, image.id)
            order = Order(order_head(definition, version, self.log_limit), files)
        else:
            image = await images.find(definition.image or "")
            version = version_digest(definition, None, image.id)
        passwd, (image, volumes) = await asyncio.gather(
            self.users.passwd(image),
            self.with_volumes(image, definition, contract.under_init, on_build),
        )
        return Workload(
            function=definition.name,
            version=version,
            contract=contract,
            container=container_of(definition, image, passwd, volumes),
            concurrency=definition.concurrency,
            reuse=definition.reuse,
            min_instances=definition.min_instances,
            keep_alive=definition.keep_alive,
            freeze_after=definition.freeze_after,
            max_age=definition.max_age,
            max_invocations=definition.max_invocations,
            order=order,
            generic=not own_image and definition.shape_is_default(),
            own_image=own_image and order is not None,
            port=definition.port or 0,
            health=definition.health,
            egress=definition.network == "egress",
            max_response=definition.max_response,
            stream=definition.stream,
        )

    async def with_volumes(
        self, image: Image, keys: ContainerKeys, copied: bool, on_build: Callable[[], None] = lambda: None
    ) -> tuple[Image, tuple[VolumeMount, ...]]:
        """Return the image to run, and the mounts for its volumes. `copied` says that init copies their content.

        Raises `VolumeRefused` and `EngineError`.
        """
        volumes = await self.volumes.mounts(image, keys, copied)
        if all(volume.content is None for volume in volumes):
            return image, volumes
        user = user_of(keys)
        if user is None:
            uids = await self.users.uids(image) or frozenset()
        else:
            number = number_of(user.partition(":")[0])
            uids = frozenset() if number is None else frozenset({number})
        readers = ContentReaders(uids)
        built = await self.volume_images.image_for(image, volumes, readers, on_build)
        check_sizes(built, volumes, keys)
        return replace(image, id=built.id), volumes

    def _keep(self, folder: Path) -> tuple[SourceCode, Path]:
        """Read a source folder and keep its code, in one go: a thread costs a save more than either. Blocks."""
        source = collect(folder)
        return source, self.code.keep(source)

    async def generic(self, image: Image) -> ContainerSpec:
        """Return the container of a runtime image's prewarmed instances. Raises `VolumeRefused` and `EngineError`."""
        passwd, volumes = await asyncio.gather(
            self.users.passwd(image), self.volumes.mounts(image, ContainerKeys())
        )
        return generic_container(image, passwd, volumes)

    async def prune(self, used: Collection[Workload]) -> None:
        """Remove the code and the built images of revisions that are gone. Raises `EngineError`."""
        await asyncio.to_thread(self.code.prune, {w.order.files for w in used if w.order is not None})
        images = {workload.container.image for workload in used}
        for known in (self.volumes, self.users):
            known.forget_all_but(self.volume_images.with_bases(images))
        for label in (VOLUMES_LABEL, REQUIREMENTS_LABEL):
            await prune_function_images(self.engine, self.gateway_id, images, label)


def container_of(
    definition: FunctionDefinition,
    image: Image,
    passwd: bytes | None = None,
    volumes: tuple[VolumeMount, ...] = (),
) -> ContainerSpec:
    """Return the container of a function's instances. A handler gets its environment when it is specialised."""
    user = container_user(definition, image, passwd)
    return ContainerSpec(
        name="",
        image=image.id,
        command=definition.command,
        program=(*image.entrypoint, *(definition.command or image.command)),
        env={} if definition.contract.specialises else dict(definition.env),
        user=user.user,
        usual_env=user.variables,
        passwd=user.passwd,
        memory=definition.memory,
        cpus=definition.cpus,
        cpu_shares=definition.cpu_shares,
        pids=definition.pids,
        nofile=definition.nofile,
        tmp_size=definition.tmp_size,
        shm_size=definition.shm_size,
        writable=tuple(definition.writable.items()),
        mounts=definition.volumes,
        volumes=volumes,
        capabilities=definition.capabilities,
        sandbox=definition.sandbox,
    )


def order_head(definition: FunctionDefinition, version: str, log_limit: int) -> bytes:
    """Return the message that turns a shim into the function, without the code."""
    message = {
        "function": definition.name,
        "version": version,
        "handler": definition.handler,
        "env": dict(definition.env),
        "concurrency": definition.concurrency,
        "log_limit": log_limit,
    }
    return json.dumps(message).encode()
