"""Removes instances that are dead or have lived long enough, and leftover containers; freezes idle instances."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from pool.backoff import Backoff, Retries
from pool.clock import Clock
from pool.engine.base import ContainerEvent, ContainerState, Engine, EngineDown, EngineError
from pool.engine.labels import GATEWAY_LABEL, KEPT_LABEL, instance_of, is_instance, is_kept
from pool.freezer import is_due
from pool.host.uids import uid_of
from pool.instance import Instance
from pool.pool import Pool
from pool.states import LIVE, UNUSED, Reason, State
from pool.supervise import Supervisor

log = logging.getLogger("hearth.reaper")

MEASURE_EVERY = 10.0
"""Seconds between two looks at the memory of an idle instance; it is also looked at just before it is frozen."""
MOST_AT_ONCE = 8
"""Instances that are measured or frozen in one look: each is a fraction of a millisecond in which no call moves."""
TICK = 0.25
"""Seconds between two looks at all instances."""
SILENCE = 0.3
"""Seconds without any connection after which a handler's instance is dead: a live shim dials again in less."""
RECONNECT = Backoff(0.2, 1.0)
"""Pauses until the engine's events are asked for again."""


def expired(instance: Instance, now: float, protected: bool) -> Reason | None:
    """Return why an instance has lived long enough, or None if it has not.

    `protected`: it is one of its function's `min_instances`, so it may be idle for as long as it likes.
    """
    workload = instance.workload
    if workload is None:
        return None
    if now - instance.created_at >= workload.max_age:
        return Reason.MAX_AGE
    if instance.state in UNUSED and not protected and now - instance.last_used >= workload.keep_alive:
        return Reason.IDLE
    return None


class Reaper:
    """The care of all instances of one gateway: regular looks at them, and the engine's events."""

    def __init__(
        self,
        pool: Pool,
        engine: Engine,
        clock: Clock,
        gateway_id: str,
        is_provisioned: Callable[[Instance], bool],
        engine_down: Callable[[], object] = lambda: None,
    ) -> None:
        self._pool = pool
        self._engine = engine
        self._clock = clock
        self._labels = {GATEWAY_LABEL: gateway_id}
        self._is_provisioned = is_provisioned
        self._engine_down = engine_down
        self._silent_since: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, supervisor: Supervisor) -> None:
        """Begin to look after the instances."""
        self._tasks = [
            supervisor.supervise("reaper", self._tick),
            supervisor.supervise("engine-events", self._listen),
        ]

    async def close(self) -> None:
        """Stop looking. Instances stay as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK)
            self.reap()

    def reap(self) -> None:
        """Look once at every instance. Remove, drain or freeze those whose time has come.

        While the engine does not answer, nothing expires, because nothing could be replaced.
        """
        engine_down = self._engine_down()
        now = self._clock.now()
        touched = 0
        silent: dict[str, float] = {}
        for instance in list(self._pool.ledger.instances.values()):
            if instance.state not in LIVE and instance.state is not State.PREWARMED:
                continue
            if instance.link is not None and not instance.link.alive:
                if now < instance.silent_until:
                    continue
                since = silent[instance.id] = self._silent_since.get(instance.id, now)
                if now - since >= SILENCE:
                    self._pool.remove(instance, Reason.DEAD)
                continue
            reason = expired(instance, now, self._is_provisioned(instance))
            if reason is not None and not engine_down:
                self._pool.drain(instance, reason)
            elif instance.state is State.IDLE and touched < MOST_AT_ONCE:
                touched += self._look_after(instance, now)
        self._silent_since = silent

    def _look_after(self, instance: Instance, now: float) -> bool:
        """Measure or freeze an idle instance if it is time, and return whether anything was done."""
        freeze = is_due(instance, now)
        if not freeze and now - instance.measured_at < MEASURE_EVERY:
            return False
        self._pool.measure(instance)
        if freeze:
            self._pool.freezer.freeze(instance)
        return True

    async def _listen(self) -> None:
        retries = Retries(RECONNECT)
        while True:
            fault: EngineError | None = None
            try:
                events = self._engine.events(self._labels)  # from now on: deaths while we look are among them
                await self.catch_up()
                async for event in events:
                    retries.succeeded()
                    self._take_note(event)
            except EngineError as error:
                fault = error
            pause = retries.failed()
            if fault is not None and not isinstance(fault, EngineDown):  # of that the guard has written
                log.warning("Cannot follow the engine's events; trying again in %.1f s: %s", pause, fault)
            await self._clock.sleep(pause)

    def _take_note(self, event: ContainerEvent) -> None:
        if event.action == "die":
            self._died(event.id)
        elif event.action == "create" and KEPT_LABEL not in event.labels:
            self._unless_known(event.id, event.labels)

    async def catch_up(self) -> None:
        """Remove leftover containers, and instances that died while nobody listened to events.

        Raises `EngineError` if the engine cannot list its containers.
        """
        ready = [  # now: what becomes ready while the engine answers may not be in its answer
            instance.container
            for instance in self._pool.ledger.instances.values()
            if (instance.state in LIVE or instance.state is State.PREWARMED) and instance.container
        ]
        known = set(self._pool.ledger.instances)
        containers = await self._engine.containers(self._labels)
        running = {c.id for c in containers if c.running}
        for container in ready:
            if container not in running:
                self._died(container)
        self._remove_unknown(containers, known)

    def _remove_unknown(self, containers: Iterable[ContainerState], known: set[str]) -> None:
        """Remove containers that are none of `known`, the instances at the time when the engine was asked."""
        for container in containers:
            if instance_of(container.id, container.labels) not in known and not is_kept(container):
                self._unless_known(container.id, container.labels)

    def _unless_known(self, container: str, labels: Mapping[str, str]) -> None:
        """Remove a leftover container: it was created after whoever wanted it had gone."""
        id = instance_of(container, labels)
        if id in self._pool.ledger.instances or not is_instance(labels):
            return
        log.warning("Removing leftover container %s", container[:12])
        stray = Instance(id, "", 0, None, self._clock.now(), State.FOUND)
        stray.container = container
        stray.uid = uid_of(labels)
        self._pool.find(stray)
        self._pool.remove(stray, Reason.ORPHANED)

    def _died(self, container: str) -> None:
        for instance in list(self._pool.ledger.instances.values()):
            if instance.container != container:
                continue
            # Its call may still read the answer of a container that ends with it, and then removes the instance.
            workload = instance.workload
            ends_its_call = workload is not None and workload.single_use and instance.in_use > 0
            # The end of a start is seen by the launcher.
            ready = instance.state in LIVE or instance.state in (State.PREWARMED, State.DRAINING)
            if ready and not ends_its_call:
                self._pool.remove(instance, Reason.DEAD)
