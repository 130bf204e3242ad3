"""Fires schedules when they are due: looks, decides, has it recorded together with what it starts, sleeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress

from pool.clock import Clock, Timer
from pool.supervise import Supervisor
from scheduler.calls.store import StoreError
from scheduler.calls.targets import Target
from scheduler.definitions.language.timetable import Timetable
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.triggers.due import LATE, ScheduleState, decide
from scheduler.triggers.model import Course
from scheduler.triggers.triggers import Triggers
from scheduler.work import Fire, Outcome

log = logging.getLogger("hearth.triggers")

LOOK_AT_LEAST = 30.0
"""Seconds between two looks: wall time may jump, and a timer does not see it."""
LOOK_AT_WAITING = 0.5
"""The same while a fire waits for the start before it to end."""
STORE_RETRY = 5.0
"""The same after the store has failed: nothing is decided until it is recorded."""


class Schedules:
    """One a gateway, over its triggers."""

    def __init__(self, triggers: Triggers, targets: dict[str, Target], clock: Clock) -> None:
        self._triggers = triggers
        self._targets = targets
        self._clock = clock
        self._watched: dict[str, float] = {}
        """Since when (wall time) a trigger is looked at."""
        self._due: dict[str, tuple[Timetable, float, float | None]] = {}
        """When a trigger is due next, and what that was worked out of: it is not done at every look."""
        self._tables: dict[str, tuple[TriggerDefinition, Timetable | None]] = {}
        self._failing = False
        """Whether the store could not record the latest fires; it is told once."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        triggers.on_change = self._wake.set

    def start(self, supervisor: Supervisor) -> None:
        """Begin to fire. The loop waits until it is known which triggers there are."""
        self._task = supervisor.supervise("schedules", self._run)

    async def stop(self) -> None:
        """Fire nothing more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def next_fire(self, definition: TriggerDefinition) -> float | None:
        """When a trigger fires next, wall time; None: not by the clock, or not while it is paused."""
        table = self._table(definition)
        if table is None or definition.name in self._triggers.paused:
            return None
        course = self._triggers.courses.get(definition.name)
        if course is None or course.timetable != _key(definition):
            return table.next(self._clock.wall())
        return self._next(table, course.state.considered)

    async def _run(self) -> None:
        await self._triggers.ready()
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
        """Decide what is due now; seconds until something may be again, None: nothing ever is."""
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
        looks += [self._triggers.forget_course(name) for name in self._triggers.courses if name not in every]
        # All at once: what the store is asked for together is one commit.
        went_well = await asyncio.gather(*map(self._carefully, looks))
        self._failing = not all(went_well)
        if self._failing:
            return STORE_RETRY
        rests = (LOOK_AT_WAITING if self._waits(name) else self._rest(*found[name]) for name in found)
        return min(rests, default=None)

    async def _carefully(self, look: Coroutine[None, None, None]) -> bool:
        """Whether it could be done. The fault of one holds back no other."""
        try:
            await look
        except StoreError as error:
            if not self._failing:
                log.warning("schedules wait: what is due cannot be recorded, so it is not started: %s", error)
            self._failing = True
            return False
        except Exception:
            log.exception("a trigger could not be looked at")
            return False
        return True

    def _waits(self, name: str) -> bool:
        """Whether a fire waits for the start before it to end."""
        course = self._triggers.courses.get(name)
        return course is not None and bool(course.state.waiting)

    def _rest(self, definition: TriggerDefinition, table: Timetable) -> float:
        """Seconds until there is something to decide about a schedule; 0: there is now."""
        course, now = self._triggers.courses.get(definition.name), self._clock.wall()
        if course is None or not self._is_about(course, definition, now):
            return 0.0
        due = self._next(table, course.state.considered)
        return LOOK_AT_LEAST if due is None else min(max(due - now, 0.0), LOOK_AT_LEAST)

    def _is_about(self, course: Course, definition: TriggerDefinition, now: float) -> bool:
        """Whether it says how this schedule stands: not of another timetable, nor of before the clock went back."""
        return course.timetable == _key(definition) and course.state.considered <= now + LATE

    async def _look(self, definition: TriggerDefinition, table: Timetable) -> None:
        """Decide what is due of one schedule, and have it done. Raises `StoreError`."""
        name, now = definition.name, self._clock.wall()
        course = self._triggers.courses.get(name)
        if course is None or not self._is_about(course, definition, now):
            # What waits has fired already: the clock may go back, it stays. Of another timetable it means nothing.
            waiting = course.state.waiting if course and course.timetable == _key(definition) else ()
            fresh = Course(
                name, _key(definition), ScheduleState(now, waiting), course.latest if course else None
            )
            await self._triggers.carry_out((), fresh)
            return
        running = bool(
            table.overlap != "allow"
            and course.latest is not None
            and (target := self._targets.get(course.latest[0])) is not None
            and await target.running(course.latest[1])
        )
        if name in self._triggers.paused:
            return  # while it was asked what runs
        decision = decide(table, course.state, now, self._watched[name], running)
        fires = [
            *(self._not_started(definition, at, Outcome.MISSED) for at in decision.missed),
            *(self._triggers.scheduled_fire(definition, at) for at in decision.start),
            *(self._not_started(definition, at, Outcome.SKIPPED) for at in decision.skipped),
        ]
        started = [(fire.kind, fire.id) for fire in fires if fire.outcome is Outcome.STARTED]
        if fires or decision.state != course.state:
            latest = started[-1] if started else course.latest
            await self._triggers.carry_out(fires, Course(name, course.timetable, decision.state, latest))

    def _next(self, table: Timetable, considered: float) -> float | None:
        known = self._due.get(table.name)
        if known is None or known[0] is not table or known[1] != considered:
            known = self._due[table.name] = (table, considered, table.next(considered))
        return known[2]

    def _table(self, definition: TriggerDefinition) -> Timetable | None:
        """The timetable of a trigger, made once for each definition."""
        known = self._tables.get(definition.name)
        if known is None or known[0] is not definition:
            known = self._tables[definition.name] = (definition, definition.timetable())
        return known[1]

    def _not_started(self, definition: TriggerDefinition, scheduled: float, outcome: Outcome) -> Fire:
        kind, name = definition.action
        return Fire(definition.name, "schedule", outcome, kind, name, scheduled=scheduled)


def _key(definition: TriggerDefinition) -> str:
    return f"{definition.schedule} {definition.timezone}"
