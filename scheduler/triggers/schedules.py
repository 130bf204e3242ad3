"""Fires schedules when they are due: looks, decides, has it recorded together with what it starts, sleeps."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from pool.clock import Clock, Timer
from scheduler.durable.store import StoreError
from scheduler.durable.targets import Target
from scheduler.trigger_definitions import TriggerDefinition
from scheduler.triggers.due import LATE, State, Timetable, decide
from scheduler.triggers.model import Course, Fire, Outcome
from scheduler.triggers.triggers import Triggers

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

    def start(self) -> None:
        """Begin, when it is known which triggers there are."""
        self._task = asyncio.ensure_future(self._run())

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
        every = self._triggers.all
        found = {
            name: (definition, table)
            for name, definition in every.items()
            if name not in self._triggers.paused and (table := self._table(definition)) is not None
        }
        self._tables = {name: kept for name, kept in self._tables.items() if name in every}
        self._due = {name: kept for name, kept in self._due.items() if name in found}
        self._watched = {name: since for name, since in self._watched.items() if name in found}
        pause: float | None = None
        failed = False
        for name in [name for name in self._triggers.courses if name not in every]:
            try:
                await self._triggers.forget_course(name)
            except StoreError:
                pause = STORE_RETRY
        for definition, table in found.values():
            try:
                wait = await self._look(definition, table)
            except StoreError as error:
                if not self._failing and not failed:
                    log.warning(
                        "schedules wait: what is due cannot be recorded, so it is not started: %s", error
                    )
                wait, failed = STORE_RETRY, True
            except Exception:  # the fault of one holds back no other
                log.exception("trigger %s could not be looked at", definition.name)
                wait = STORE_RETRY
            pause = wait if pause is None else min(pause, wait)
        self._failing = failed
        return pause

    async def _look(self, definition: TriggerDefinition, table: Timetable) -> float:
        name, key, now = definition.name, _key(definition), self._clock.wall()
        course = self._triggers.courses.get(name)
        is_known = course is not None and course.timetable == key
        clock_went_back = course is not None and course.state.considered > now + LATE
        if course is None or not is_known or clock_went_back:
            course = Course(name, key, State(now), course.latest if course else None)
            await self._triggers.carry_out((), course)
        watched = self._watched.setdefault(name, now)
        state = course.state
        due = self._next(table, state.considered)
        if state.waiting or (due is not None and due <= now):
            running = bool(
                table.overlap != "allow"
                and course.latest is not None
                and (target := self._targets.get(course.latest[0])) is not None
                and await target.running(course.latest[1])
            )
            decision = decide(table, state, now, watched, running)
            fires = [
                *(self._not_started(definition, at, Outcome.MISSED) for at in decision.missed),
                *(self._triggers.scheduled_fire(definition, at) for at in decision.start),
                *(self._not_started(definition, at, Outcome.SKIPPED) for at in decision.skipped),
            ]
            started = [(fire.kind, fire.id) for fire in fires if fire.outcome is Outcome.STARTED]
            latest = started[-1] if started else course.latest
            if fires or decision.state != state:
                course = Course(name, key, decision.state, latest)
                await self._triggers.carry_out(fires, course)
            due = self._next(table, course.state.considered)
        if course.state.waiting:
            return LOOK_AT_WAITING
        return LOOK_AT_LEAST if due is None else min(max(due - self._clock.wall(), 0.0), LOOK_AT_LEAST)

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
