"""What the store keeps of triggers: fires, how a schedule stands, which are paused, which were made over the API."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

from scheduler.calls.shares import EVENTS
from scheduler.triggers.due import ScheduleState


class Outcome(StrEnum):
    """What came of a fire."""

    STARTED = "started"
    KNOWN = "known"
    """The same start was made before: an event came again."""
    SKIPPED = "skipped"
    """The start before it had not ended."""
    MISSED = "missed"
    """It fell due while nobody looked, and is not made up for."""
    FAILED = "failed"
    """There is nothing of the name to be started, or it cannot be started with this."""


@dataclass(frozen=True, slots=True)
class Fire:
    """That a trigger has fired. `work` is begun with its record; None: nothing is."""

    trigger: str
    cause: str
    """schedule, event, webhook or hand."""
    outcome: Outcome
    kind: str
    target: str
    """Name of what it starts."""
    id: str = ""
    """Of the start."""
    detail: str = ""
    scheduled: float | None = None
    work: object | None = None
    sender: str | None = None
    """Id of the key that has sent its cause, empty for somebody without one; None: the trigger fires by itself."""

    @property
    def caller(self) -> str:
        """Whom the bytes of what it starts count to."""
        return f"trigger:{self.trigger}" if self.sender is None else self.sender + EVENTS


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
class Kept:
    """One trigger in the store. `definition` as JSON, if it was made over the API."""

    name: str
    definition: str | None
    paused: bool
    course: Course


def start_id(trigger: str, *cause: str) -> str:
    """The id of the start that this cause makes by way of this trigger: the same for the same."""
    return hashlib.sha256(json.dumps([trigger, *cause]).encode()).hexdigest()[:32]
