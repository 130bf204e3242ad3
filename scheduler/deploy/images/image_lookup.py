"""Finding the images that functions name, with one question to the engine for each."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from pool.engine.base import Engine, EngineError, Image


class ImageLookup:
    """The engine's answers about images during one pass over all functions, each asked for once.

    Discard it after the pass: the image behind a reference may change.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Image | EngineError] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def find(self, reference: str) -> Image:
        """Return the image that the engine has by this name or id. Raises `NotFound` or another `EngineError`."""
        async with self._asking[reference]:
            if reference not in self._known:
                try:
                    self._known[reference] = await self._engine.image(reference)
                except EngineError as error:
                    self._known[reference] = error
        found = self._known[reference]
        if isinstance(found, EngineError):
            raise found.with_traceback(None)  # the traceback would keep the frames of every caller alive
        return found
