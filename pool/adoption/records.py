"""Records of instances in the data folder, by which the next gateway process adopts them.

There is one file for each instance. It is written before code is sent to the instance, and removed before the
instance is. An instance without a record is not adopted. A file is replaced by a rename, so it is whole or absent
whenever this process is killed. Nothing waits for the disk (fsync): a crash of the machine ends the containers too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pool.clock import Clock
from pool.engine.base import ContainerSpec
from pool.engine.container_config import container_config
from pool.host.uids import as_before_uids
from pool.instance import Instance
from pool.workload import Workload

log = logging.getLogger("hearth.records")

FORMAT = 1
"""Number of the format. Raise it when a field changes its meaning, or when the launcher adds something else to a
container. Records of another format are ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """The record of one instance."""

    id: str
    image: str
    memory: int
    """Declared memory, bytes."""
    shape: str
    """Digest of its container's configuration and of the order that it was sent, see `shape_of`."""
    function: str | None
    """None if it is generic: no code was ever sent to it."""
    version: str | None
    born_generic: bool
    created_at: float
    """Unix time."""
    ready: bool
    """False until it can serve. An instance found so was not finished."""
    served: int | None = None
    """Served calls, written when the gateway leaves it; None if that gateway was killed."""
    format: int = FORMAT


class Records:
    """The records of one data folder."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._written: dict[str, InstanceRecord] = {}

    def note(
        self, instance: Instance, prototype: ContainerSpec, ready: bool, served: int | None = None
    ) -> None:
        """Write the record of an instance. A single-use instance is never adopted and gets none.

        A failure to write is logged, and the instance has no record then. Raises OSError if an older record cannot be
        removed: nothing may be sent to an instance whose record names no function, or another one.
        """
        workload = instance.workload
        if workload is not None and workload.single_use:
            self.drop(instance.id)
            return
        before = self._written.get(instance.id)
        self._write(
            InstanceRecord(
                id=instance.id,
                image=instance.image,
                memory=instance.memory,
                shape=self.shape_of(prototype, workload),
                function=workload.function if workload else None,
                version=workload.version if workload else None,
                born_generic=instance.born_generic,
                created_at=before.created_at if before else self._clock.wall(),
                ready=ready,
                served=served,
            )
        )

    def update(self, id: str, ready: bool, served: int | None = None) -> None:
        """Change these fields of a record, if there is one. Raises OSError as `note` does."""
        before = self._written.get(id)
        if before is not None and (before.ready, before.served) != (ready, served):
            self._write(replace(before, ready=ready, served=served))

    def _write(self, record: InstanceRecord) -> None:
        fresh = self._folder / f"{record.id}.new"
        try:
            # Without parents: a data folder that was moved away must not come back.
            self._folder.mkdir(exist_ok=True)
            fresh.write_text(json.dumps(asdict(record)))
            fresh.replace(self._file(record.id))
        except OSError as error:
            log.warning(
                "Cannot write the record of instance %s, so a restart will not adopt it: %s", record.id, error
            )
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            self.drop(record.id)
        else:
            self._written[record.id] = record

    def drop(self, id: str) -> None:
        """Remove a record, so that its instance is not adopted. Harmless without one. Raises OSError."""
        self._file(id).unlink(missing_ok=True)
        self._written.pop(id, None)

    def has(self, id: str) -> bool:
        """Return whether an instance has a record, so that it could be adopted."""
        return id in self._written

    def load(self) -> dict[str, InstanceRecord]:
        """Return all readable records by instance. Remove files that are unreadable or half written."""
        found: dict[str, InstanceRecord] = {}
        for file in self._folder.glob("*") if self._folder.is_dir() else ():
            record = read(file)
            if record is None:
                with contextlib.suppress(OSError):
                    file.unlink()
            else:
                found[record.id] = record
        self._written = dict(found)
        return found

    @staticmethod
    def shape_of(prototype: ContainerSpec, workload: Workload | None) -> str:
        """Return the digest of an instance's container configuration and of the order that a handler is sent.

        The whole configuration counts, because a new release may harden it more.
        """
        config = container_config(as_before_uids(prototype))
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        if workload is not None:
            digest.update(workload.version.encode())  # it covers the code
            digest.update(workload.order.head if workload.order is not None else b"")
        return digest.hexdigest()

    def _file(self, id: str) -> Path:
        return self._folder / f"{id}.json"


def read(file: Path) -> InstanceRecord | None:
    """Return the record in a file, or None if there is none or it has another format."""
    try:
        record = InstanceRecord(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return record if record.format == FORMAT and file.name == f"{record.id}.json" else None


def left_warm(folder: Path) -> set[str]:
    """Return the ids of instances that a gateway left on purpose, from the folder of its records."""
    found = (read(file) for file in folder.glob("*.json"))
    return {
        record.id for record in found if record is not None and record.ready and record.served is not None
    }
