"""Output that cannot be passed on yet: in memory, and beyond a bound in a temporary file."""

from __future__ import annotations

import tempfile
from typing import IO

PIECE_BYTES = 64 * 1024


class HeldOutput:
    """The output of one run until its answer may begin. `in_memory` bounds the bytes that are not in a file."""

    def __init__(self, in_memory: int) -> None:
        self.size = 0
        """Bytes that were added."""
        self._in_memory = in_memory
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None

    @property
    def on_disk(self) -> bool:
        """Return whether there is more than memory may hold."""
        return self._file is not None

    def add(self, piece: bytes) -> None:
        """Add output, before any is taken. Raises OSError if the disk is full."""
        self.size += len(piece)
        self._pieces.append(piece)
        if self._file is None and self.size > self._in_memory:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        if self._file is not None:
            self._file.write(b"".join(self._pieces))
            self._pieces.clear()

    def rewind(self) -> None:
        """Be ready to be taken from the beginning: nothing more is added."""
        if self._file is not None:
            self._file.seek(0)

    def take(self) -> bytes:
        """Return all of it, or the next piece of what is on disk; empty at its end."""
        if self._file is not None:
            return self._file.read(PIECE_BYTES)
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole

    def close(self) -> None:
        """Forget it, and the file. Safe to call twice."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
