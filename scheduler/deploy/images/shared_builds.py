"""Shared builds: equal images that are wanted at once are built once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pool.engine.base import Image


class SharedBuilds:
    """The builds of images that are under way, by tag."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[Image]] = {}

    async def once(self, tag: str, build: Callable[[], Awaitable[Image]]) -> Image:
        """Return the image of a build that is under way for this tag, or build it.

        Everybody who waits for a build gets its fault. If whoever builds is cancelled, the next one builds.
        """
        while (other := self._under_way.get(tag)) is not None:
            await asyncio.wait((other,))
            if not other.cancelled():
                return other.result()
        mine = self._under_way[tag] = asyncio.get_running_loop().create_future()
        try:
            image = await build()
        except Exception as error:
            mine.set_exception(error)
            mine.exception()  # nobody may have waited, and asyncio would log that
            raise
        else:
            mine.set_result(image)
            return image
        finally:
            mine.cancel()  # harmless once it has its outcome
            del self._under_way[tag]
