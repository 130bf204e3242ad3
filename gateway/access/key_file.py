"""Keys of a data folder: a JSON file that only its owner can read, replaced whole at each change."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.access.keys import HASHED, Key, check_name, format_moment, parse_moment, parse_quota, same
from gateway.access.scopes import parse_scopes

NAME = "keys.json"
FEWEST_CHARACTERS = 4
"""Characters of the shortest id that stands for a key, as for other ids."""


class KeyFileFault(Exception):
    """The file is not a list of keys, or cannot be read; the message says which file, where, and what to do."""


class KeyFile:
    """Keys in a data folder. Every method but `signature` raises `KeyFileFault`, and OSError where writing fails."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def signature(self) -> tuple[int, int, int] | None:
        """Return what differs after each change, or None if there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def changed_since(self, moment_ns: int) -> bool:
        """Return whether the file was written after a moment, Unix nanoseconds."""
        signature = self.signature()
        return signature is not None and signature[1] > moment_ns

    def load(self) -> list[Key]:
        """Return the keys; an empty list if there is no file."""
        try:
            content = json.loads(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise KeyFileFault(f"{self.path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError):
            raise self._fault("it is not JSON") from None
        if not isinstance(content, dict) or content.get("version") != 1:
            raise self._fault("its version is not 1")
        shown = content.get("keys")
        if not isinstance(shown, list):
            raise self._fault("it has no list `keys`")
        keys = []
        for number, entry in enumerate(shown, 1):
            try:
                keys.append(_from_json(entry))
            except (ValueError, TypeError, KeyError):
                raise self._fault(f"key {number} is invalid") from None
        if twice := same(keys):
            raise self._fault(f"two keys have the same {twice[0]}")
        return keys

    def add(self, key: Key) -> None:
        """Keep one more key; make the folder if it is missing. Raises ValueError if its name or id is taken."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            keys = [*self.load(), key]
            if twice := same(keys):
                raise ValueError(
                    f"a key with this {twice[0]} exists already; `hearth keys list` shows it, and "
                    "`hearth keys revoke` revokes it"
                )
            self._write(keys)

    def revoke(self, id_or_name: str) -> Key:
        """Remove a key and return it. The first 4 or more characters of an id do. Raises ValueError if none fits."""
        with self._locked():
            keys = self.load()
            key = _find(keys, id_or_name)
            self._write([other for other in keys if other is not key])
            return key

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from changing the file within this block."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, keys: list[Key]) -> None:
        """Replace the file, whole at once and on disk: no revoked key comes back after a power failure."""
        text = json.dumps({"version": 1, "keys": [_to_json(key) for key in keys]}, indent=1) + "\n"
        fresh = self.path.with_name(f"{NAME}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _fault(self, what: str) -> KeyFileFault:
        return KeyFileFault(
            f"{self.path}: {what}; restore it, or remove it and create new keys with `hearth keys create`"
        )


def _to_json(key: Key) -> dict[str, Any]:
    quota = key.quota
    shown = {
        "name": key.name,
        "hash": key.hashed,
        "scopes": list(key.scopes.words),
        "rate": str(quota.rate) if quota.rate else None,
        "burst": quota.burst,
        "concurrency": quota.concurrency,
        "expires": None if key.expires is None else format_moment(key.expires),
        "created": None if key.created is None else format_moment(key.created),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _find(keys: list[Key], id_or_name: str) -> Key:
    """Return the key with this id or name, or the only one whose id begins so. Raises ValueError."""
    found = [key for key in keys if id_or_name in (key.id, key.name)]
    if not found and len(id_or_name) >= FEWEST_CHARACTERS:
        found = [key for key in keys if key.id.startswith(id_or_name)]
    if not found:
        raise ValueError("no key has this id or name; `hearth keys list` shows them")
    if len(found) > 1:
        shown = ", ".join(f"{key.id} ({key.name})" for key in found[:5])
        raise ValueError(f"several keys have ids that begin so; give more of it: {shown}")
    return found[0]


def _from_json(entry: Any) -> Key:
    unknown = set(entry) - {"name", "hash", "scopes", "rate", "burst", "concurrency", "expires", "created"}
    match = HASHED.fullmatch(entry["hash"])
    if unknown or match is None or not isinstance(entry["scopes"], list):
        raise ValueError
    check_name(entry["name"])
    numbers = (entry.get(name) for name in ("burst", "concurrency"))
    return Key(
        id=match[1],
        digest=bytes.fromhex(match[2]),
        name=entry["name"],
        scopes=parse_scopes(entry["scopes"]),
        quota=parse_quota(entry.get("rate"), *(None if n is None else str(n) for n in numbers)),
        expires=parse_moment(entry["expires"]) if "expires" in entry else None,
        created=parse_moment(entry["created"]) if "created" in entry else None,
    )
