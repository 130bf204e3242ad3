"""Loop that fires schedules when they are due: it decides, stores the fires with their actions, and sleeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress

from pool.backoff import Backoff, Retries
from pool.clock import Clock, Timer
from pool.supervise import Supervisor
from scheduler.calls.running.lease_keeper import LeaseKeeper
from scheduler.calls.store import LeaseLost, StoreError
from scheduler.calls.targets import Target
from scheduler.definitions.language.timetable import Timetable
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.triggers.due import LATE_SECONDS, ScheduleState, decide_fires
from scheduler.triggers.model import Course, ScheduleWatch
from scheduler.triggers.triggers import Triggers
from scheduler.work import Fire, Outcome

log = logging.getLogger("hearth.triggers")

MAX_SLEEP_SECONDS = 30.0
"""Longest sleep: wall time may jump, and a timer does not notice."""
WAITING_SLEEP_SECONDS = 0.5
"""Longest sleep while a fire waits for an earlier action to end."""
RECORD_RETRY = Backoff(1.0, 5.0)
"""Sleeps after the store has failed. The same fires are decided again."""


class Schedules:
    """The schedules among the triggers of one gateway."""

    def __init__(
        self, triggers: Triggers, targets: dict[str, Target], clock: Clock, leases: LeaseKeeper
    ) -> None:
        self._triggers = triggers
        self._targets = targets
        self._clock = clock
        self._leases = leases
        self._watched: dict[str, float] = {}
        """Wall time since when this process watches a trigger."""
        self._due: dict[str, tuple[Timetable, float, float | None]] = {}
        """Cached next fire of a trigger, with the timetable and the time that it was computed from."""
        self._tables: dict[str, tuple[TriggerDefinition, Timetable | None]] = {}
        self._failing = False
        """True while the store cannot record fires; it is logged once."""
        self._retries = Retries(RECORD_RETRY)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        triggers.on_change = self._wake.set

    def start(self, supervisor: Supervisor) -> None:
        """Start the loop. It waits until all triggers are known."""
        self._task = supervisor.supervise("schedules", self._run)

    async def stop(self) -> None:
        """Stop the loop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def next_fire(self, definition: TriggerDefinition) -> float | None:
        """Return the wall time of a trigger's next fire, or None if it has no schedule or is paused."""
        table = self._table(definition)
        if table is None or definition.name in self._triggers.paused:
            return None
        course = self._triggers.courses.get(definition.name)
        if course is None or course.timetable != _key(definition):
            return table.next(self._clock.wall())
        return self._next(table, course.state.considered)

    async def _run(self) -> None:
        await self._triggers.ready()
        await self._leases.take_over()
        while True:
            self._wake.clear()
            pause = await self._look_at_all()
            timer: Timer | None = None
            if pause is not None:
                timer = self._clock.call_later(pause, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _look_at_all(self) -> float | None:
        """Decide all due fires. Return the seconds to sleep, or None to sleep until something changes."""
        every, now = self._triggers.all, self._clock.wall()
        found = {
            name: (definition, table)
            for name, definition in every.items()
            if name not in self._triggers.paused and (table := self._table(definition)) is not None
        }
        self._tables = {name: kept for name, kept in self._tables.items() if name in every}
        self._due = {name: kept for name, kept in self._due.items() if name in found}
        self._watched = {name: self._watched.get(name, now) for name in found}
        looks = [
            self._look(definition, table)
            for name, (definition, table) in found.items()
            if self._waits(name) or self._rest(definition, table) <= 0.0
        ]
        looks += [
            self._triggers.forget_course(self._leases.owner, name)
            for name in self._triggers.courses
            if name not in every
        ]
        # Concurrently: the store writes what it gets at the same time in one transaction.
        went_well = await asyncio.gather(*map(self._carefully, looks))
        self._failing = not all(went_well)
        if self._failing:
            return self._retries.failed()
        self._retries.succeeded()
        rests = (WAITING_SLEEP_SECONDS if self._waits(name) else self._rest(*found[name]) for name in found)
        return min(rests, default=None)

    async def _carefully(self, look: Coroutine[None, None, None]) -> bool:
        """Run one look and return whether it succeeded. A failure does not stop the others."""
        owner = self._leases.owner
        try:
            await look
        except LeaseLost:
            self._leases.renew(owner)
            return False
        except StoreError as error:
            if not self._failing:
                log.warning(
                    "schedules wait: due fires cannot be recorded, so none starts; trying again within %.0f s: %s",
                    RECORD_RETRY.longest,
                    error,
                )
            self._failing = True
            return False
        except Exception:
            log.exception("A schedule failed; trying again within %.0f s", RECORD_RETRY.longest)
            return False
        return True

    def _waits(self, name: str) -> bool:
        """Return whether a fire waits for an earlier action to end."""
        course = self._triggers.courses.get(name)
        return course is not None and bool(course.state.waiting)

    def _rest(self, definition: TriggerDefinition, table: Timetable) -> float:
        """Return the seconds until a schedule needs a decision; 0 if it needs one now."""
        course, now = self._triggers.courses.get(definition.name), self._clock.wall()
        if course is None or not self._is_about(course, definition, now):
            return 0.0
        due = self._next(table, course.state.considered)
        return MAX_SLEEP_SECONDS if due is None else min(max(due - now, 0.0), MAX_SLEEP_SECONDS)

    def _is_about(self, course: Course, definition: TriggerDefinition, now: float) -> bool:
        """Return whether stored progress is valid: for this timetable, and not from before the clock went back."""
        return course.timetable == _key(definition) and course.state.considered <= now + LATE_SECONDS

    async def _look(self, definition: TriggerDefinition, table: Timetable) -> None:
        """Decide the due fires of one schedule, and start their actions. Raises `StoreError`."""
        name, now = definition.name, self._clock.wall()
        course = self._triggers.courses.get(name)
        if course is None or not self._is_about(course, definition, now):
            # Waiting fires have fired already, so they stay if the clock goes back, but not for a new timetable.
            waiting = course.state.waiting if course and course.timetable == _key(definition) else ()
            fresh = Course(
                name, _key(definition), ScheduleState(now, waiting), course.latest if course else None
            )
            await self._triggers.carry_out((), ScheduleWatch(self._leases.owner, fresh))
            return
        running = bool(
            table.overlap != "allow"
            and course.latest is not None
            and (target := self._targets.get(course.latest[0])) is not None
            and await target.running(course.latest[1])
        )
        if name in self._triggers.paused:
            return  # paused during the await above
        decision = decide_fires(table, course.state, now, self._watched[name], running)
        fires = [
            *(self._not_started(definition, at, Outcome.MISSED) for at in decision.missed),
            *(self._triggers.scheduled_fire(definition, at) for at in decision.start),
            *(self._not_started(definition, at, Outcome.SKIPPED) for at in decision.skipped),
        ]
        started = [(fire.kind, fire.id) for fire in fires if fire.outcome is Outcome.STARTED]
        if fires or decision.state != course.state:
            latest = started[-1] if started else course.latest
            progress = Course(name, course.timetable, decision.state, latest)
            await self._triggers.carry_out(fires, ScheduleWatch(self._leases.owner, progress))

    def _next(self, table: Timetable, considered: float) -> float | None:
        known = self._due.get(table.name)
        if known is None or known[0] is not table or known[1] != considered:
            known = self._due[table.name] = (table, considered, table.next(considered))
        return known[2]

    def _table(self, definition: TriggerDefinition) -> Timetable | None:
        """Return the timetable of a trigger, made once for each definition."""
        known = self._tables.get(definition.name)
        if known is None or known[0] is not definition:
            known = self._tables[definition.name] = (definition, definition.timetable())
        return known[1]

    def _not_started(self, definition: TriggerDefinition, scheduled: float, outcome: Outcome) -> Fire:
        kind, name = definition.action
        return Fire(definition.name, "schedule", outcome, kind, name, scheduled=scheduled)


def _key(definition: TriggerDefinition) -> str:
    return f"{definition.schedule} {definition.timezone}"
