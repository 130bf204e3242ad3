"""Files of images: read through a container that is created and never started, and put into contexts of builds."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tarfile
from collections.abc import AsyncIterator, Iterable

from pool.engine.base import ContainerSpec, Engine, EngineError, Image, NotFound, VolumeMount
from pool.engine.creation import create_surely
from pool.engine.labels import GATEWAY_LABEL, LOOK_LABEL

LOOKED_AT_BYTES = 256 * 1024
"""Longest part of a tar that is read: it holds several hundred folders, or thousands of users."""


@contextlib.asynccontextmanager
async def look_into(
    engine: Engine, gateway_id: str, image: Image, volumes: Iterable[str], purpose: str
) -> AsyncIterator[str]:
    """Yield the id of a container made from an image, with mounts at these volumes. Raises `EngineError`.

    At most one caller may look into an image for one `purpose` at a time: both are in the container's name.
    """
    spec = ContainerSpec(
        name=f"hearth-{purpose}-{gateway_id[:8]}-{image.id.removeprefix('sha256:')[:12]}",
        image=image.id,
        labels={GATEWAY_LABEL: gateway_id, LOOK_LABEL: ""},
        command=("look",),  # never run, but the engine refuses a container without any command
        volumes=tuple(VolumeMount(path, 2**20) for path in volumes),
        keep_output=False,
    )
    await engine.remove(spec.name)  # left by a gateway that was killed during its look
    try:
        yield await create_surely(engine, spec, lambda container: None)
    finally:
        with contextlib.suppress(EngineError):  # the next look or the next start removes it
            await asyncio.shield(engine.remove(spec.name))


async def tar_of(engine: Engine, container: str, path: str) -> bytes | None:
    """Return the beginning of a tar of the content at a path, or None if there is none. Raises `EngineError`."""
    try:
        return await engine.archive(container, path, LOOKED_AT_BYTES)
    except NotFound:
        try:
            await engine.inspect(container)
        except NotFound as error:
            raise EngineError(
                f"container {container[:12]} was removed while its image was read; it is tried again"
            ) from error
        return None


def add_file(tar: tarfile.TarFile, name: str, content: bytes | memoryview) -> None:
    """Add a file of root's to a tar that is being written, such as the context of a build."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
