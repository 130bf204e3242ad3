"""Finding the images that functions name, with one question to the engine for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Collection, Mapping

from pool.engine.base import Engine, EngineError, Image, NotFound


class ImageLookup:
    """The engine's answers about images during one pass over all functions, each asked for once.

    Discard it after the pass: the image behind a reference may change. `assumed` are answers from before.
    """

    def __init__(self, engine: Engine, assumed: Mapping[str, Image] | None = None) -> None:
        self._engine = engine
        self._known: dict[str, Image | EngineError] = dict(assumed or {})
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

    def answer(self, reference: str) -> Image | EngineError | None:
        """Return the answer about an image, or None if nobody has asked for it."""
        return self._known.get(reference)


class RuntimeImages:
    """The images of the runtimes, as the engine had them last.

    A load takes for granted that the engine has them still, so that new code waits for no answer of the engine. Later
    `changed` asks.
    """

    def __init__(self, engine: Engine, references: Collection[str]) -> None:
        self._engine = engine
        self._references = references
        self._latest: dict[str, Image] = {}
        self._assumed = False
        """True if a load has used an answer from before, and `changed` has not asked since."""

    def assume(self) -> ImageLookup:
        """Return a lookup that has the latest answers about these images already."""
        self._assumed |= bool(self._latest)
        return ImageLookup(self._engine, self._latest)

    def note(self, images: ImageLookup) -> None:
        """Take over the answers of a pass."""
        for reference in self._references:
            answer = images.answer(reference)
            if isinstance(answer, Image):
                self._latest[reference] = answer
            elif answer is not None:
                self._latest.pop(reference, None)

    def forget(self, id: str) -> None:
        """Have the next load ask for an image that seems to be gone."""
        self._latest = {reference: image for reference, image in self._latest.items() if image.id != id}

    async def changed(self, images: ImageLookup) -> bool:
        """Return whether a load has used an answer that is not true any more, by a lookup without earlier answers.

        It is False if the engine does not answer; then ask again.
        """
        if not self._assumed:
            return False
        before = {reference: image.id for reference, image in self._latest.items()}
        try:
            for reference in before:
                with contextlib.suppress(NotFound):
                    await images.find(reference)
        except EngineError:
            return False
        self.note(images)
        self._assumed = False
        return before != {reference: image.id for reference, image in self._latest.items()}
