"""Has memory given up for those who wait for it: carries out what `scheduler/dispatch/fair_share.py` decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from pool.instance import Instance
from pool.pool import Pool
from pool.states import LEAVING, PENDING, Reason, State
from scheduler.dispatch.evictor import Evictor
from scheduler.dispatch.fair_share import (
    MEMORY_PATIENCE_SECONDS,
    STAY_SECONDS,
    Holding,
    Party,
    ReclaimPlan,
    Snapshot,
    Unused,
    plan,
)
from scheduler.dispatch.function import Function, Revision
from scheduler.dispatch.upkeep import provisioned

PLAN_SECONDS = 0.025
"""How long a plan is followed while nothing is started or removed: it is looked at with every call."""

MOST_WEIGHED = 32
"""Waiting functions without an instance that a plan knows of, those longest first: a plan then takes 2 ms at most."""


class Reclaimer:
    """Drains instances of functions that hold more than their share, once others have waited too long for memory."""

    def __init__(
        self,
        pool: Pool,
        functions: Mapping[str, Function],
        hungry: Mapping[Revision, None],
        evictor: Evictor,
        wanted: Callable[[Revision], int],
    ) -> None:
        """`wanted`: how many instances of a revision could be started now if there were memory."""
        self.owed: Mapping[str, frozenset[str]] = {}
        """By function: instances of which one is given up when a call on it ends. Empty nearly always."""
        self._pool = pool
        self._functions = functions
        self._hungry = hungry
        self._evictor = evictor
        self._wanted = wanted
        self._plan = ReclaimPlan()
        self._planned: tuple[float, ...] = ()

    def forget(self) -> None:
        """Follow the last plan no more."""
        self.owed, self._planned = {}, ()

    def in_order(self) -> Sequence[Revision]:
        """Return who waits, first who is served first: claimers, then who has waited longest."""
        places = {name: place for place, name in enumerate(self._current().claimers)}
        return sorted(self._hungry, key=lambda r: (places.get(r.name, len(places)), r.waits_since()))

    def drain(self) -> None:
        """Drain what goes at once, and note what goes when its call ends."""
        current = self._current()
        for id in current.drained:
            self._give_up(self._pool.ledger.instances[id])
        self.owed = current.owed
        if current.drained:
            self._planned = ()

    def next_claim(self) -> float:
        """Return in how many seconds the next function will have waited long enough to claim; infinity if none."""
        now = self._pool.clock.now()
        left = (f.waits_since() + MEMORY_PATIENCE_SECONDS - now for f in self._hungry)
        return min((seconds for seconds in left if seconds > 0), default=float("inf"))

    def collect(self, instance: Instance) -> None:
        """A call on an instance ends: drain it if its function owes memory, and still does."""
        if instance.id in self.owed.get(instance.function or "", ()) and instance.state is State.BUSY:
            self.owed = self._make_plan().owed
            if instance.id in self.owed.get(instance.function or "", ()):
                self._give_up(instance)

    def _give_up(self, instance: Instance) -> None:
        self._pool.drain(instance, Reason.FAIR_SHARE)
        function = self._functions.get(instance.function or "")
        if function is not None:
            function.memory_since = self._pool.clock.now()

    # -- the snapshot ---------------------------------------------------------------------------------------

    def _current(self) -> ReclaimPlan:
        """Return the plan for now; the last one as long as nothing of weight has changed."""
        ledger, now = self._pool.ledger, self._pool.clock.now()
        seen = (len(self._hungry), len(ledger.instances), ledger.memory_free, ledger.memory_stopping)
        if not self._planned or self._planned[1:] != seen or now - self._planned[0] >= PLAN_SECONDS:
            self._plan, self._planned = self._make_plan(), (now, *seen)
        return self._plan

    def _make_plan(self) -> ReclaimPlan:
        self._planned = ()
        return plan(self.snapshot())

    def snapshot(self) -> Snapshot:
        """Return who holds and wants how much now."""
        ledger, now = self._pool.ledger, self._pool.clock.now()
        idle = [one.instance for one in self._evictor.evictable()]
        unused = [Unused(i.function, i.memory, now - i.last_used) for i in idle]
        long_idle = {i.id for i in idle if now - i.last_used >= STAY_SECONDS}
        weighed = heapq.nsmallest(MOST_WEIGHED, self._hungry, key=Revision.waits_since)
        mine: dict[str, list[Instance]] = {revision.name: [] for revision in weighed}
        coming = 0
        for instance in ledger.instances.values():
            workload = instance.workload
            if instance.state in LEAVING:
                coming += instance.memory
            elif instance.state is State.PREWARMED:
                unused.append(Unused(None, instance.memory, 0.0))
            elif workload is not None and workload.function in self._functions:
                if instance.state is State.BUSY and workload.single_use:
                    coming += instance.memory
                if instance.id not in long_idle:
                    mine.setdefault(workload.function, []).append(instance)
        parties = [self._party(self._functions[name], instances, now) for name, instances in mine.items()]
        return Snapshot(ledger.memory_budget, ledger.memory_free, coming, unused, parties)

    def _party(self, function: Function, instances: list[Instance], now: float) -> Party:
        revision = function.first_in_need()
        workload = revision.workload
        memory = workload.container.memory
        wanted = self._wanted(revision) if revision.waiting else 0
        return Party(
            name=function.name,
            instance=memory,
            held=sum(instance.memory for instance in instances),
            promised=workload.min_instances * memory,
            wanted=wanted * memory,
            waited=now - revision.waits_since() if revision.waiting else 0.0,
            may_claim=wanted > 0 and now >= revision.not_before,
            holdings=self._holdings(revision, instances, now),
        )

    def _holdings(self, revision: Revision, instances: list[Instance], now: float) -> list[Holding]:
        """What is in use and can be given up. Of single use only what is starting: the rest goes by itself."""
        workload = revision.workload
        in_use = [i for i in instances if i.state in (State.STARTING, State.SPECIALISING)]
        if workload.single_use:
            del in_use[max(0, provisioned(revision, self._pool.ledger) - workload.min_instances) :]
        else:
            in_use += [i for i in instances if i.state is State.BUSY]
        return [
            Holding(
                id=instance.id,
                memory=instance.memory,
                calls=instance.in_use,
                served=now - instance.ready_at if instance.ready_at is not None else 0.0,
                at_once=instance.state in PENDING or workload.concurrency > 1,
            )
            for instance in in_use
        ]
