"""The data folder of a gateway: its identity, and the lock that only one process can hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

LOCK, IDENTITY = "lock", "identity"
CALL_FILE = "call"
"""File in an instance's folder that names the call of a container that may be kept."""


class DataFolderInUse(Exception):
    """Another gateway process holds the data folder. `holder` is its process id as text, or "unknown"."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"another gateway (process {holder}) uses the data folder {path}; "
            "stop it, or give this one another folder with --data-dir"
        )
        self.holder = holder


@dataclass(frozen=True)
class FolderUse:
    """Use of a folder by gateways, as a command sees it from outside."""

    known: bool
    """True if a gateway has ever been started in it."""
    started_ns: int | None
    """Start of the gateway that runs in it, in Unix nanoseconds, or None if none runs."""


def look_at(path: Path) -> FolderUse:
    """Return how gateways use a folder, which need not exist. Nothing is written.

    Raises OSError if the folder cannot be read. The lock is held for a moment; a gateway that starts in that moment
    is refused.
    """
    known = (path / IDENTITY).exists()
    try:
        lock = (path / LOCK).open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return FolderUse(known, None)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            # A gateway writes to its lock only at its start, so the file's time is the start's.
            return FolderUse(known, os.fstat(lock.fileno()).st_mtime_ns)
    return FolderUse(known, None)


class DataFolder:
    """The data folder of this gateway process, locked for its whole life.

    `id` is a UUID that stays with the folder. Containers, networks and images carry it as a label, so that a gateway
    knows its own. Raises `DataFolderInUse`, and OSError if the folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self.run = self.path / "run"
        """Sockets of instances, a folder for each."""
        self.etc = self.path / "etc"
        """Files of ours in `/etc` of containers."""
        self.records = self.path / "records"
        """Records of instances for the next process, a file for each."""
        self.work = self.path / "work"
        """Scratch space for building images."""
        self.code = self.path / "code"
        """Code of deployed functions."""
        self.init = self.path / "init"
        """The first process of containers, a folder for each of its releases."""
        self.engine_secret = self.path / "engine-secret"
        """Secret that only containers of a remote engine and we know."""
        self.output = self.path / "logs"
        """Output of functions, which stays for the next process."""
        self._lock = (self.path / LOCK).open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise DataFolderInUse(self.path, holder) from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
        self.id = self._identity()

    def _identity(self) -> str:
        file = self.path / IDENTITY
        try:
            return str(uuid.UUID(file.read_text().strip()))
        except (FileNotFoundError, ValueError):
            identity = str(uuid.uuid4())
            fresh = file.with_suffix(".new")
            fresh.write_text(identity + "\n")
            fresh.replace(file)
            return identity

    def fault(self) -> str | None:
        """Return a description of the damage if the folder on disk was moved or replaced, or None if it is intact.

        Without our lock in it, another gateway could start in the folder.
        """
        held = os.fstat(self._lock.fileno())
        try:
            found = (self.path / LOCK).stat()
        except OSError:
            return "the data folder, or the lock in it, was deleted or moved; move it back, or restart the gateway"
        if (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
            return "the data folder was replaced; move the earlier one back, or restart the gateway"
        return None

    def clear(self) -> None:
        """Remove everything of instances: sockets, records, scratch space, code. For an end without instances."""
        self.clear_own()
        shutil.rmtree(self.records, ignore_errors=True)
        for folder in self.run.iterdir() if self.run.is_dir() else ():
            if not (folder / CALL_FILE).exists():
                shutil.rmtree(folder, ignore_errors=True)
        # Not empty if jobs have kept containers, which need their files.
        for folder in (self.run, self.etc):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if not self.run.exists():
            shutil.rmtree(self.init, ignore_errors=True)

    def clear_own(self) -> None:
        """Remove scratch space and code, which only this process uses."""
        for folder in (self.work, self.code):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Release the lock: another process may use the folder now."""
        self._lock.close()
