"""Finding the images that functions name, for one pass over all functions."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from pool.engine.base import Engine, EngineError, Image


class ImageLookup:
    """Asks the engine once for each image, however many functions share it, and remembers what it said.

    To be thrown away after the pass: the image behind a reference may change.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Image | EngineError] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def find(self, reference: str) -> Image:
        """The image that the engine has by this name or id. Raises `EngineError`, `NotFound` if it has none."""
        async with self._asking[reference]:
            if reference not in self._known:
                try:
                    self._known[reference] = await self._engine.image(reference)
                except EngineError as error:
                    self._known[reference] = error
        found = self._known[reference]
        if isinstance(found, EngineError):
            raise found.with_traceback(None)  # else it would hold the frames of all who were told
        return found
