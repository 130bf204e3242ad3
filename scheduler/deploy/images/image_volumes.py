"""Mounts for the volumes that an image declares, so that its containers cannot write to the host's disk.

By default the engine makes an unlimited volume on the disk for each. It makes none where a tmpfs is mounted. A tmpfs
is empty. If the image has content at such a path, init copies it there (`volume_images`), unless the function's keys
say what to mount. Where no init runs, such an image is refused.
"""

from __future__ import annotations

import asyncio
import io
import posixpath
import tarfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pool.engine.base import BadPath, Engine, Image, VolumeMount
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.language.faults import shown
from scheduler.deploy.images.image_look import LOOKED_AT_BYTES, look_into, tar_of

TMP = "/tmp"  # noqa: S108  a path inside the container; every container has a tmpfs there
KERNEL_PATHS = ("/proc", "/sys", "/dev")
MAX_VOLUMES = 32
"""Volumes of one image; each is a mount in each of its containers. The official images have three at most."""
CONTENT_FOLDER = "/.hearth-volumes"
"""Folder of an image with copies of the content at its volumes; each has a number there."""
REBUILD = "build it with its VOLUME at another absolute path, or without"


class VolumeRefused(Exception):
    """No tmpfs can be mounted at a volume of an image. The message says where, why, and what to do."""


@dataclass(frozen=True, slots=True)
class VolumeContent:
    """The content of an image at the path of one of its volumes."""

    content: str | None = None
    """First path in it that a tmpfs would hide, or None if it is empty."""
    owner: str | None = None
    """`uid:gid` of the folder, or None if there is no folder."""


def clean(path: str) -> str | None:
    """Return the path as the engine reads it, or None if it is not absolute."""
    # POSIX gives a leading // a meaning of its own, so normpath keeps it. The engine does not.
    return posixpath.normpath("/" + path.lstrip("/")) if path.startswith("/") else None


def paths_of(image: Image) -> tuple[str, ...]:
    """Return where an image declares volumes, as the engine reads it. Raises `VolumeRefused`."""
    found = []
    for declared in image.volumes:
        path = clean(declared)
        if path is None or path == "/" or any(within(path, kernel) for kernel in KERNEL_PATHS):
            raise VolumeRefused(
                f"its image declares a volume at {shown(declared)}, where nothing may be mounted; {REBUILD}"
            )
        found.append(path)
    if len(found) > MAX_VOLUMES:
        raise VolumeRefused(
            f"its image declares {len(found)} volumes, and {MAX_VOLUMES} are allowed; build it with fewer"
        )
    return tuple(path for path in dict.fromkeys(found) if path != TMP)


def read_content(tar: bytes, path: str, paths: Collection[str]) -> VolumeContent:
    """Return the content of an image at `path`, from the beginning of a tar of it. `paths` are all its volumes.

    Folders that only lead to another volume do not count: they exist for its mount.
    """
    owner = None
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for entry in archive:
                name = posixpath.normpath(posixpath.join(path, entry.name))
                if not entry.isdir():
                    return VolumeContent(name if owner else path, owner)
                if name == path:
                    owner = f"{entry.uid}:{entry.gid}"
                elif not any(within(other, name) for other in paths):
                    return VolumeContent(name, owner)
    except tarfile.TarError:
        return VolumeContent(path, owner)  # cut off after LOOKED_AT_BYTES: there is more content
    return VolumeContent(None, owner) if len(tar) < LOOKED_AT_BYTES else VolumeContent(path, owner)


def mounts_for(
    paths: Iterable[str], contents: Mapping[str, VolumeContent], keys: ContainerKeys, copied: bool
) -> tuple[VolumeMount, ...]:
    """Return the mounts for the volumes of an image, given the keys of a function or job.

    `copied` says that init copies content. Raises `VolumeRefused` if it does not, or cannot, and a mount would hide
    content of the image, and no key mounts anything there.
    """
    given = [*keys.writable, *(mount.target for mount in keys.volumes)]
    mounts = []
    for number, path in enumerate(paths):
        found, content = contents[path], None
        if found.content is not None and not any(within(path, key) for key in given):
            if not copied or found.owner is None:
                raise VolumeRefused(
                    f"its image declares a volume at {path} and has content there ({shown(found.content)}), "
                    f"which would be hidden; to start with an empty folder, write `writable: {{{path}: 64MiB}}`; "
                    f"to mount a folder of the host there, write `volumes: [HOST:{path}:rw]`"
                )
            content = f"{CONTENT_FOLDER}/{number}"
        if path not in given:
            owner = found.owner if keys.user == "image" else None
            mounts.append(VolumeMount(path, keys.tmp_size, owner, content))
    return tuple(mounts)


def within(path: str, folder: str) -> bool:
    """Return whether a path is a folder, or below it."""
    return path == folder or path.startswith(folder + "/")


class ImageVolumes:
    """The content of images at their volumes. Each image, by its id, is read once."""

    def __init__(self, engine: Engine, gateway_id: str) -> None:
        self._engine = engine
        self._gateway_id = gateway_id
        self._seen: dict[str, Mapping[str, VolumeContent]] = {}
        self._looking = asyncio.Lock()

    async def mounts(
        self, image: Image, keys: ContainerKeys, copied: bool = False
    ) -> tuple[VolumeMount, ...]:
        """Return the mounts for an image's volumes. An image without volumes costs no question to the engine.

        `copied` says that init copies the content that the image has there.

        Raises `VolumeRefused`, and `EngineError` if the image cannot be read.
        """
        paths = paths_of(image)
        if not paths:
            return ()
        async with self._looking:
            if image.id not in self._seen:
                self._seen[image.id] = await self._look(image, paths)
        return mounts_for(paths, self._seen[image.id], keys, copied)

    def forget_all_but(self, images: Collection[str]) -> None:
        """Forget all images but those with these ids."""
        self._seen = {id: contents for id, contents in self._seen.items() if id in images}

    async def _look(self, image: Image, paths: tuple[str, ...]) -> Mapping[str, VolumeContent]:
        async with look_into(self._engine, self._gateway_id, image, paths, "look") as container:
            made = (await self._engine.inspect(container)).volumes
            if made:
                raise VolumeRefused(
                    f"the engine makes a volume on the host's disk for its image, at {made[0]}; {REBUILD}"
                )
            return {path: await self._read(container, path, paths) for path in paths}

    async def _read(self, container: str, path: str, paths: tuple[str, ...]) -> VolumeContent:
        try:
            tar = await tar_of(self._engine, container, path)
        except BadPath as error:
            raise VolumeRefused(
                f"its image declares a volume at {shown(path)}, which leads nowhere ({error}); {REBUILD}"
            ) from error
        return VolumeContent() if tar is None else read_content(tar, path, paths)
