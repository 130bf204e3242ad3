"""What instances have become, in the data folder: the next gateway process adopts by it.

One file an instance, written before code is sent to it and removed before it is. An instance without one is
adopted by nobody. A file is replaced by a rename, so that it is there whole or not at all whenever this process
is killed. Nothing waits for the disk (fsync): what ends the machine ends the containers as well.
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
"""Raised when a record means something else, or when the launcher adds something else to a container: records of
another format count for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One instance."""

    id: str
    image: str
    memory: int
    """Declared, bytes."""
    shape: str
    """Digest of what its container was made from, and of what it was sent: `shape_of`."""
    function: str | None
    """None: generic, no code was ever sent."""
    version: str | None
    born_generic: bool
    created_at: float
    """Unix time."""
    ready: bool
    """False until it can serve: what is found so was half made."""
    served: int | None = None
    """Calls that it has served, written when the gateway lets go of it; None: that gateway was killed."""
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
        """Write what an instance is now; one that serves a single call is not for adoption and gets no record.

        A failure to write is logged, and the instance is left without a record. Raises OSError if an older one of
        it cannot be taken away: nothing may be sent to an instance that a record gives to nobody, or to another.
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
        """Change these of a record, if there is one. Raises as `note` does."""
        before = self._written.get(id)
        if before is not None and (before.ready, before.served) != (ready, served):
            self._write(replace(before, ready=ready, served=served))

    def _write(self, record: InstanceRecord) -> None:
        fresh = self._folder / f"{record.id}.new"
        try:
            self._folder.mkdir(exist_ok=True)  # not the data folder: one that was moved away comes back
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
        """Remove a record: nobody adopts the instance any more. Raises OSError; that there is none is fine."""
        self._file(id).unlink(missing_ok=True)
        self._written.pop(id, None)

    def has(self, id: str) -> bool:
        """Whether an instance has a record, so that it could be adopted."""
        return id in self._written

    def load(self) -> dict[str, InstanceRecord]:
        """Every record that can be read, by instance; what cannot be read, or was half written, is removed."""
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
        """Digest of what an instance is made of: its container's whole configuration (a new release may harden it
        more), and of the order that a handler is sent."""
        config = container_config(as_before_uids(prototype))
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        if workload is not None:
            digest.update(workload.version.encode())  # it covers the code
            digest.update(workload.order.head if workload.order is not None else b"")
        return digest.hexdigest()

    def _file(self, id: str) -> Path:
        return self._folder / f"{id}.json"


def read(file: Path) -> InstanceRecord | None:
    """A record from its file; None for what is none, or is of another format."""
    try:
        record = InstanceRecord(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return record if record.format == FORMAT and file.name == f"{record.id}.json" else None


def left_warm(folder: Path) -> set[str]:
    """Instances that a gateway has left on purpose, by the folder of its records: their ids."""
    found = (read(file) for file in folder.glob("*.json"))
    return {
        record.id for record in found if record is not None and record.ready and record.served is not None
    }
