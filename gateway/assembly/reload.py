"""Live reload: watches functions.yaml and the sources that it names, and loads them again when they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from watchfiles import awatch

from gateway.assembly.settings import Settings
from scheduler.definitions.file import Definitions, DefinitionsError, load
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.deploy.registry import Registry

log = logging.getLogger("hearth.watch")

SETTLE_MS = 200
"""Milliseconds without a change until what has changed is looked at: editors write in several steps."""
LOOK_MS = 100
"""Milliseconds between two looks: each wakes a thread, also in a gateway that has nothing to do."""
IGNORED = ("~", ".swp", ".swx", ".tmp", ".pyc")


class Watch:
    """Notes that something has changed. Runs until `close`; nothing that changes meanwhile is missed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._changed = asyncio.Event()
        self._names: set[str] = set()
        self._folders: frozenset[str] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, definitions: Definitions) -> None:
        """Watch the file and these definitions' source folders, and no others."""
        folders = frozenset(
            folder
            for f in definitions.functions.values()
            if f.source and Path(folder := str(f.source)).is_dir()
        )
        if folders == self._folders:
            return
        await self.close()
        self._folders = folders
        # The file's own folder is not watched below the file: it may hold anything, in any number.
        self._tasks = [asyncio.ensure_future(self._note([self._file.parent], recursive=False))]
        if folders:
            self._tasks.append(asyncio.ensure_future(self._note(folders, recursive=True)))

    async def _note(self, paths: Collection[Path | str], recursive: bool) -> None:
        def concerns(_: object, path: str) -> bool:
            if not recursive:
                return path == str(self._file)
            return "__pycache__" not in path and not path.endswith(IGNORED)

        async for batch in awatch(
            *paths, watch_filter=concerns, recursive=recursive, debounce=SETTLE_MS, step=LOOK_MS
        ):
            self._names |= {Path(path).name for _, path in batch}
            self._changed.set()

    async def changed(self) -> set[str]:
        """Wait for a change; returns the names of what has changed since the last time."""
        await self._changed.wait()
        self._changed.clear()
        names, self._names = self._names, set()
        return names

    async def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []


async def reload_on_change(registry: Registry, settings: Settings, definitions: Definitions) -> None:
    """Bring every later version of the definitions file into service. A faulty one is told and not taken over."""
    file = settings.functions.resolve()
    watch = Watch(file)
    try:
        await watch.follow(definitions)
        while True:
            names = await watch.changed()
            try:
                definitions = await asyncio.to_thread(
                    load,
                    file,
                    allowed_volumes=settings.allowed_volumes,
                    allowed_callbacks=Allowed(settings.callback_allow),
                )
            except DefinitionsError as error:
                for fault in error.faults:
                    log.error("%s", fault)
                log.error("%s is not taken over; what is in service stays", file)
                continue
            log.info("%s changed: loading the functions again", ", ".join(sorted(names)))
            await watch.follow(definitions)
            await registry.apply(definitions)
    finally:
        await watch.close()
