"""Changed files as the kernel tells of them: inotify, asked without a thread and without waking up in between."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from gateway.assembly.file_polling import SETTLE_SECONDS
from pool.clock import Clock
from scheduler.definitions.source_folder import SKIPPED

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
OVERFLOW, IS_FOLDER = 0x4000, 0x4000_0000
"""Bits of inotify(7)."""
WATCHED = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
WRITTEN = CLOSE_WRITE | MOVED_TO
"""Events after which a file is whole: its writer has closed it, or has put it in its place."""
HEAD = struct.Struct("iIII")
READ_BYTES = 64 * 1024

Concerns = Callable[[str], bool]


class WatchLost(Exception):
    """The kernel tells of changes no more: a watched folder is gone, or there were too many at once."""


async def kernel_changes(
    folders: Collection[Path | str], recursive: bool, concerns: Concerns, clock: Clock, at_once: bool
) -> AsyncIterator[set[str]]:
    """Yield the paths of changed, new and removed files in `folders`, once they have settled.

    `recursive`: also files in folders below. Only files of which `concerns` is true count. `at_once`: a file that is
    whole is not waited for. Raises OSError if the kernel refuses to watch, and `WatchLost`.
    """
    events = FileEvents(recursive, concerns)
    try:
        for folder in folders:
            events.watch(str(folder), root=True)
        while True:
            await events.arrived.wait()
            while not (at_once and events.written) and not events.lost:
                events.arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with clock.timeout(SETTLE_SECONDS):
                        await events.arrived.wait()
                if not events.arrived.is_set():
                    break
            yield events.take()
    finally:
        events.close()


class FileEvents:
    """The kernel's events about files in folders. Raises OSError if it has no room for another watcher."""

    def __init__(self, recursive: bool, concerns: Concerns) -> None:
        self.arrived = asyncio.Event()
        """Set by each event that counts."""
        self.written = False
        """True if a file is whole since `take`."""
        self.lost = False
        """True if later changes would be missed."""
        self._recursive = recursive
        self._concerns = concerns
        self._changed: set[str] = set()
        self._folders: dict[int, str] = {}
        """Path by the kernel's number."""
        self._roots: set[int] = set()
        self._c = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._asked(self._c.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def watch(self, folder: str, root: bool = False) -> None:
        """Watch a folder, and those below it if `recursive`. Raises OSError if the kernel refuses."""
        number = self._asked(self._c.inotify_add_watch(self._descriptor, os.fsencode(folder), WATCHED))
        self._folders[number] = folder
        if root:
            self._roots.add(number)
        if self._recursive:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and entry.name not in SKIPPED:
                        self.watch(entry.path)

    def take(self) -> set[str]:
        """Return the paths that have changed since the last time. Raises `WatchLost`."""
        if self.lost:
            raise WatchLost
        changed, self._changed, self.written = self._changed, set(), False
        self.arrived.clear()
        return changed

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    @staticmethod
    def _asked(answer: int) -> int:
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer

    def _read(self) -> None:
        data, at = os.read(self._descriptor, READ_BYTES), 0
        while at < len(data):
            number, mask, _, size = HEAD.unpack_from(data, at)
            at += HEAD.size + size
            self._note(number, mask, os.fsdecode(data[at - size : at].rstrip(b"\0")))

    def _note(self, number: int, mask: int, name: str) -> None:
        if mask & OVERFLOW or (number in self._roots and mask & (DELETE_SELF | MOVE_SELF)):
            self.lost = True
            self.arrived.set()
            return
        folder = self._folders.get(number)
        if folder is None or not name:
            return
        path = f"{folder}/{name}"
        if mask & IS_FOLDER and mask & (CREATE | MOVED_TO):
            self._add_folder(path)
        if self._concerns(path):
            self._changed.add(path)
            self.written |= bool(mask & WRITTEN)
            self.arrived.set()

    def _add_folder(self, path: str) -> None:
        """Watch a new folder, if folders below are watched. It may be gone again."""
        if self._recursive and Path(path).name not in SKIPPED:
            try:
                self.watch(path)
            except FileNotFoundError:
                pass
            except OSError:
                self.lost = True  # over the kernel's limit
                self.arrived.set()
