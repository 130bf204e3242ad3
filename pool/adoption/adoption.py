"""Adoption: decides by records which containers of an earlier gateway process are adopted.

Facts that a container reports count only together with its record: the code in it could report anything.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from pool.adoption.records import InstanceRecord, Records
from pool.clock import Clock
from pool.data_folder import DataFolder
from pool.engine.base import ContainerSpec, ContainerState, Engine
from pool.engine.labels import GATEWAY_LABEL, container_name, instance_of, is_kept, is_made_by_gateway
from pool.host.etc_files import EtcFiles
from pool.host.kept_calls import KeptCalls
from pool.host.uids import uid_of
from pool.instance import Instance
from pool.pool import Pool
from pool.states import Reason, State
from pool.workload import Workload

log = logging.getLogger("hearth.adoption")


class Adoption:
    """The instances that an earlier process left. It finds them once, and adopts or removes each of them later."""

    def __init__(
        self, engine: Engine, pool: Pool, records: Records, folder: DataFolder, clock: Clock
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._records = records
        self._folder = folder
        self._clock = clock
        self._candidates: dict[str, tuple[Instance, InstanceRecord]] = {}

    async def look(self) -> None:
        """Find the instances that an earlier process with this data folder left.

        All of them count in the pool from now on. Those that cannot be adopted are removed. The folder's lock is
        held, so no living gateway owns containers with its identity. Raises `EngineError`, with nothing done.
        """
        found = await self._engine.containers({GATEWAY_LABEL: self._folder.id})
        # One that was made to look into an image was left by a process that was killed: it has no record.
        containers = [c for c in found if is_made_by_gateway(c.labels) and not is_kept(c)]
        records = self._records.load()
        for container in containers:
            instance, record = self._found(container, records)
            self._pool.find(instance)
            if record is not None and adoptable(record, container):
                self._candidates[instance.id] = (instance, record)
            else:
                self._pool.remove(instance, Reason.ORPHANED)
        known = set(self._pool.ledger.instances)
        for id in set(records) - known:
            self._records.drop(id)
        kept = {instance_of(c.id, c.labels) for c in found if is_kept(c)}
        KeptCalls(self._folder.run).drop_all_but(known | kept)
        EtcFiles(self._folder.etc).drop_all_but(known | kept)
        self._folder.clear_own()
        if containers:
            log.info(
                "An earlier gateway has left %d containers; %d of them may be adopted",
                len(containers),
                len(self._candidates),
            )

    def _found(
        self, container: ContainerState, records: Mapping[str, InstanceRecord]
    ) -> tuple[Instance, InstanceRecord | None]:
        id = instance_of(container.id, container.labels)
        record = records.get(id)
        now = self._clock.now()
        instance = Instance(
            id,
            container.image,
            record.memory if record else 0,  # unknown; it is removed at once
            None,
            now,
            State.FOUND,
        )
        instance.container = container.id
        instance.uid = uid_of(container.labels)
        if record is not None:
            instance.born_generic = record.born_generic
            instance.created_at = now - max(0.0, self._clock.wall() - record.created_at)
            instance.served = record.served or 0
        return instance, record

    def expect(self, functions: Collection[str]) -> None:
        """Remove the found instances of all functions but these, which are declared."""
        for instance, record in list(self._candidates.values()):
            if record.function is not None and record.function not in functions:
                self._refuse(instance, Reason.REPLACED)

    def claim(self, workload: Workload) -> None:
        """Adopt the found instances of this revision, and remove those of the function's other revisions.

        Call it before the revision is deployed.
        """
        for instance, record in self._of(workload.function):
            shape = self._records.shape_of(workload.container, workload)
            reason = why_not(record, workload, shape)
            if reason is not None:
                self._refuse(instance, reason)
            else:
                self._take(instance, workload)

    def claim_generic(self, prototypes: Mapping[str, ContainerSpec]) -> None:
        """Adopt the generic instances of these containers, by image, and remove all other generic ones."""
        for instance, record in self._of(None):
            prototype = prototypes.get(instance.image)
            if prototype is None or record.shape != self._records.shape_of(prototype, None):
                self._refuse(instance, Reason.REPLACED)
            else:
                self._take(instance, None)

    def disown(self, function: str) -> None:
        """Remove the found instances of a function that could not be set up."""
        for instance, _ in self._of(function):
            self._refuse(instance, Reason.REPLACED)

    def _of(self, function: str | None) -> list[tuple[Instance, InstanceRecord]]:
        return [pair for pair in self._candidates.values() if pair[1].function == function]

    def _take(self, instance: Instance, workload: Workload | None) -> None:
        ledger = self._pool.ledger
        if ledger.memory_free + ledger.memory_stopping < 0:  # the budget is smaller than before
            self._refuse(instance, Reason.EVICTED)
            return
        del self._candidates[instance.id]
        if instance.state is State.FOUND:  # otherwise it is being removed
            self._pool.adopt(instance, workload)

    def _refuse(self, instance: Instance, reason: Reason) -> None:
        del self._candidates[instance.id]
        self._pool.remove(instance, reason)

    @property
    def under_way(self) -> bool:
        """Return whether instances are being adopted."""
        return self._pool.ledger.adopting > 0


def why_not(record: InstanceRecord, workload: Workload, shape: str) -> Reason | None:
    """Return why an instance is not adopted for this revision, or None if it is."""
    if record.version != workload.version or record.shape != shape:
        return Reason.REPLACED
    if workload.max_invocations is not None and record.served is None:
        return Reason.MAX_INVOCATIONS  # the number of served calls is not known
    return None


def adoptable(record: InstanceRecord, container: ContainerState) -> bool:
    """Return whether a container matches its record, was ready, and runs."""
    return (
        record.ready
        and container.running
        and container.image == record.image
        and container.name == container_name(record.id)
    )
