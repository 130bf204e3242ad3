"""Evictor: makes room in the memory budget, in the order of `scheduler/dispatch/eviction.py`."""

from __future__ import annotations

from collections.abc import Mapping

from pool.instance import Instance
from pool.pool import Pool
from pool.states import UNUSED, Reason, State
from scheduler.dispatch.eviction import (
    Candidate,
    KeepAlivePolicy,
    advance_clock,
    choose_victims,
    eviction_order,
    limit_to_spare,
)
from scheduler.dispatch.fair_share import may_evict
from scheduler.dispatch.function import Function, Prewarm, Revision
from scheduler.dispatch.upkeep import provisioned


class Evictor:
    """Evicts instances when memory is short and evicting helps. It keeps the clock of the eviction order."""

    def __init__(
        self,
        pool: Pool,
        functions: Mapping[str, Function],
        prewarm: Mapping[str, Prewarm],
        policy: KeepAlivePolicy,
    ) -> None:
        self.policy = policy
        self.clock = 0.0
        """Priority of the last evicted instance. Every instance that is used later ranks above it."""
        self._pool = pool
        self._functions = functions
        self._prewarm = prewarm

    def make_room(self, needed: int, spare: Instance | None = None, taker: Function | None = None) -> bool:
        """Return whether `needed` bytes are free now. If not, evict enough instances, if that is possible.

        `spare` is not evicted. `taker` is the function that needs the memory; None if no fairness applies.
        """
        ledger = self._pool.ledger
        if needed <= ledger.memory_free:
            return True
        missing = needed - ledger.memory_free - ledger.memory_stopping
        if missing > 0:
            idle = self.evictable()
            if taker is not None:
                idle = self._within_reach(idle, taker, needed)
            generic = [i for i in ledger.instances.values() if i.state is State.PREWARMED and i is not spare]
            victims = choose_victims(missing, idle, generic) or ()
            self.clock = advance_clock(self.clock, idle, victims)
            for victim in victims:
                victim.taker = taker.name if taker is not None else ""
                self._pool.remove(victim, Reason.EVICTED)
        return False

    def _within_reach(self, idle: list[Candidate], taker: Function, needed: int) -> list[Candidate]:
        """Return the candidates without those just used by functions that hold less than the taker would."""
        ledger, now = self._pool.ledger, self._pool.clock.now()
        mine = ledger.memory_of(taker.name)
        return [
            one
            for one in idle
            if one.instance.function == taker.name
            or may_evict(
                now - one.instance.last_used, ledger.memory_of(one.instance.function or ""), mine, needed
            )
        ]

    def evictable(self) -> list[Candidate]:
        """Return the idle instances that may go, in order of eviction, without each function's `min_instances`."""
        ledger = self._pool.ledger
        idle = [
            Candidate(instance, max(1, revision.function.calls), self._cost(revision))
            for instance in ledger.instances.values()
            if instance.state in UNUSED and (revision := self._revision_of(instance))
        ]
        theirs = {function for one in idle if (function := self._functions.get(one.instance.function or ""))}
        spare = {function.name: self._spare(function) for function in theirs}
        return limit_to_spare(eviction_order(idle, self.policy), spare)

    def _revision_of(self, instance: Instance) -> Revision | None:
        function = self._functions.get(instance.function or "")
        return function.revision_of(instance) if function is not None else None

    def _spare(self, function: Function) -> int:
        """Return how many instances a function has beyond its `min_instances`."""
        revisions = function.revisions.values()
        least = max(revision.workload.min_instances for revision in revisions)
        return sum(provisioned(revision, self._pool.ledger) for revision in revisions) - least

    def _cost(self, revision: Revision) -> float:
        """Return the seconds to get an instance again: specialised from a prewarmed one if there is a pool."""
        workload = revision.workload
        specialised = workload.generic and workload.container.image in self._prewarm
        return revision.specialise_seconds if specialised else revision.start_seconds
