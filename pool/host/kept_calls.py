"""Calls of containers that stay after their end, on disk: a file in the folder that each container has mounted.

A container starts before it has its call, and its labels cannot be changed then. The folder stays as long as the
container: the engine cannot read files from a stopped container whose mounts are gone.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection
from pathlib import Path

from pool.data_folder import CALL_FILE


class KeptCalls:
    """The calls of one gateway's kept containers. `folder` holds the folder of each instance, named for its id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, id: str, invocation: str) -> None:
        """Write down the call that an instance runs. If that fails, nobody finds its container by its call."""
        with contextlib.suppress(OSError):
            (self._folder / id).mkdir(parents=True, exist_ok=True)
            (self._folder / id / CALL_FILE).write_text(invocation)

    def of(self, id: str) -> str:
        """Return the call of an instance, or an empty string if it is not known."""
        try:
            return (self._folder / id / CALL_FILE).read_text()
        except OSError:
            return ""

    def drop(self, id: str) -> None:
        """Remove the folder of an instance. If that fails, the next start of the gateway tries again."""
        shutil.rmtree(self._folder / id, ignore_errors=True)

    def drop_all_but(self, ids: Collection[str]) -> None:
        """Remove the folders of all other instances."""
        if self._folder.is_dir():
            for folder in self._folder.iterdir():
                if folder.name not in ids:
                    self.drop(folder.name)
