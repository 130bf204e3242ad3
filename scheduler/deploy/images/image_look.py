"""A look into an image, by a container that is created from it and never started."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from pool.engine.base import ContainerSpec, Engine, EngineError, Image, NotFound, VolumeMount
from pool.engine.labels import GATEWAY_LABEL, LOOK_LABEL
from pool.transport.command import create_surely

LOOKED_AT_BYTES = 256 * 1024
"""Bytes of a tar that are looked at: several hundred folders, or thousands of users."""


@contextlib.asynccontextmanager
async def look_into(
    engine: Engine, gateway_id: str, image: Image, volumes: Iterable[str], purpose: str
) -> AsyncIterator[str]:
    """Yield the id of a container of an image that declares volumes at these paths. Raises `EngineError`.

    One look for each `purpose` at once: the container goes by it.
    """
    spec = ContainerSpec(
        name=f"hearth-{purpose}-{gateway_id[:8]}-{image.id.removeprefix('sha256:')[:12]}",
        image=image.id,
        labels={GATEWAY_LABEL: gateway_id, LOOK_LABEL: ""},
        command=("look",),  # never run: an image without a command cannot be created without
        volumes=tuple(VolumeMount(path, 2**20) for path in volumes),
        keep_output=False,
    )
    await engine.remove(spec.name)  # left by a process that was killed while it looked
    try:
        yield await create_surely(engine, spec, lambda container: None)
    finally:
        with contextlib.suppress(EngineError):  # else the next look, or the next start, removes it
            await asyncio.shield(engine.remove(spec.name))


async def tar_of(engine: Engine, container: str, path: str) -> bytes | None:
    """Return the beginning of a tar of what is at a path, or None if nothing is. Raises `EngineError`."""
    try:
        return await engine.archive(container, path, LOOKED_AT_BYTES)
    except NotFound:
        try:
            await engine.inspect(container)
        except NotFound as error:
            raise EngineError(
                f"somebody removed container {container[:12]} while its image was looked at; it is tried again"
            ) from error
        return None
