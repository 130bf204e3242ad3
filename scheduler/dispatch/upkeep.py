"""Upkeep: the instances that are started ahead, which are the prewarm pools and every `min_instances`."""

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
from scheduler.dispatch.decisions import PLATFORM_BACK_OFF, back_off
from scheduler.dispatch.function import Function, Prewarm, Revision
from scheduler.dispatch.route import Route

log = logging.getLogger("hearth.scheduler")

UPKEEP_DELAY = 0.05
"""Seconds without a need for a start before prewarmed and provisioned instances are started: calls come first."""


class Upkeep:
    """Starts one instance ahead at a time, and only while `held` says that no call needs a start."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        functions: Mapping[str, Function],
        routes: Mapping[str, Route],
        held: Callable[[], bool],
    ) -> None:
        self.prewarm: dict[str, Prewarm] = {}
        """By image."""
        self._pool = pool
        self._clock = clock
        self._functions = functions
        self._routes = routes
        self._held = held
        self._due = False
        self._failures = 0
        self._not_before = 0.0

    def soon(self) -> None:
        """Look in a moment what is to be started."""
        if not self._due:
            self._due = True
            self._clock.call_later(UPKEEP_DELAY, self._start_one)

    def _start_one(self) -> None:
        """Start one provisioned or prewarmed instance, if nobody waits for a start. Nothing is evicted for it."""
        self._due = False
        ledger = self._pool.ledger
        if self._held() or ledger.starting or ledger.adopting or ledger.pending:
            return  # the pass that ends this comes back here
        now = self._clock.now()
        for revision in self._in_service():
            workload = revision.workload
            if not workload.min_instances:
                continue  # nearly all of them, and there may be thousands
            wanted = provisioned(revision, ledger) < workload.min_instances and now >= revision.not_before
            if wanted and revision.room(ledger) > 0 and ledger.memory_free >= workload.container.memory:
                self._pool.start(workload)
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
        """Keep these prewarm pools (by image) and no others."""
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
        """Take away prewarmed instances beyond those that are wanted."""
        for image, target in self.prewarm.items():
            for instance in self._pool.ledger.prewarmed(image)[target.count :]:
                self._pool.remove(instance, Reason.SURPLUS)

    def prewarmed(self) -> None:
        """A generic instance has started."""
        self._failures = 0

    def prewarming_failed(self, error: PoolError) -> None:
        """A generic instance did not start: the next is tried later."""
        if engine_was_down(error):
            return  # `engine_back` has it tried again
        self._failures += 1
        pause = pause_after(self._failures, error)
        self._not_before = self._clock.now() + pause
        log.warning("a prewarmed instance did not start: %s", error)
        self._clock.call_later(pause, self.soon)

    def is_provisioned(self, instance: Instance) -> bool:
        """Return whether an instance is one of its function's `min_instances`."""
        function = self._functions.get(instance.function or "")
        revision = function.revision_of(instance) if function is not None else None
        if revision is None or revision.workload.min_instances == 0:
            return False
        return provisioned(revision, self._pool.ledger) <= revision.workload.min_instances

    def settled(self) -> bool:
        """Return whether every function has its `min_instances`, or has failed to get them."""
        ledger = self._pool.ledger
        return all(
            sum(1 for i in r.instances(ledger) if i.state in LIVE) >= r.workload.min_instances or r.last_fault
            for r in self._in_service()
        )


def provisioned(revision: Revision, ledger: Ledger) -> int:
    """Return the instances that count towards `min_instances`: for single use only those that nobody uses yet."""
    states = PENDING | (UNUSED if revision.single_use else LIVE)
    return sum(1 for instance in revision.instances(ledger) if instance.state in states)


def engine_was_down(error: PoolError) -> bool:
    """Whether a start failed only because the engine does not answer: it is tried again when it does."""
    return isinstance(error, StartFailed) and error.engine_down


def pause_after(failures: int, error: PoolError) -> float:
    """Seconds until a start is tried again after so many that failed in a row, the last one of `error`.

    What is broken is tried at its times; what the platform could not do all try again, so not all at once.
    """
    if isinstance(error, FunctionBroken):
        return back_off(failures)
    return back_off(failures, PLATFORM_BACK_OFF) * jitter()
