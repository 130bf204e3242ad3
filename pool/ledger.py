"""Ledger of the pool: every instance, its state, and the sums that limits are checked against. No I/O.

Instances change their state only here, and every sum is changed only here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from pool.host.uids import Uids
from pool.instance import Instance
from pool.observe.metrics import Metrics, label_of
from pool.states import LEAVING, PENDING, SERVING_STEPS, Reason, State, check
from pool.workload import Workload

GENERIC = "(prewarm)"
"""Key of instances without a function, where others have its name."""


NEVER = float("-inf")
"""Time of what has not happened."""


class LastStop(NamedTuple):
    """The latest removal of an instance of one function."""

    version: str
    reason: str
    at: float
    taker: str
    used: float = NEVER
    """When an instance that is gone last served a call."""
    clock: float = 0.0
    """Value of the eviction clock at that time."""


class Ledger:
    """All instances that count against limits: from their creation until their removal is confirmed."""

    def __init__(self, memory_budget: int) -> None:
        self.memory_budget = memory_budget
        """Bytes that all instances may declare together."""
        self.memory_declared = 0
        self.memory_stopping = 0
        """Part of `memory_declared` that is being removed."""
        self.pending = 0
        """Instances being started or specialised for a function, without slow ones."""
        self.starting = 0
        """Instances of any kind whose container is being started, without slow ones."""
        self.adopting = 0
        """Instances of any kind being adopted."""
        self.instances: dict[str, Instance] = {}
        self._of_function: dict[str, dict[str, Instance]] = defaultdict(dict)
        self._prewarmed: dict[str, dict[str, Instance]] = defaultdict(dict)
        self._tally: dict[str, Counter[State]] = defaultdict(Counter)
        """Instances of each function, counted by state."""
        self._private: set[str] = set()
        """Private functions of jobs in the tally."""
        self.removals: Counter[str] = Counter()
        self.last_stops: dict[str, LastStop] = {}
        """By function. It answers why no instance of it is left."""
        self.uids = Uids()
        """Uids of instances; each is held as long as its instance is here."""

    def add(self, instance: Instance) -> None:
        """Reserve the place, memory and uid of an instance that is STARTING or FOUND."""
        self.instances[instance.id] = instance
        if instance.uid is not None:
            self.uids.hold(instance.uid)
        self.memory_declared += instance.memory
        if instance.workload is not None:
            self._of_function[instance.workload.function][instance.id] = instance
        self._count(instance, +1)

    def enter(self, instance: Instance, state: State, now: float) -> None:
        """Move an instance to another state. Raises `IllegalTransition`, with nothing changed."""
        before = instance.state
        if (before, state) in SERVING_STEPS:
            tally = self._tally[instance.workload.function]  # type: ignore[union-attr]  # serving instances have one
            tally[before] -= 1
            tally[state] += 1
            instance.state, instance.state_since = state, now
            return
        check(before, state)
        self._count(instance, -1)
        instance.state = state
        instance.state_since = now
        if state is State.GONE:
            self._remove(instance)
        else:
            self._count(instance, +1)

    def give(self, instance: Instance, workload: Workload, now: float) -> None:
        """Give a prewarmed instance to a function: it enters SPECIALISING and declares the function's memory."""
        check(instance.state, State.SPECIALISING)
        self._count(instance, -1)
        instance.workload = workload
        self.memory_declared += workload.container.memory - instance.memory
        instance.memory = workload.container.memory
        instance.slow = False
        instance.state = State.SPECIALISING
        instance.state_since = now
        self._of_function[workload.function][instance.id] = instance
        self._count(instance, +1)

    def adopt(self, instance: Instance, workload: Workload | None, now: float) -> None:
        """Give a FOUND instance back to its function, or to none if it is generic: it enters ADOPTING."""
        check(instance.state, State.ADOPTING)
        self._count(instance, -1)
        instance.workload = workload
        instance.state = State.ADOPTING
        instance.state_since = now
        if workload is not None:
            self._of_function[workload.function][instance.id] = instance
        self._count(instance, +1)

    def note_slow(self, instance: Instance) -> None:
        """Note that an instance waits for its function's own program: starts of others do not wait for that."""
        self._count(instance, -1)
        instance.slow = True
        self._count(instance, +1)

    def stop(self, instance: Instance, reason: Reason, now: float) -> None:
        """Move an instance to STOPPING, for this reason unless it has one."""
        self.enter(instance, State.STOPPING, now)
        instance.reason = instance.reason or str(reason)
        workload = instance.workload
        if workload is not None:
            before = self.last_stops.get(workload.function)
            used, clock = (instance.last_used, instance.clock) if instance.served else (NEVER, 0.0)
            if before is not None:
                used, clock = max(used, before.used), max(clock, before.clock)
            stop = LastStop(workload.version, instance.reason, now, instance.taker, used, clock)
            self.last_stops[workload.function] = stop

    def _remove(self, instance: Instance) -> None:
        del self.instances[instance.id]
        if instance.uid is not None:
            self.uids.let_go(instance.uid)
        self.memory_declared -= instance.memory
        self.removals[instance.reason or "unknown"] += 1
        if instance.workload is not None:
            mine = self._of_function[instance.workload.function]
            mine.pop(instance.id, None)
            if not mine:
                del self._of_function[instance.workload.function]
                self._forget_private(instance.workload.function)

    def _forget_private(self, function: str) -> None:
        """Drop the tally of a private function without instances: every job has a function of its own."""
        if function in self._private:
            self._private.discard(function)
            del self._tally[function]
            self.last_stops.pop(function, None)

    def _count(self, instance: Instance, step: int) -> None:
        """Add an instance to every sum by state, or with `step` -1 take it off."""
        state = instance.state
        self._tally[instance.function or GENERIC][state] += step
        if instance.workload is not None and instance.workload.private:
            self._private.add(instance.workload.function)
        if state is State.STOPPING:
            self.memory_stopping += step * instance.memory
        elif state in PENDING and not instance.slow:
            self.starting += step * (state is State.STARTING)
            self.adopting += step * (state is State.ADOPTING)
            self.pending += step * (instance.workload is not None)
        elif state is State.PREWARMED:
            if step > 0:
                self._prewarmed[instance.image][instance.id] = instance
            else:
                del self._prewarmed[instance.image][instance.id]

    # -- questions ------------------------------------------------------------------------------------------

    def of(self, function: str) -> Iterable[Instance]:
        """Return the instances of a function, of all its versions, in every state."""
        mine = self._of_function.get(function)
        return mine.values() if mine else ()

    def count(self, function: str) -> int:
        """Return how many instances of a function count against its `max_instances`."""
        mine = self._of_function.get(function)
        return len(mine) if mine else 0

    def memory_of(self, function: str) -> int:
        """Return the bytes that a function's instances declare, without those being drained or removed."""
        return sum(i.memory for i in self.of(function) if i.state not in LEAVING)

    def prewarmed(self, image: str) -> list[Instance]:
        """Return the generic instances of an image that are ready, oldest first."""
        return list(self._prewarmed.get(image, {}).values())

    def refilling(self, image: str) -> int:
        """Return how many generic instances of an image are being started or adopted."""
        return sum(
            1
            for i in self.instances.values()
            if i.image == image and not i.workload and i.state in (State.STARTING, State.ADOPTING)
        )

    @property
    def memory_free(self) -> int:
        """Return how many bytes may be declared now."""
        return self.memory_budget - self.memory_declared

    def states(self, function: str | None) -> dict[str, int]:
        """Return how many instances of a function (None: generic ones) are in each state that has any."""
        tally = self._tally.get(function or GENERIC) or Counter()
        return {str(state): n for state in State if (n := tally.get(state, 0))}

    def export(self, metrics: Metrics) -> None:
        """Update the gauges. It is called when they are read, so that calls pay nothing for them."""
        metrics.instances.read = self._by_state
        for image, instances in self._prewarmed.items():
            metrics.prewarmed.labels(image).set(len(instances))
        metrics.memory_declared.set(self.memory_declared)
        metrics.memory_budget.set(self.memory_budget)

    def _by_state(self) -> Iterable[tuple[tuple[str, str], int]]:
        counts = Counter[tuple[str, str]]()
        for function, tally in self._tally.items():
            for state, count in tally.items():
                counts[label_of(function, function in self._private), state] += count
        return counts.items()

    def __repr__(self) -> str:
        by_state = Counter(str(i.state) for i in self.instances.values())
        shown = ", ".join(f"{n} {state}" for state, n in sorted(by_state.items())) or "empty"
        return f"<Ledger {shown}; {self.memory_declared >> 20} of {self.memory_budget >> 20} MiB declared>"
