"""Spare keeper: knows the revisions that are kept ready, and has a plan of their spares made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pool.instance import Instance, StartReason
from pool.ledger import NEVER
from pool.pool import Pool
from pool.states import LIVE, PENDING
from scheduler.dispatch.eviction import MIB, gdsf_priority
from scheduler.dispatch.function import Prewarm, Revision, provisioned, seconds_to_start
from scheduler.dispatch.spares.plan import (
    NO_CALLS,
    CallRate,
    Spare,
    SpareNeed,
    SparePlan,
    SpareSettings,
    is_spare,
    plan_spares,
    spares_for,
)
from scheduler.dispatch.start_reasons import started_as_spare

PLAN_VALID_SECONDS = 0.5
"""Age up to which a plan says what is kept. The reaper asks for each instance, four times a second."""
REST_SECONDS = 0.001
"""Pause after a plan for each revision in it, which takes some 20 µs: planning then takes 2 % of the time at most."""
SHORT_MEMORY_SECONDS = 5.0
"""Time without a spare after memory was taken from an instance: the next call would probably take it again."""
REFILL_DELAY_SECONDS = 0.05
"""Time from a call to the start of the next spare, besides that of the start itself (`upkeep`)."""


@dataclass(slots=True)
class _Tracked:
    """A revision that is kept ready, and what is known of its calls."""

    since: float
    """When it came into service."""
    called: float = NEVER
    """When it was last called, as far as its instances do not say it."""
    rate: CallRate = NO_CALLS


class SparesNow(NamedTuple):
    """All spares together, at one moment. Memory in bytes."""

    ready: int
    starting: int
    memory: int
    memory_share: int
    """Memory that they may take."""


class SpareKeeper:
    """The revisions that are kept ready, and their spares."""

    def __init__(self, pool: Pool, settings: SpareSettings, prewarm: Mapping[str, Prewarm]) -> None:
        self.settings = settings
        self._pool = pool
        self._prewarm = prewarm
        self._tracked: dict[Revision, _Tracked] = {}
        self._latest: tuple[Revision, Instance] | None = None
        """The spare that was started last."""
        self._plan = SparePlan({})
        self._planned_at = NEVER
        self._short_at = NEVER

    # -- what happens ---------------------------------------------------------------------------------------

    def note_service(self, revision: Revision) -> None:
        """Note that a revision has come into service, or has an instance: it may be kept ready."""
        ready_ahead = revision.workload.kept_ready and self.settings.share and not revision.trial
        if ready_ahead and revision not in self._tracked:
            self._tracked[revision] = _Tracked(self._pool.clock.now())

    def note_call(self, revision: Revision) -> None:
        """Note a call of a single-use revision."""
        self.note_service(revision)
        tracked = self._tracked.get(revision)
        if tracked is not None:
            tracked.called = self._pool.clock.now()
            tracked.rate = tracked.rate.after(tracked.called)

    def note_eviction(self) -> None:
        """Note that memory is short: no spare is started for `SHORT_MEMORY_SECONDS`."""
        self._short_at = self._pool.clock.now()

    # -- questions ------------------------------------------------------------------------------------------

    @property
    def any(self) -> bool:
        """Return whether a revision may be kept ready."""
        return bool(self._tracked)

    @property
    def starting(self) -> Instance | None:
        """Return the spare that is being started, or None."""
        if self._latest is None:
            return None
        revision, instance = self._latest
        return instance if instance.state in PENDING and not revision.waiting else None

    @property
    def pause(self) -> float:
        """Return the seconds until a plan is due: memory is short, or the last one was made just now."""
        due = max(self._short_at + SHORT_MEMORY_SECONDS, self._planned_at + REST_SECONDS * len(self._tracked))
        return max(0.0, due - self._pool.clock.now())

    def of(self, revision: Revision) -> list[Instance]:
        """Return the spares of a revision, the first to go first; none of its `min_instances` is among them."""
        if revision not in self._tracked:
            return []
        now, ledger = self._pool.clock.now(), self._pool.ledger
        spares = [i for i in revision.instances(ledger) if is_spare(i, now)]
        if revision.waiting:  # whatever is being started is for those who wait
            spares = [i for i in spares if i.state not in PENDING]
        spares.sort(key=lambda i: (i.state not in PENDING, i.last_used))
        most = provisioned(revision, ledger) - revision.workload.min_instances
        return spares[: max(0, most)]

    def ids(self) -> set[str]:
        """Return the ids of all spares."""
        return {instance.id for revision in self._tracked for instance in self.of(revision)}

    def keeps(self, revision: Revision) -> int:
        """Return how many instances of a revision stay ready although nobody calls them."""
        if revision not in self._tracked:
            return 0
        if self._pool.clock.now() - self._planned_at > PLAN_VALID_SECONDS:
            self.plan()
        return self._plan.kept.get(revision.name, 0)

    def now(self) -> SparesNow:
        """Return all spares together."""
        spares = [instance for revision in self._tracked for instance in self.of(revision)]
        starting = sum(instance.state in PENDING for instance in spares)
        memory = sum(instance.memory for instance in spares)
        return SparesNow(len(spares) - starting, starting, memory, self._memory_share)

    def start(self, revision: Revision) -> None:
        """Start a spare of a revision, of a prewarmed instance where there is a pool: a call that comes meanwhile
        would wait for the spare, and has the right to as short a wait as without."""
        workload, pool = revision.workload, self._pool
        if workload.generic and workload.container.image in self._prewarm:
            for instance in pool.ledger.prewarmed(workload.container.image)[:1]:
                pool.specialise(instance, workload, self._reason(revision))
                self._latest = (revision, instance)
        else:
            self._latest = (revision, pool.start(workload, self._reason(revision)))

    def _reason(self, revision: Revision) -> StartReason:
        now = self._pool.clock.now()
        tracked = self._tracked[revision]
        called = self._called(revision, tracked)
        rate = tracked.rate.per_second(now) if revision.single_use else None
        return started_as_spare(None if called == NEVER else now - called, self._wanted(revision, now), rate)

    # -- the plan -------------------------------------------------------------------------------------------

    def plan(self) -> SparePlan:
        """Return a fresh plan."""
        ledger, now = self._pool.ledger, self._pool.clock.now()
        needs = []
        for revision in list(self._tracked):
            need = self._need(revision, now)
            if revision.retired or not (need.wanted or need.spares):
                del self._tracked[revision]
            else:
                needs.append(need)
        self._plan, self._planned_at = plan_spares(self._memory_share, ledger.memory_free, needs), now
        return self._plan

    @property
    def _memory_share(self) -> int:
        return int(self._pool.ledger.memory_budget * self.settings.share)

    def _need(self, revision: Revision, now: float) -> SpareNeed:
        ledger = self._pool.ledger
        spares = self.of(revision)
        ages = [0.0 if i.ready_at is None else now - i.ready_at for i in spares]
        return SpareNeed(
            name=revision.name,
            memory=revision.workload.container.memory,
            value=self._value(revision),
            wanted=self._wanted(revision, now),
            others=provisioned(revision, ledger) - len(spares),
            spares=[Spare(i.id, age) for i, age in zip(spares, ages, strict=True)],
            startable=self._may_start(revision, now),
        )

    def _may_start(self, revision: Revision, now: float) -> bool:
        """Return whether a start of a revision may work. The function's own fault waits for the next call."""
        broken = revision.last_fault is not None and revision.blocked is None
        return not broken and now >= revision.not_before and revision.room(self._pool.ledger) > 0

    def _wanted(self, revision: Revision, now: float) -> int:
        """Return how many instances shall be ready: 0 if the revision was neither called nor deployed lately."""
        tracked = self._tracked[revision]
        since = self._called(revision, tracked)
        if revision.workload.own_image:
            since = max(since, tracked.since)
        if revision.retired or now - since >= self.settings.seconds:
            return 0
        if not revision.single_use:
            return 1
        return spares_for(tracked.rate.per_second(now), revision.start_seconds + REFILL_DELAY_SECONDS)

    def _called(self, revision: Revision, tracked: _Tracked) -> float:
        """Return when a revision, or the one before it, was last called."""
        stop = self._pool.ledger.last_stops.get(revision.name)
        used = [i.last_used for i in revision.instances(self._pool.ledger) if i.served]
        return max([tracked.called, NEVER if stop is None else stop.used, *used])

    def _value(self, revision: Revision) -> float:
        """Return the GreedyDual-Size-Frequency priority of a revision, which may have no instance."""
        stop = self._pool.ledger.last_stops.get(revision.name)
        clocks = [i.clock for i in revision.instances(self._pool.ledger) if i.state in LIVE]
        clock = max([0.0 if stop is None else stop.clock, *clocks])
        size = revision.workload.container.memory / MIB
        cost = seconds_to_start(revision, self._prewarm)
        return gdsf_priority(clock, max(1, revision.function.calls), cost, size)
