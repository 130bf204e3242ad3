"""Store of deployed code, ready to be sent: files in the data folder, one for each different code.

An instance gets the code of its revision, even if the source folder has changed since. The gateway holds no code in
memory, so a function without calls costs none.
"""

from __future__ import annotations

import contextlib
import json
import threading
from binascii import b2a_base64
from collections.abc import Collection
from pathlib import Path

from scheduler.definitions.source_folder import SourceCode, SourceError


class CodeStore:
    """A folder of one gateway process, made when first needed. Files from before are ignored."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, Path] = {}
        self._writing = threading.Lock()

    def keep(self, source: SourceCode) -> Path:
        """Write a source as `files` of docs/runtime-protocol.md, unless it is kept; returns the file. Blocks.

        Raises `SourceError` if it cannot be written.
        """
        digest = source.digest()
        with self._writing:  # otherwise two threads could write equal code into one file
            file = self._kept.get(digest)
            if file is None or not file.exists():  # the folder may have been cleared
                file = self._folder / digest
                try:
                    self._write(file, source)
                except OSError as error:
                    fault = f"cannot be kept in the data folder ({self._folder}): {error.strerror}"
                    raise SourceError(fault) from error
                self._kept[digest] = file
            return file

    def _write(self, file: Path, source: SourceCode) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        with fresh.open("wb") as stream:
            separator = b"["
            for name, data in source.files:
                stream.write(separator + b"[" + json.dumps(name).encode() + b', "')
                stream.write(b2a_base64(data, newline=False))
                stream.write(b'"]')
                separator = b", "
            stream.write(b"]" if source.files else b"[]")
        fresh.replace(file)

    def prune(self, used: Collection[Path]) -> None:
        """Remove all files but these. Blocks."""
        self._kept = {digest: file for digest, file in self._kept.items() if file in used}
        with contextlib.suppress(OSError):  # the next run removes the rest
            for file in self._folder.iterdir():
                if file.name not in self._kept:
                    file.unlink()
