"""What the store keeps of triggers: fires, how a schedule stands, which are paused, which were made over the API."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from scheduler.triggers.due import ScheduleState
from scheduler.work import Outcome


@dataclass(frozen=True, slots=True)
class FireRecord:
    """A fire as it is kept; `at` is wall time."""

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
    """How a schedule stands. `timetable` says what schedule this is about: of a changed one nothing is known."""

    trigger: str
    timetable: str
    state: ScheduleState
    latest: tuple[str, str] | None = None
    """Kind and id of its latest start."""


@dataclass(frozen=True, slots=True)
class KeptTrigger:
    """One trigger in the store. `definition` as JSON, if it was made over the API."""

    name: str
    definition: str | None
    paused: bool
    course: Course


def start_id(trigger: str, *cause: str) -> str:
    """The id of the start that this cause makes by way of this trigger: the same for the same."""
    return hashlib.sha256(json.dumps([trigger, *cause]).encode()).hexdigest()[:32]
