"""Finds changed files by looking at them again and again, where the kernel does not tell of changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from pool.clock import Clock
from scheduler.definitions.source_folder import SKIPPED

POLL_SECONDS = 1.0
"""Pause between two looks: each look reads every folder."""
SETTLE_SECONDS = 0.2
"""Time for which changed files must stay as they are: editors write in several steps."""

Snapshot = dict[str, tuple[int, int, int]]
"""By path: inode, size in bytes and time of the last change in nanoseconds."""


async def poll_changes(
    paths: Collection[Path | str], recursive: bool, concerns: Callable[[str], bool], clock: Clock
) -> AsyncIterator[set[str]]:
    """Yield the paths of changed, new and removed files in `paths`, each time some have changed.

    `recursive`: also files in folders below. Only files of which `concerns` is true count.
    """
    seen = await asyncio.to_thread(take_snapshot, paths, recursive, concerns)
    while True:
        await clock.sleep(POLL_SECONDS)
        now = await asyncio.to_thread(take_snapshot, paths, recursive, concerns)
        if now == seen:
            continue
        latest = None
        while latest != now:
            latest = now
            await clock.sleep(SETTLE_SECONDS)
            now = await asyncio.to_thread(take_snapshot, paths, recursive, concerns)
        yield {path for path, _ in seen.items() ^ now.items()}
        seen = now


def take_snapshot(
    paths: Collection[Path | str], recursive: bool, concerns: Callable[[str], bool]
) -> Snapshot:
    """Return the files in `paths` as they are now. A path that does not exist has none."""
    found: Snapshot = {}
    for path in paths:
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if name not in SKIPPED] if recursive else []
            for file in (os.path.join(folder, name) for name in names):  # noqa: PTH118 - many, each second
                if concerns(file):
                    try:
                        status = os.stat(file)  # noqa: PTH116
                    except OSError:  # removed meanwhile
                        continue
                    found[file] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found
