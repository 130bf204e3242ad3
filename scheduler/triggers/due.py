"""Due fires of a schedule, and the decision about each: a pure function of the schedule's state and the time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from scheduler.definitions.language.timetable import Timetable

MAX_MADE_UP_FIRES = 1000
"""Fires that are considered after down-time, the latest ones; each may start a call."""
MAX_WAITING_FIRES = 100
"""Fires of one schedule that wait for an earlier action to end; further ones are skipped."""
LATE_SECONDS = 60.0
"""Age at which a fire counts as missed, whatever delayed it."""


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """Stored state of a schedule: fires up to `considered` are decided, `waiting` ones wait for an action to end."""

    considered: float
    waiting: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class FireDecision:
    """The decision about all due fires, each named by its scheduled time."""

    start: tuple[float, ...]
    skipped: tuple[float, ...]
    """Skipped because an earlier action had not ended."""
    missed: tuple[float, ...]
    """Too late, and not to be made up for. After a long down-time only the latest are listed."""
    state: ScheduleState


def decide_fires(
    table: Timetable, state: ScheduleState, now: float, watched: float, running: bool
) -> FireDecision:
    """Return the decision at `now`. Fires that were due before `watched`, when this process began, are missed.

    `running` says that the latest action has not ended; it is ignored if `overlap` is allow.
    """
    due = list(
        takewhile(
            lambda at: at + table.delay(at) <= now,
            table.cron.latest(state.considered, now, MAX_MADE_UP_FIRES),
        )
    )
    considered = due[-1] if due else state.considered
    begin = max(watched, now - LATE_SECONDS)
    late = list(takewhile(lambda at: at + table.delay(at) <= begin, due))
    made_up = {"none": 0, "last": 1, "all": len(late)}[table.catch_up]
    missed = late[: len(late) - made_up]
    due = [*state.waiting, *due[len(missed) :]]
    start, skipped, waiting = due, [], []
    if table.overlap != "allow":
        free = 0 if running else 1
        start, rest = due[:free], due[free:]
        if table.overlap == "queue":
            waiting, skipped = rest[:MAX_WAITING_FIRES], rest[MAX_WAITING_FIRES:]
        else:
            skipped = rest
    return FireDecision(
        tuple(start), tuple(skipped), tuple(missed), ScheduleState(considered, tuple(waiting))
    )
