"""Makes room in the memory budget, by evicting instances in the order of `scheduler/dispatch/eviction.py`."""

from __future__ import annotations

from collections.abc import Mapping

from pool.instance import Instance
from pool.pool import Pool
from pool.states import UNUSED, Reason, State
from scheduler.dispatch.eviction import (
    Candidate,
    KeepAlivePolicy,
    advanced,
    choose_victims,
    in_order,
    within_spare,
)
from scheduler.dispatch.fair_share import may_evict
from scheduler.dispatch.function import Function, Prewarm, Revision
from scheduler.dispatch.upkeep import provisioned


class Evictor:
    """Keeps the eviction order's clock, and evicts: only for want of memory, and only if that helps."""

    def __init__(
        self,
        pool: Pool,
        functions: Mapping[str, Function],
        prewarm: Mapping[str, Prewarm],
        policy: KeepAlivePolicy,
    ) -> None:
        self.policy = policy
        self.clock = 0.0
        """The priority of what was evicted last. Who is used from then on stands above it."""
        self._pool = pool
        self._functions = functions
        self._prewarm = prewarm

    def make_room(self, needed: int, spare: Instance | None = None, taker: Function | None = None) -> bool:
        """Whether `needed` bytes are free now. If not, enough is evicted so that they will be, where possible.

        `taker`: the function that needs them; None: nobody who would hold too much with them.
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
            self.clock = advanced(self.clock, idle, victims)
            for victim in victims:
                self._pool.remove(victim, Reason.EVICTED)
        return False

    def _within_reach(self, idle: list[Candidate], taker: Function, needed: int) -> list[Candidate]:
        """Leave out what was just used, by functions that hold less than the taker then would."""
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
        """Idle instances in order, as many of each function as it has beyond its `min_instances`."""
        ledger = self._pool.ledger
        idle = [
            Candidate(instance, max(1, revision.function.calls), self._cost(revision))
            for instance in ledger.instances.values()
            if instance.state in UNUSED and (revision := self._revision_of(instance))
        ]
        theirs = {function for one in idle if (function := self._functions.get(one.instance.function or ""))}
        spare = {function.name: self._spare(function) for function in theirs}
        return within_spare(in_order(idle, self.policy), spare)

    def _revision_of(self, instance: Instance) -> Revision | None:
        function = self._functions.get(instance.function or "")
        return function.revision_of(instance) if function is not None else None

    def _spare(self, function: Function) -> int:
        """Return how many instances a function has beyond its `min_instances`."""
        revisions = function.revisions.values()
        least = max(revision.workload.min_instances for revision in revisions)
        return sum(provisioned(revision, self._pool.ledger) for revision in revisions) - least

    def _cost(self, revision: Revision) -> float:
        """Return the seconds until there would be an instance again: specialised, where generic ones are kept."""
        workload = revision.workload
        specialised = workload.generic and workload.container.image in self._prewarm
        return revision.specialise_seconds if specialised else revision.start_seconds
