"""Images whose volumes have content: the image with a copy of that content elsewhere, from where init takes it.

A tmpfs lies over each volume of an image, and would hide what the image has there. So a layer on top of the image
holds the content once more, in a folder that is no volume. init copies it into the tmpfs before the program starts.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import IO

from pool.engine.base import Engine, Image, NotFound, VolumeMount
from pool.engine.labels import GATEWAY_LABEL
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.language.units import format_size
from scheduler.deploy.images.image_look import add_file, look_into
from scheduler.deploy.images.image_volumes import CONTENT_FOLDER, VolumeRefused, paths_of, within
from scheduler.deploy.images.shared_builds import SharedBuilds

VOLUMES_LABEL = "org.hearth.volumes"
"""Label of an image with a copy of its content: the bytes at each volume, as JSON."""
LARGEST_CONTENT_BYTES = 64 * 2**20
"""Most content of one volume: it goes through the gateway's memory, and into the memory of each container."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class ContentReaders:
    """The uids that containers of an image may run as. Content of all other owners is made readable for them."""

    uids: frozenset[int]

    def mode_for(self, entry: tarfile.TarInfo) -> int:
        """Return the mode of a copy, so that init can read it."""
        if entry.uid in self.uids:
            return entry.mode
        return entry.mode | (0o555 if entry.isdir() or entry.mode & 0o100 else 0o444)


class VolumeImages:
    """Builds images with a copy of the content at their volumes, for one gateway."""

    def __init__(self, engine: Engine, gateway_id: str, builds: SharedBuilds) -> None:
        self._engine = engine
        self._gateway_id = gateway_id
        self._builds = builds
        self._bases: dict[str, str] = {}

    def with_bases(self, images: Collection[str]) -> set[str]:
        """Return these ids of images, and those of the images that they stand on."""
        return {*images, *(base for id, base in self._bases.items() if id in images)}

    async def image_for(
        self,
        image: Image,
        volumes: Collection[VolumeMount],
        readers: ContentReaders,
        on_build: Callable[[], None],
    ) -> Image:
        """Return the image to run: the image itself, or one with a copy of what `volumes` take from it.

        It is built unless the engine has it. Raises `VolumeRefused` for too much content, and `EngineError`.
        """
        wanted = {volume.path: volume.content for volume in volumes if volume.content is not None}
        if not wanted:
            return image
        facts = json.dumps([image.id, wanted, sorted(readers.uids)]).encode()
        digest = hashlib.sha256(facts).hexdigest()[:16]
        tag = f"hearth-built/{self._gateway_id[:8]}:{digest}"

        async def build() -> Image:
            try:
                return await self._engine.image(tag)
            except NotFound:
                on_build()
            purpose = f"volumes-{digest}"
            async with look_into(
                self._engine, self._gateway_id, image, paths_of(image), purpose
            ) as container:
                tars = {
                    folder: (path, await self._content(container, path)) for path, folder in wanted.items()
                }
            context, sizes = await asyncio.to_thread(context_of, image, tars, readers)
            labels = {GATEWAY_LABEL: self._gateway_id, VOLUMES_LABEL: json.dumps(sizes)}
            return await self._engine.build(context, tag, labels)

        built = await self._builds.once(tag, build)
        self._bases[built.id] = image.id
        return built

    async def _content(self, container: str, path: str) -> bytes:
        limit = 2 * LARGEST_CONTENT_BYTES  # many small files take more room in a tar
        tar = await self._engine.archive(container, path, limit)
        if len(tar) == limit:
            raise too_much(path, limit, "Hearth copies", LARGEST_CONTENT_BYTES)
        return tar


def check_sizes(built: Image, volumes: Collection[VolumeMount], keys: ContainerKeys) -> None:
    """Raise `VolumeRefused` if the content of an image does not fit into the mounts, or into the memory."""
    sizes: Mapping[str, int] = json.loads(built.labels.get(VOLUMES_LABEL, "{}"))
    for volume in volumes:
        size = sizes.get(volume.path, 0)
        if volume.content is not None and size > LARGEST_CONTENT_BYTES:
            raise too_much(volume.path, size, "Hearth copies", LARGEST_CONTENT_BYTES)
        if volume.content is not None and size > volume.size:
            raise VolumeRefused(
                f"its image has {in_mib(size)} at its volume {volume.path}, and `tmp_size` is "
                f"{format_size(volume.size)}; write `tmp_size: {in_mib(size + size // 4)}`"
            )
    if (total := sum(sizes.values())) >= keys.memory:
        raise VolumeRefused(
            f"its image has {in_mib(total)} at its volumes, which lie in memory, and `memory` is "
            f"{format_size(keys.memory)}; raise it"
        )


def too_much(path: str, size: int, who: str, limit: int) -> VolumeRefused:
    """Return the fault of an image with more content at a volume than is copied."""
    return VolumeRefused(
        f"its image has {in_mib(size)} or more at its volume {path}, and {who} at most {format_size(limit)}; "
        f"to start with an empty folder, write `writable: {{{path}: 64MiB}}`; "
        f"to mount a folder of the host there, write `volumes: [HOST:{path}:rw]`"
    )


def in_mib(size: int) -> str:
    """Return a size in whole MiB, rounded up."""
    return f"{-(-size // MIB)}MiB"


def context_of(
    image: Image, tars: Mapping[str, tuple[str, bytes]], readers: ContentReaders
) -> tuple[bytes, dict[str, int]]:
    """Return the context of a build as a tar, and the bytes at each volume. Blocks.

    `tars` has path and content of a volume by the folder that the copy goes to. The inner tar keeps owners and modes.
    """
    sizes = {}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as target:
        for folder, (path, tar) in tars.items():
            others = [other for other in paths_of(image) if other != path and within(other, path)]
            prefix = posixpath.relpath(folder, CONTENT_FOLDER)
            sizes[path] = _add(
                tar, target, prefix, [posixpath.relpath(other, path) for other in others], readers
            )
    context = io.BytesIO()
    dockerfile = f"FROM {image.id}\nADD content.tar {CONTENT_FOLDER}/\n".encode()
    with tarfile.open(fileobj=context, mode="w") as target:
        add_file(target, "Dockerfile", dockerfile)
        add_file(target, "content.tar", content.getbuffer())
    return context.getvalue(), sizes


def _add(
    tar: bytes, target: tarfile.TarFile, prefix: str, others: Collection[str], readers: ContentReaders
) -> int:
    """Add the entries of a volume to the copy, without those of volumes inside it; return the bytes of its files."""
    size, kept = 0, set[str]()
    with tarfile.open(fileobj=io.BytesIO(tar)) as source:
        for entry in source:
            name = posixpath.normpath(entry.name)
            inside = any(within(name, other) and name != other for other in others)
            if inside or not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
                continue
            if entry.islnk():
                linked = posixpath.normpath(entry.linkname)
                if linked not in kept:
                    continue
                entry.linkname = posixpath.join(prefix, linked)
            kept.add(name)
            entry.name = posixpath.normpath(posixpath.join(prefix, name))
            entry.mode = readers.mode_for(entry)
            data: IO[bytes] | None = source.extractfile(entry) if entry.isreg() else None
            size += -(-entry.size // 4096) * 4096 if entry.isreg() else 0  # a tmpfs is made of pages
            target.addfile(entry, data)
    return size
