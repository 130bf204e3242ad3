"""Source folder of a function: reading its files, checking them, and their digest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scheduler.definitions.language.units import format_size

MAX_SOURCE_BYTES = 32 * 2**20
"""All files of a source folder together. The gateway holds them in memory while it reads the folder."""
MAX_FILES = 10_000
"""Files of one source folder; each is read at every load."""
SKIPPED = frozenset({"__pycache__", ".git", ".hearth"})
"""Names of files and folders that do not belong to the code; `*.pyc` does not either."""
REQUIREMENTS = "requirements.txt"


class SourceError(Exception):
    """A source folder cannot be a function's code; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class SourceCode:
    """The files of one source folder: relative names with `/`, and contents, sorted by name."""

    files: tuple[tuple[str, bytes], ...]

    @property
    def requirements(self) -> bytes | None:
        """Return the content of requirements.txt, or None if there is none."""
        return dict(self.files).get(REQUIREMENTS)

    def digest(self) -> str:
        """Return the SHA-256, in hex, of names and contents. Times, modes and owners do not count."""
        return digest_of(part for name, data in self.files for part in (name.encode(), data))


def collect(source: Path) -> SourceCode:
    """Read a source folder, without the names in `SKIPPED`.

    A link to a file inside the folder is read as that file. Raises `SourceError` for any other link, for a pipe or a
    device, for more than `MAX_SOURCE_BYTES` or `MAX_FILES`, and for a file that cannot be read.
    """
    files = []
    room = MAX_SOURCE_BYTES
    for name, path in _walk(source):
        try:
            with path.open("rb") as stream:
                data = stream.read(room + 1)
        except OSError as error:
            raise SourceError(f"{name} cannot be read: {error.strerror}") from error
        room -= len(data)
        if room < 0:
            raise _too_large()
        files.append((name, data))
    return SourceCode(tuple(files))


def check(source: Path) -> None:
    """Raise the `SourceError` that `collect` would raise, if it is visible without reading the files."""
    room = MAX_SOURCE_BYTES
    for name, path in _walk(source):
        try:
            room -= path.stat().st_size
        except OSError as error:
            raise SourceError(f"{name} cannot be read: {error.strerror}") from error
        if room < 0:
            raise _too_large()


def digest_of(parts: Iterable[bytes]) -> str:
    """Return the SHA-256, in hex, of these parts one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        # With the lengths, ("ab", "c") and ("a", "bc") have different digests.
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


def _walk(source: Path) -> Iterator[tuple[str, Path]]:
    """Return names and real paths of all files, sorted by name."""
    try:
        root = Path(os.path.realpath(source, strict=True))
        found = sorted(_files(root, root, ""))
    except OSError as error:
        raise SourceError(f"{error.filename} cannot be read: {error.strerror}") from error
    if len(found) > MAX_FILES:
        raise SourceError(
            f"has {len(found)} files, more than {MAX_FILES}; remove files that the code does not need"
        )
    return iter(found)


def _files(root: Path, folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in SKIPPED or entry.name.endswith(".pyc"):
                continue
            name = prefix + entry.name
            if not _is_unicode(name):
                raise SourceError(f"{name!a} is not a name in UTF-8; rename it")
            path = folder / entry.name
            if entry.is_symlink():
                path = _target(root, path, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield name, path
            elif not stat.S_ISDIR(mode):
                raise SourceError(f"{name} is neither a file nor a folder; remove it")
            elif entry.is_symlink():
                raise SourceError(f"{name} is a link to a folder; replace it by a copy")
            else:
                yield from _files(root, path, name + "/")


def _target(root: Path, link: Path, name: str) -> Path:
    try:
        target = Path(os.path.realpath(link, strict=True))
    except OSError:
        raise SourceError(f"{name} is a link that leads nowhere; remove it") from None
    if not target.is_relative_to(root):
        raise SourceError(f"{name} is a link that leaves the folder; replace it by a copy")
    return target


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_large() -> SourceError:
    advice = "remove files that the code does not need"
    return SourceError(f"is larger than {format_size(MAX_SOURCE_BYTES)}, the largest size allowed; {advice}")
