"""Upkeep: starts instances ahead of calls: for `min_instances`, for the prewarm pools, and as spares."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from pool.backoff import jitter
from pool.clock import Timer
from pool.errors import FunctionBroken, PoolError, StartFailed
from pool.instance import Instance
from pool.pool import Pool
from pool.states import LIVE, Reason, State
from scheduler.dispatch.decisions import FUNCTION_BACKOFF, PLATFORM_BACKOFF
from scheduler.dispatch.evictor import Evictor
from scheduler.dispatch.function import Function, Prewarm, Revision, provisioned
from scheduler.dispatch.route import Route
from scheduler.dispatch.start_reasons import started_ahead

log = logging.getLogger("hearth.scheduler")

UPKEEP_DELAY_SECONDS = 0.05
"""Pause before an instance is started ahead, so that calls that need a start come first."""


class Upkeep:
    """Starts instances ahead, one at a time. `held` returns True while calls need starts; then it does nothing."""

    def __init__(
        self,
        pool: Pool,
        functions: Mapping[str, Function],
        routes: Mapping[str, Route],
        held: Callable[[], bool],
        evictor: Evictor,
    ) -> None:
        self.spares = evictor.spares
        self._pool = pool
        self._clock = pool.clock
        self._functions = functions
        self._routes = routes
        self._held = held
        self._evictor = evictor
        self._prewarm = evictor.prewarm
        self._due = False
        self._after_pause: Timer | None = None
        """Set while no plan of spares is due."""
        self._failures = 0
        self._not_before = 0.0

    def soon(self) -> None:
        """Start the next instance in `UPKEEP_DELAY_SECONDS`, if one is missing."""
        if not self._due:
            self._due = True
            self._clock.call_later(UPKEEP_DELAY_SECONDS, self._start_one)

    def _start_one(self) -> None:
        """Start one instance ahead if no call waits for a start. Nothing but spares is evicted for it."""
        self._due = False
        ledger = self._pool.ledger
        if self._held() or ledger.starting or ledger.adopting or ledger.pending:
            return  # the pass that ends this state calls `soon` again
        now = self._clock.now()
        for revision in self._in_service():
            workload = revision.workload
            if not workload.min_instances:
                continue  # nearly all functions; there may be thousands
            wanted = provisioned(revision, ledger) < workload.min_instances and now >= revision.not_before
            if not wanted or revision.room(ledger) <= 0:
                continue
            if self._evictor.make_room_of_spares(workload.container.memory, revision.function):
                self._pool.start(workload, started_ahead(workload.min_instances))
                return
        if now >= self._not_before and self._prewarm_one():
            return
        self._keep_spares()

    def _prewarm_one(self) -> bool:
        """Start one generic instance if a prewarm pool lacks one, and return whether it did."""
        ledger = self._pool.ledger
        for image, target in self._prewarm.items():
            lacking = len(ledger.prewarmed(image)) < target.count
            if lacking and self._evictor.make_room_of_spares(target.prototype.memory):
                self._pool.prewarm(target.prototype)
                return True
        return False

    def _keep_spares(self) -> None:
        """Start one spare, or remove spares that are in the way of a more valuable one."""
        if self._after_pause is not None or not self.spares.any:
            return
        if (pause := self.spares.pause) > 0:
            self._after_pause = self._clock.call_later(pause, self._end_pause)
            return
        plan = self.spares.plan()
        if self.spares.starting is not None:
            return  # one at a time: imports take processor time from calls
        for id in plan.removed:
            instance = self._pool.ledger.instances[id]
            instance.taker = plan.taker
            self._pool.remove(instance, Reason.EVICTED)
        if plan.start is not None:
            revision = next(r for r in self._functions[plan.start].revisions.values() if not r.trial)
            self.spares.start(revision)

    def _end_pause(self) -> None:
        self._after_pause = None
        self.soon()

    def _in_service(self) -> Iterator[Revision]:
        for route in self._routes.values():
            yield from route.revisions

    def set_prewarm(self, wanted: dict[str, Prewarm]) -> None:
        """Replace the prewarm pools by these, by image."""
        self._prewarm.clear()
        self._prewarm.update(wanted)
        for instance in list(self._pool.ledger.instances.values()):
            if instance.workload is None and instance.state is not State.FOUND:
                target = wanted.get(instance.image)
                if target is None or instance.memory != target.prototype.memory:
                    self._pool.remove(instance, Reason.SURPLUS)
        self.remove_surplus()
        self.soon()

    def remove_surplus(self) -> None:
        """Remove prewarmed instances beyond the wanted number."""
        for image, target in self._prewarm.items():
            for instance in self._pool.ledger.prewarmed(image)[target.count :]:
                self._pool.remove(instance, Reason.SURPLUS)

    def prewarmed(self) -> None:
        """Note that a prewarmed instance has started."""
        self._failures = 0

    def prewarming_failed(self, error: PoolError) -> None:
        """Note that a prewarmed instance did not start, and try again after a pause."""
        if engine_was_down(error):
            return  # `engine_back` tries it again
        self._failures += 1
        pause = pause_after(self._failures, error)
        self._not_before = self._clock.now() + pause
        log.warning("A prewarmed instance did not start; trying again in %.1f s: %s", pause, error)
        self._clock.call_later(pause, self.soon)

    def is_provisioned(self, instance: Instance) -> bool:
        """Return whether an instance stays although it is idle: for its function's `min_instances`, or as a spare."""
        function = self._functions.get(instance.function or "")
        revision = function.revision_of(instance) if function is not None else None
        if revision is None:
            return False
        least = max(revision.workload.min_instances, self.spares.keeps(revision))
        return least > 0 and provisioned(revision, self._pool.ledger) <= least

    def settled(self) -> bool:
        """Return whether every function has its `min_instances`, or has failed to get them.

        A function whose next revision is tried out may lack one meanwhile.
        """
        return all(self._is_settled(revision) for revision in self._in_service())

    def _is_settled(self, revision: Revision) -> bool:
        live = sum(1 for i in revision.instances(self._pool.ledger) if i.state in LIVE)
        enough = live >= revision.workload.min_instances
        return enough or revision.last_fault is not None or revision.function.has_trial()


def engine_was_down(error: PoolError) -> bool:
    """Return whether a start failed only because the engine did not answer. It is repeated when it answers."""
    return isinstance(error, StartFailed) and error.engine_down


def pause_after(failures: int, error: PoolError) -> float:
    """Return the seconds until a start is tried again, after so many failures in a row, the last one `error`.

    After a failure of the platform all functions try again, so jitter spreads their starts.
    """
    if isinstance(error, FunctionBroken):
        return FUNCTION_BACKOFF.pause(failures)
    return PLATFORM_BACKOFF.pause(failures, jitter())
