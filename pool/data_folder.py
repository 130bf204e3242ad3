"""The data folder of a gateway: who it is, and that there is only one of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from pathlib import Path


class DataFolderInUse(Exception):
    """Another gateway process holds the data folder."""


class DataFolder:
    """Opened for the whole life of a gateway process.

    `id` is a UUID that stays with the folder: containers, networks and images carry it as a label, so that a
    gateway knows its own. Raises `DataFolderInUse`, and OSError where the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self.run = self.path / "run"
        """Socket folders of instances, one each."""
        self.hosts = self.path / "hosts"
        """`/etc/hosts` of containers, a file each."""
        self.records = self.path / "records"
        """What instances have become, a file each."""
        self.work = self.path / "work"
        """Scratch space for building images."""
        self.code = self.path / "code"
        """The code of what is deployed."""
        self._lock = (self.path / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise DataFolderInUse(
                f"another gateway (process {holder}) uses the data folder {self.path}; "
                "stop it, or give this one a folder of its own with --data-dir"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
        self.id = self._identity()

    def _identity(self) -> str:
        file = self.path / "identity"
        try:
            return str(uuid.UUID(file.read_text().strip()))
        except (FileNotFoundError, ValueError):
            identity = str(uuid.uuid4())
            fresh = file.with_suffix(".new")
            fresh.write_text(identity + "\n")
            fresh.replace(file)
            return identity

    def fault(self) -> str | None:
        """Return what has happened to the folder on disk, or None if it is the one that was opened.

        Without its lock another gateway could take the folder.
        """
        held = os.fstat(self._lock.fileno())
        try:
            found = (self.path / "lock").stat()
        except OSError:
            return "the data folder, or the lock in it, was deleted or moved; move it back, or restart the gateway"
        if (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
            return "the data folder was replaced; move the earlier one back, or restart the gateway"
        return None

    def clear(self) -> None:
        """Remove what belongs to no life but a gateway's own: socket folders, records, scratch space, code."""
        self.clear_own()
        for folder in (self.run, self.records):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # those of containers that jobs have kept stay
            self.hosts.rmdir()

    def clear_own(self) -> None:
        """Remove what is of use to one process only: scratch space and code."""
        for folder in (self.work, self.code):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()
