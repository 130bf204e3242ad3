"""Stored records of triggers: their fires, schedules, pauses, and definitions made over the API."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from scheduler.calls.leases import LeaseOwner
from scheduler.triggers.due import ScheduleState
from scheduler.work import Outcome


@dataclass(frozen=True, slots=True)
class FireRecord:
    """A stored fire; `at` is wall time."""

    at: float
    cause: str
    outcome: Outcome
    kind: str
    target: str
    id: str
    detail: str
    scheduled: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """Stored progress of a schedule. It is valid for this `timetable` only: a changed schedule begins anew."""

    trigger: str
    timetable: str
    state: ScheduleState
    latest: tuple[str, str] | None = None
    """Kind and id of the latest action that it started, or None."""


@dataclass(frozen=True, slots=True)
class ScheduleWatch:
    """A watcher of a schedule, and the course that it writes. A schedule is leased to one watcher at a time."""

    owner: LeaseOwner
    course: Course


@dataclass(frozen=True, slots=True)
class KeptTrigger:
    """A stored trigger. `definition` is JSON if it was made over the API, else None."""

    name: str
    definition: str | None
    paused: bool
    course: Course


def start_id(trigger: str, *cause: str) -> str:
    """Return the id of the action that this cause starts through this trigger. Equal causes give equal ids."""
    return hashlib.sha256(json.dumps([trigger, *cause]).encode()).hexdigest()[:32]
