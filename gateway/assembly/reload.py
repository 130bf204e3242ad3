"""Live reload: watches functions.yaml and the sources that it names, and loads them again when they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path

from gateway.assembly.definitions_file import DefinitionsFile
from gateway.assembly.file_events import WatchLost, kernel_changes
from gateway.assembly.file_polling import POLL_SECONDS, poll_changes
from pool.clock import Clock
from pool.supervise import Supervisor
from scheduler.definitions.file import Definitions, DefinitionsError
from scheduler.definitions.source_folder import SKIPPED
from scheduler.deploy.registry import Registry

log = logging.getLogger("hearth.watch")

IGNORED = ("~", ".swp", ".swx", ".tmp", ".pyc")


class Watch:
    """A watch over functions.yaml and source folders. Nothing that changes before `close` is missed."""

    def __init__(self, file: DefinitionsFile, clock: Clock, supervisor: Supervisor) -> None:
        self._file = file.path
        self._at_once = file.at_once
        self._clock = clock
        self._supervisor = supervisor
        self._changed = asyncio.Event()
        self._names: set[str] = set()
        self._folders: frozenset[str] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._polls = False
        """True once the kernel has refused to tell of changes."""

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
        supervise = self._supervisor.supervise
        self._tasks = [supervise("file-watch", partial(self._note, [self._file.parent], recursive=False))]
        if folders:
            self._tasks.append(supervise("source-watch", partial(self._note, folders, recursive=True)))

    async def _note(self, paths: Collection[Path | str], recursive: bool) -> None:
        """Note every change in `paths`, until cancelled."""

        def concerns(path: str) -> bool:
            if not recursive:
                return path == str(self._file)
            return not path.endswith(IGNORED) and path.rpartition("/")[2] not in SKIPPED

        if not self._polls:
            try:
                async for changed in kernel_changes(paths, recursive, concerns, self._clock, self._at_once):
                    self._add(changed)
            except OSError as error:
                self._tell_that_it_polls(error)
            except WatchLost:
                pass  # looking again and again finds a folder that is back
        self.expect_change()
        async for changed in poll_changes(paths, recursive, concerns, self._clock):
            self._add(changed)

    def _add(self, paths: Collection[str]) -> None:
        self._names |= {Path(path).name for path in paths}
        self._changed.set()

    def _tell_that_it_polls(self, error: Exception) -> None:
        if not self._polls:
            log.warning(
                "The kernel does not report changed files (%s). Live reload checks them every %g s instead. "
                "If a limit is reached, raise it: "
                "sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512",
                error,
                POLL_SECONDS,
            )
        self._polls = True

    def expect_change(self) -> None:
        """Have `changed` return at once: something may have changed while nobody watched."""
        self._add([self._file.name])

    async def changed(self) -> set[str]:
        """Wait for a change, and return the names of all files that have changed since the last time."""
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
        self._folders = None


class Reload:
    """Brings every later version of the definitions file into service. `definitions` is the version in service."""

    def __init__(
        self,
        registry: Registry,
        file: DefinitionsFile,
        definitions: Definitions,
        clock: Clock,
        supervisor: Supervisor,
    ) -> None:
        self._registry = registry
        self._definitions = definitions
        self._file = file
        self._watch = Watch(file, clock, supervisor)

    async def run(self) -> None:
        """Follow the file until cancelled. A faulty version is logged, and the one in service stays."""
        try:
            while True:
                await self._watch.follow(self._definitions)
                await self._take_over(await self._watch.changed())
        except Exception:
            self._watch.expect_change()  # looked at when this loop is started again
            raise
        finally:
            await self._watch.close()

    async def _take_over(self, names: Collection[str]) -> None:
        try:
            definitions = await self._file.read_again()
        except DefinitionsError as error:
            for fault in error.faults:
                log.error("%s", fault)
            log.error("%s has faults and was not loaded; the functions in service stay", self._file.path)
            return
        log.info("%s changed; loading the functions again", ", ".join(sorted(names)))
        self._definitions = definitions
        await self._watch.follow(definitions)
        await self._registry.apply(definitions)
