"""Which fires of a schedule are due, and what becomes of each: pure functions of what is known and the time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from scheduler.definitions.language.timetable import Timetable

MOST_AT_ONCE = 1000
"""Fires that are made up for after down-time: the latest."""
MOST_WAITING = 100
"""Fires that wait for an earlier start to end; further ones are skipped."""
LATE = 60.0
"""Seconds after which a fire is missed, whatever held it up."""


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What is kept of a schedule: fires up to `considered` have been decided; `waiting` wait for a start to end."""

    considered: float
    waiting: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the fires that are due, each by its scheduled time."""

    start: tuple[float, ...]
    skipped: tuple[float, ...]
    """An earlier start had not ended."""
    missed: tuple[float, ...]
    """Too late, and not to be made up for. Of a long down-time not all are named."""
    state: ScheduleState


def decide(table: Timetable, state: ScheduleState, now: float, watched: float, running: bool) -> Decision:
    """What is to be done at `now`. What was due before `watched`, when this process began to look, is missed.

    `running`: its latest start has not ended; without meaning where `overlap` is allow.
    """
    due = list(
        takewhile(
            lambda at: at + table.delay(at) <= now,
            table.cron.latest(state.considered, now, MOST_AT_ONCE),
        )
    )
    considered = due[-1] if due else state.considered
    begin = max(watched, now - LATE)
    late = list(takewhile(lambda at: at + table.delay(at) <= begin, due))
    made_up = {"none": 0, "last": 1, "all": len(late)}[table.catch_up]
    missed = late[: len(late) - made_up]
    due = [*state.waiting, *due[len(missed) :]]
    start, skipped, waiting = due, [], []
    if table.overlap != "allow":
        free = 0 if running else 1
        start, rest = due[:free], due[free:]
        if table.overlap == "queue":
            waiting, skipped = rest[:MOST_WAITING], rest[MOST_WAITING:]
        else:
            skipped = rest
    return Decision(tuple(start), tuple(skipped), tuple(missed), ScheduleState(considered, tuple(waiting)))
