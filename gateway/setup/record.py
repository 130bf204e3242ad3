"""The record of what setup has brought to this machine. `hearth setup --remove` takes away exactly that."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MACHINE_RECORD = Path("/var/lib/hearth-setup.json")
"""The record of root. It lies beside the data folder of the service, which may be removed on its own."""


class RecordError(Exception):
    """The record cannot be read or written. The message says why, and what to do."""


def default_place() -> Path:
    """Return where this user's record lies: XDG_STATE_HOME if that is set, else /var/lib for root."""
    state = os.environ.get("XDG_STATE_HOME")
    if os.geteuid() == 0 and not state:
        return MACHINE_RECORD
    return Path(state or Path.home() / ".local" / "state") / "hearth" / "setup.json"


def digest(content: bytes) -> str:
    """Return a digest that tells contents of files apart."""
    return hashlib.sha256(content).hexdigest()[:32]


@dataclass
class SetupRecord:
    """Everything that setup has brought and nobody has removed yet. Every change is on disk at once."""

    place: Path
    packages: list[str] = field(default_factory=list)
    """Debian packages that were not installed before, in the order in which they came."""
    images: dict[str, list[str]] = field(default_factory=dict)
    """By the engine's address: tags of images that were built or pulled there."""
    files: dict[str, str] = field(default_factory=dict)
    """By path: digest of the text that was written. A file with another text is somebody else's by now."""
    services: list[str] = field(default_factory=list)
    """Units of systemd that were enabled."""

    @classmethod
    def load(cls, place: Path | None = None) -> SetupRecord:
        """Return the record at `place`, by default this user's, empty if there is none. Raises `RecordError`."""
        place = place or default_place()
        try:
            known: dict[str, Any] = json.loads(place.read_text())
            record = cls(place, **{name: known[name] for name in cls._kept()})
            for name in cls._kept():
                if type(getattr(record, name)) is not type(getattr(cls(place), name)):
                    raise TypeError(f"{name} is of another kind")
            return record
        except FileNotFoundError:
            return cls(place)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RecordError(
                f"cannot read {place}, the record of what setup has brought: {error}; "
                "mend it, or remove it: then setup forgets what it brought"
            ) from error

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to take away."""
        return not (self.packages or any(self.images.values()) or self.files or self.services)

    def add_packages(self, names: list[str]) -> None:
        """Note that packages are ours. Raises `RecordError`."""
        self.packages.extend(name for name in names if name not in self.packages)
        self.save()

    def add_service(self, name: str) -> None:
        """Note that we enabled a service. Raises `RecordError`."""
        if name not in self.services:
            self.services.append(name)
            self.save()

    def add_image(self, engine: str, tag: str) -> None:
        """Note that an image of the engine at this address is ours. Raises `RecordError`."""
        if tag not in self.images.get(engine, []):
            self.images.setdefault(engine, []).append(tag)
            self.save()

    def write_file(self, path: Path, text: str) -> None:
        """Write a file of ours. Raises `RecordError` or `OSError`."""
        self.files[str(path)] = digest(text.encode())
        self.save()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def forget_file(self, path: Path) -> None:
        """Note that a file of ours is gone. Raises `RecordError`."""
        del self.files[str(path)]
        self.save()

    def is_ours(self, path: str) -> bool:
        """Return whether a file still has the text that we wrote."""
        try:
            return digest(Path(path).read_bytes()) == self.files.get(path)
        except OSError:
            return False

    def save(self) -> None:
        """Write the record, or remove it if it is empty. Raises `RecordError`."""
        try:
            if self.empty:
                self.place.unlink(missing_ok=True)
                return
            self.place.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.place.with_suffix(".new")
            fresh.write_text(
                json.dumps({name: getattr(self, name) for name in self._kept()}, indent=1) + "\n"
            )
            fresh.replace(self.place)
        except OSError as error:
            raise RecordError(f"cannot write {self.place}: {error.strerror}") from error

    @classmethod
    def _kept(cls) -> list[str]:
        return [one.name for one in dataclasses.fields(cls) if one.name != "place"]
