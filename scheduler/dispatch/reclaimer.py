"""Reclaimer: drains instances so that waiting functions get memory, as `scheduler/dispatch/fair_share.py` decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from pool.instance import Instance
from pool.pool import Pool
from pool.states import LEAVING, PENDING, Reason, State
from scheduler.dispatch.evictor import Evictor
from scheduler.dispatch.fair_share import (
    CLAIM_AFTER_SECONDS,
    STAY_SECONDS,
    Holding,
    Party,
    ReclaimPlan,
    Snapshot,
    Unused,
    plan,
)
from scheduler.dispatch.function import Function, Revision, provisioned

PLAN_VALID_SECONDS = 0.025
"""Age up to which a plan is used again if nothing was started or removed. Every call asks for the plan."""

MAX_WAITING_FUNCTIONS = 32
"""Waiting functions that one plan considers, the longest waiting ones: a plan then takes 2 ms at most."""


class Reclaimer:
    """Drains instances of functions above their share, once others have waited too long for memory."""

    def __init__(
        self,
        pool: Pool,
        functions: Mapping[str, Function],
        hungry: Mapping[Revision, None],
        evictor: Evictor,
        wanted: Callable[[Revision], int],
    ) -> None:
        """`wanted` returns how many instances of a revision could start now if there were memory."""
        self.owed: Mapping[str, frozenset[str]] = {}
        """By function: instances, one of which is drained when a call on it ends. Nearly always empty."""
        self._pool = pool
        self._functions = functions
        self._hungry = hungry
        self._evictor = evictor
        self._wanted = wanted
        self._plan = ReclaimPlan()
        self._planned: tuple[float, ...] = ()

    def forget(self) -> None:
        """Discard the last plan."""
        self.owed, self._planned = {}, ()

    def in_order(self) -> Sequence[Revision]:
        """Return the waiting revisions in the order of service: claimers first, then the longest waiting."""
        places = {name: place for place, name in enumerate(self._current().claimers)}
        return sorted(self._hungry, key=lambda r: (places.get(r.name, len(places)), r.waits_since()))

    def drain(self) -> None:
        """Drain the instances that go at once, and remember those that go when a call on them ends."""
        current = self._current()
        for id in current.drained:
            self._give_up(self._pool.ledger.instances[id])
        self.owed = current.owed
        if current.drained:
            self._planned = ()

    def next_claim(self) -> float:
        """Return in how many seconds the next function may claim memory; infinity if none waits."""
        now = self._pool.clock.now()
        left = (f.waits_since() + CLAIM_AFTER_SECONDS - now for f in self._hungry)
        return min((seconds for seconds in left if seconds > 0), default=float("inf"))

    def collect(self, instance: Instance) -> None:
        """Drain an instance whose call ends, if its function owed memory and still does by a fresh plan."""
        if instance.id in self.owed.get(instance.function or "", ()) and instance.state is State.BUSY:
            self.owed = self._make_plan().owed
            if instance.id in self.owed.get(instance.function or "", ()):
                self._give_up(instance)

    def _give_up(self, instance: Instance) -> None:
        instance.taker = next(iter(self._plan.claimers), "")
        self._pool.drain(instance, Reason.FAIR_SHARE)
        function = self._functions.get(instance.function or "")
        if function is not None:
            function.memory_since = self._pool.clock.now()

    # -- the snapshot ---------------------------------------------------------------------------------------

    def _current(self) -> ReclaimPlan:
        """Return the last plan if it is still valid, else a fresh one."""
        ledger, now = self._pool.ledger, self._pool.clock.now()
        seen = (len(self._hungry), len(ledger.instances), ledger.memory_free, ledger.memory_stopping)
        if not self._planned or self._planned[1:] != seen or now - self._planned[0] >= PLAN_VALID_SECONDS:
            self._plan, self._planned = self._make_plan(), (now, *seen)
        return self._plan

    def _make_plan(self) -> ReclaimPlan:
        self._planned = ()
        return plan(self.snapshot())

    def snapshot(self) -> Snapshot:
        """Return the memory that each function holds and wants now."""
        ledger, now = self._pool.ledger, self._pool.clock.now()
        unused, nobodys = [], set[str]()  # what goes before anybody gives up memory counts for nobody
        for one in self._evictor.evictable():
            idle = one.instance
            seconds = now - idle.last_used
            unused.append(Unused(None if one.spare else idle.function, idle.memory, seconds))
            if one.spare or seconds >= STAY_SECONDS:
                nobodys.add(idle.id)
        weighed = heapq.nsmallest(MAX_WAITING_FUNCTIONS, self._hungry, key=Revision.waits_since)
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
                if instance.id not in nobodys:
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
        """Return the instances in use that a function can give up. Single-use ones count while they start: later
        they free their memory by themselves."""
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
