"""The file of a store on disk: whether it is still the one that was opened, and whether there should be one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from scheduler.calls.store import StoreError

log = logging.getLogger("hearth.durable")

MARKER_TEXT = (
    "This data folder has a store of accepted calls, calls.db. While this file is here, no gateway begins a new one "
    "where calls.db is missing or empty.\n"
)
_Identity = tuple[int, int] | None


class StoreFile:
    """The path of a store, and what was opened there.

    A process that has a deleted file open can write to it as before, and all of it is lost. So who writes asks
    `check` before and after each commit.
    """

    def __init__(self, path: Path, folder_fault: Callable[[], str | None] | None = None) -> None:
        """`folder_fault` tells what is wrong with the folder itself, or None if it is the one that was opened."""
        self.path = path
        self.marker = path.with_suffix(".made")
        self._folder_fault = folder_fault or (lambda: None)
        self._files = (path, path.with_name(f"{path.name}-wal"))
        self._opened: tuple[_Identity, ...] | None = None
        self._told: str | None = None

    @property
    def exists(self) -> bool:
        """Return whether anything was ever kept here, also if it is gone."""
        return self._opened is not None or self.path.exists() or self.marker.exists()

    @property
    def had_one(self) -> bool:
        """Return whether a store was opened here before, by this process or another."""
        return self.marker.exists()

    def note_opened(self) -> None:
        """Remember which file was opened, and mark the folder as one that has a store. Raises OSError."""
        self._opened = self._now()
        if not self.had_one:
            self.marker.touch(0o600)
            with self.marker.open("w") as marker:
                marker.write(MARKER_TEXT)
                marker.flush()
                os.fsync(marker.fileno())

    def fault(self) -> str | None:
        """Return why nothing can be kept here now, or None if it can. Four system calls."""
        fault = self._folder_fault()
        if fault is None:
            fault = self._fault_before_open() if self._opened is None else self._fault_of_opened()
        return fault

    def check(self) -> None:
        """Raise `StoreError` if nothing can be kept here now. A change is logged once."""
        fault = self.fault()
        if fault != self._told:
            self._told = fault
            if fault is None:
                log.warning("The store of accepted calls is back: %s", self.path)
            else:
                log.error("Cannot store accepted calls in %s: %s", self.path, fault)
        if fault is not None:
            raise StoreError(fault)

    def _fault_before_open(self) -> str | None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            size = 0
        except OSError:
            return None  # opening it says more
        return missing_store(self) if size == 0 and self.had_one else None

    def _fault_of_opened(self) -> str | None:
        for file, opened, now in zip(self._files, self._opened or (), self._now(), strict=True):
            if opened != now:
                what = "was deleted or moved" if now is None else "was replaced"
                return f"{file.name} in the data folder {what}; move it back, or restart the gateway"
        if _is_empty(self.path):  # a store has its first page from when it is opened on
            return f"{self.path.name} in the data folder was emptied; put a copy back and restart the gateway"
        return None

    def _now(self) -> tuple[_Identity, ...]:
        return tuple(map(_identity, self._files))


def missing_store(file: StoreFile) -> str:
    """Return what to do about a store that is missing or empty where there was one."""
    return (
        f"{file.path.name} in the data folder is missing or empty, and was not before; put it back, or remove "
        f"{file.marker.name} there to begin a new one: the calls that were kept are given up then"
    )


def _identity(file: Path) -> _Identity:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_empty(file: Path) -> bool:
    """Return whether a file is there and has no byte."""
    try:
        return file.stat().st_size == 0
    except OSError:
        return False
