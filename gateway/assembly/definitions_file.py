"""The file that declares a gateway's functions, and how it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.assembly.settings import Settings
from scheduler.definitions.file import Definitions, load
from scheduler.definitions.language.callback_allow import Allowed


@dataclass(frozen=True, slots=True)
class DefinitionsFile:
    """A definitions file that is read again whenever it changes."""

    path: Path
    read: Callable[[], Definitions]
    """Blocks. Raises `DefinitionsError`."""
    at_once: bool = False
    """True to take a saved file over as soon as it is whole. Otherwise changes have to settle: they may be many."""

    async def read_again(self) -> Definitions:
        """Return what the file declares now. Raises `DefinitionsError`."""
        if self.at_once:
            return self.read()  # a thread would begin and end more slowly than a small file is read
        return await asyncio.to_thread(self.read)

    @classmethod
    def of(cls, settings: Settings) -> DefinitionsFile:
        """Return the file that the settings name."""
        read = partial(
            load,
            settings.functions,  # as given, so that faults name the file as the user does
            allowed_volumes=settings.allowed_volumes,
            allowed_capabilities=settings.allowed_capabilities,
            allowed_callbacks=Allowed(settings.callback_allow),
        )
        return cls(settings.functions.resolve(), read)
