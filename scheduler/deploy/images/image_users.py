"""Users that images know, read from their /etc/passwd."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections import defaultdict
from collections.abc import Collection

from pool.engine.base import BadPath, Engine, Image
from pool.host.passwd import number_of, users_in
from scheduler.deploy.images.image_look import look_into, tar_of
from scheduler.deploy.images.image_volumes import paths_of

PASSWD = "/etc/passwd"  # noqa: S105  a path


def uids_named(name: str, passwd: bytes) -> frozenset[int]:
    """Return the uids that a passwd file gives a name, in all its lines. Text that is not a number counts as 0, as
    engines read it."""
    return frozenset(uid or 0 for known, uid in users_in(passwd) if known == name)


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
    """The users that images know. Each image, by its id, is read once."""

    def __init__(self, engine: Engine, gateway_id: str) -> None:
        self._engine = engine
        self._gateway_id = gateway_id
        self._seen: dict[str, bytes | None] = {}
        self._looking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def passwd(self, image: Image) -> bytes | None:
        """Return the content of an image's /etc/passwd, empty if there is none, or None if it cannot be read.

        Raises `VolumeRefused`, and `EngineError` if the image cannot be read.
        """
        async with self._looking[image.id]:
            if image.id not in self._seen:
                self._seen[image.id] = await self._look(image)
        return self._seen[image.id]

    async def uids(self, image: Image) -> frozenset[int] | None:
        """Return the uids that an image's `USER` may mean, or None if they cannot be determined.

        Raises as `passwd` does.
        """
        name = image.user.partition(":")[0]
        if (number := number_of(name)) is not None or not name:
            return frozenset({number or 0})
        passwd = await self.passwd(image)
        # Without such a user, the engine refuses to start a container.
        return None if passwd is None else uids_named(name, passwd)

    def forget_all_but(self, images: Collection[str]) -> None:
        """Forget all images but those with these ids."""
        self._seen = {id: passwd for id, passwd in self._seen.items() if id in images}
        for id in [id for id, lock in self._looking.items() if id not in images and not lock.locked()]:
            del self._looking[id]

    async def _look(self, image: Image) -> bytes | None:
        async with look_into(self._engine, self._gateway_id, image, paths_of(image), "user") as container:
            try:
                tar = await tar_of(self._engine, container, PASSWD)
            except BadPath:
                return None
        return b"" if tar is None else file_in(tar)
