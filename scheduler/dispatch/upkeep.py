"""Upkeep: starts instances ahead of calls, for the prewarm pools and for `min_instances`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from pool.backoff import jitter
from pool.clock import Clock
from pool.errors import FunctionBroken, PoolError, StartFailed
from pool.instance import Instance
from pool.ledger import Ledger
from pool.pool import Pool
from pool.states import LIVE, PENDING, UNUSED, Reason, State
from scheduler.dispatch.decisions import FUNCTION_BACKOFF, PLATFORM_BACKOFF
from scheduler.dispatch.function import Function, Prewarm, Revision
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
        clock: Clock,
        functions: Mapping[str, Function],
        routes: Mapping[str, Route],
        held: Callable[[], bool],
    ) -> None:
        self.prewarm: dict[str, Prewarm] = {}
        """Prewarm pools by image."""
        self._pool = pool
        self._clock = clock
        self._functions = functions
        self._routes = routes
        self._held = held
        self._due = False
        self._failures = 0
        self._not_before = 0.0

    def soon(self) -> None:
        """Start the next instance in `UPKEEP_DELAY_SECONDS`, if one is missing."""
        if not self._due:
            self._due = True
            self._clock.call_later(UPKEEP_DELAY_SECONDS, self._start_one)

    def _start_one(self) -> None:
        """Start one provisioned or prewarmed instance if no call waits for a start. Nothing is evicted for it."""
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
            if wanted and revision.room(ledger) > 0 and ledger.memory_free >= workload.container.memory:
                self._pool.start(workload).start_reason = started_ahead(workload.min_instances)
                return
        if now < self._not_before:
            return
        for image, target in self.prewarm.items():
            if len(ledger.prewarmed(image)) < target.count and ledger.memory_free >= target.prototype.memory:
                self._pool.prewarm(target.prototype)
                return

    def _in_service(self) -> Iterator[Revision]:
        for route in self._routes.values():
            yield from route.revisions

    def set_prewarm(self, wanted: dict[str, Prewarm]) -> None:
        """Replace the prewarm pools by these, by image."""
        self.prewarm.clear()
        self.prewarm.update(wanted)
        for instance in list(self._pool.ledger.instances.values()):
            if instance.workload is None and instance.state is not State.FOUND:
                target = wanted.get(instance.image)
                if target is None or instance.memory != target.prototype.memory:
                    self._pool.remove(instance, Reason.SURPLUS)
        self.remove_surplus()
        self.soon()

    def remove_surplus(self) -> None:
        """Remove prewarmed instances beyond the wanted number."""
        for image, target in self.prewarm.items():
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
        """Return whether an instance is one of its function's `min_instances`."""
        function = self._functions.get(instance.function or "")
        revision = function.revision_of(instance) if function is not None else None
        if revision is None or revision.workload.min_instances == 0:
            return False
        return provisioned(revision, self._pool.ledger) <= revision.workload.min_instances

    def settled(self) -> bool:
        """Return whether every function has its `min_instances`, or has failed to get them.

        A function whose next revision is tried out may lack one meanwhile.
        """
        return all(self._is_settled(revision) for revision in self._in_service())

    def _is_settled(self, revision: Revision) -> bool:
        live = sum(1 for i in revision.instances(self._pool.ledger) if i.state in LIVE)
        enough = live >= revision.workload.min_instances
        return enough or revision.last_fault is not None or revision.function.has_trial()


def provisioned(revision: Revision, ledger: Ledger) -> int:
    """Return how many instances count towards `min_instances`; single-use ones count until they are used."""
    states = PENDING | (UNUSED if revision.single_use else LIVE)
    return sum(1 for instance in revision.instances(ledger) if instance.state in states)


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
