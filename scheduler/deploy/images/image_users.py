"""Uids of the users that images name, read from their /etc/passwd."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Collection

from pool.engine.base import BadPath, Engine, Image
from pool.host.uids import number_of
from scheduler.deploy.images.image_look import look_into, tar_of
from scheduler.deploy.images.image_volumes import paths_of

PASSWD = "/etc/passwd"  # noqa: S105  a path


def uids_named(name: str, passwd: bytes) -> frozenset[int]:
    """Return the uids that a passwd file gives a name, in all its lines. Text that is not a number counts as 0, as
    engines read it."""
    found = set[int]()
    for line in passwd.split(b"\n"):
        fields = line.strip().split(b":")
        if fields[0] == name.encode() and len(fields) > 2:
            found.add(number_of(fields[2].decode("latin-1")) or 0)
    return frozenset(found)


def file_in(tar: bytes) -> bytes | None:
    """Return the content of the file in a tar, or None if it holds anything else or is cut off."""
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            entry = archive.next()
            read = archive.extractfile(entry) if entry is not None and entry.isreg() else None
            data = None if read is None else read.read()
    except tarfile.TarError:
        return None
    return data if entry is not None and data is not None and len(data) == entry.size else None


class ImageUsers:
    """The uids of the images' users. Each image, by its id, is read once."""

    def __init__(self, engine: Engine, gateway_id: str) -> None:
        self._engine = engine
        self._gateway_id = gateway_id
        self._seen: dict[str, frozenset[int] | None] = {}
        self._looking = asyncio.Lock()

    async def uids(self, image: Image) -> frozenset[int] | None:
        """Return the uids that an image's `USER` may mean, or None if they cannot be determined.

        Raises `VolumeRefused`, and `EngineError` if the image cannot be read.
        """
        name = image.user.partition(":")[0]
        if (number := number_of(name)) is not None or not name:
            return frozenset({number or 0})
        async with self._looking:
            if image.id not in self._seen:
                self._seen[image.id] = await self._look(image, name)
        return self._seen[image.id]

    def forget_all_but(self, images: Collection[str]) -> None:
        """Forget all images but those with these ids."""
        self._seen = {id: uids for id, uids in self._seen.items() if id in images}

    async def _look(self, image: Image, name: str) -> frozenset[int] | None:
        async with look_into(self._engine, self._gateway_id, image, paths_of(image), "user") as container:
            try:
                tar = await tar_of(self._engine, container, PASSWD)
            except BadPath:
                return None
        if tar is None:
            return frozenset()  # no such user: the engine refuses to start a container
        passwd = file_in(tar)
        return None if passwd is None else uids_named(name, passwd)
