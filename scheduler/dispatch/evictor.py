"""Evictor: makes room in the memory budget, in the order of `scheduler/dispatch/eviction.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pool.instance import Instance
from pool.pool import Pool
from pool.states import UNUSED, Reason, State
from scheduler.dispatch.eviction import (
    Candidate,
    KeepAlivePolicy,
    advance_clock,
    choose_victims,
    eviction_order,
    limit_to_surplus,
)
from scheduler.dispatch.fair_share import may_evict
from scheduler.dispatch.function import Function, Prewarm, Revision, provisioned, seconds_to_start
from scheduler.dispatch.spares.keeper import SpareKeeper


class Evictor:
    """Evicts instances when memory is short and evicting helps. It keeps the clock of the eviction order."""

    def __init__(
        self,
        pool: Pool,
        functions: Mapping[str, Function],
        prewarm: dict[str, Prewarm],
        policy: KeepAlivePolicy,
        spares: SpareKeeper,
    ) -> None:
        self.policy = policy
        self.prewarm = prewarm
        """Prewarm pools by image."""
        self.spares = spares
        self.clock = 0.0
        """Priority of the last evicted instance. Every instance that is used later ranks above it."""
        self._pool = pool
        self._functions = functions

    def make_room(self, needed: int, but: Instance | None = None, taker: Function | None = None) -> bool:
        """Return whether `needed` bytes are free now. If not, evict enough instances, if that is possible.

        `but` is not evicted. `taker` is the function that needs the memory; None if no fairness applies.
        """
        ledger = self._pool.ledger
        if needed <= ledger.memory_free:
            return True
        missing = needed - ledger.memory_free - ledger.memory_stopping
        if missing > 0:
            idle = self.evictable()
            if taker is not None:
                idle = self._within_reach(idle, taker, needed)
            generic = [i for i in ledger.instances.values() if i.state is State.PREWARMED and i is not but]
            self._evict(missing, idle, generic, taker)
        return False

    def make_room_of_spares(self, needed: int, taker: Function | None = None) -> bool:
        """Return whether `needed` bytes are free now. If not, evict enough spares, if that is possible."""
        ledger = self._pool.ledger
        if needed <= ledger.memory_free:
            return True
        missing = needed - ledger.memory_free - ledger.memory_stopping
        if missing > 0 and self.spares.any:
            self._evict(missing, [one for one in self.evictable() if one.spare], (), taker)
        return False

    def _evict(
        self, missing: int, idle: list[Candidate], generic: Sequence[Instance], taker: Function | None
    ) -> None:
        """Evict instances of so much memory, or none if all are not enough."""
        victims = choose_victims(missing, idle, generic) or ()
        self.clock = advance_clock(self.clock, idle, victims)
        for victim in victims:
            victim.taker = taker.name if taker is not None else ""
            self._pool.remove(victim, Reason.EVICTED)
        if victims:
            self.spares.note_eviction()

    def _within_reach(self, idle: list[Candidate], taker: Function, needed: int) -> list[Candidate]:
        """Return the candidates without those just used by functions that hold less than the taker would."""
        ledger, now = self._pool.ledger, self._pool.clock.now()
        mine = ledger.memory_of(taker.name)
        return [
            one
            for one in idle
            if one.spare
            or one.instance.function == taker.name
            or may_evict(
                now - one.instance.last_used, ledger.memory_of(one.instance.function or ""), mine, needed
            )
        ]

    def evictable(self) -> list[Candidate]:
        """Return the instances that may go, in order of eviction, without each function's `min_instances`: idle ones,
        and spares that are being started."""
        ledger, spares = self._pool.ledger, self.spares.ids()
        idle = [
            Candidate(
                instance,
                max(1, revision.function.calls),
                seconds_to_start(revision, self.prewarm),
                instance.id in spares,
            )
            for instance in ledger.instances.values()
            if (instance.state in UNUSED or instance.id in spares)
            and (revision := self._revision_of(instance))
        ]
        theirs = {function for one in idle if (function := self._functions.get(one.instance.function or ""))}
        surplus = {function.name: self._surplus(function) for function in theirs}
        return limit_to_surplus(eviction_order(idle, self.policy), surplus)

    def _revision_of(self, instance: Instance) -> Revision | None:
        function = self._functions.get(instance.function or "")
        return function.revision_of(instance) if function is not None else None

    def _surplus(self, function: Function) -> int:
        """Return how many instances a function has beyond its `min_instances`."""
        revisions = function.revisions.values()
        least = max(revision.workload.min_instances for revision in revisions)
        return sum(provisioned(revision, self._pool.ledger) for revision in revisions) - least
