"""Answers about triggers, their fires and events."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway.api.views import moment
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.triggers.model import FireRecord
from scheduler.work import Fire, Outcome

PLACES = {"function": "/invocations/{}", "job": "/jobs/{}", "workflow": "/runs/{}"}
"""Paths that show the status of a started call, job or run, by kind."""


class FireView(BaseModel):
    """A fire of a trigger."""

    at: datetime
    cause: Literal["schedule", "event", "webhook", "hand"]
    scheduled: datetime | None = Field(None, description="Of a schedule: the time that it fired for")
    outcome: Outcome
    id: str | None = Field(None, description="Of what was started")
    url: str | None = Field(None, description="Where it is seen how that stands")
    detail: str = Field("", description="What was wrong, if nothing was started")


class TriggerView(BaseModel):
    """A trigger."""

    name: str = Field(examples=["nightly"])
    origin: Literal["file", "api"] = Field(description="Declared in functions.yaml, or made over the API")
    cause: Literal["schedule", "events", "webhook"]
    action: dict[str, str] = Field(examples=[{"function": "report"}])
    paused: bool
    fault: str | None = Field(None, description="Why it can start nothing now")
    next: datetime | None = Field(None, description="When its schedule is due next")
    last: FireView | None = Field(None, description="Its latest fire")
    definition: dict[str, Any] = Field(description="Its keys, as in functions.yaml")


class TriggerWithFiresView(TriggerView):
    """A trigger, and what it has done."""

    fires: list[FireView] = Field(description="Its latest fires, newest first, at most 100")


class StartedView(BaseModel):
    """The outcome of one fire: the call, job or run that a trigger has started, if any."""

    trigger: str
    outcome: Outcome = Field(description="`known`: the same event had started it before")
    id: str | None = Field(None, description="Of what was started")
    url: str | None = Field(None, description="Where it is seen how that stands")
    detail: str = ""


class EventsView(BaseModel):
    """The outcome of events that were published."""

    events: int = Field(description="How many were taken")
    started: list[StartedView] = Field(description="One for each trigger whose condition an event meets")


def fire_view(record: FireRecord) -> FireView:
    """Return a kept fire as the API shows it."""
    return FireView(
        at=moment(record.at),
        cause=record.cause,  # type: ignore[arg-type]
        scheduled=None if record.scheduled is None else moment(record.scheduled),
        outcome=record.outcome,
        id=record.id or None,
        url=PLACES[record.kind].format(record.id) if record.id else None,
        detail=record.detail,
    )


def started_view(fire: Fire, outcome: Outcome) -> StartedView:
    """Return a fire that was just carried out as the API shows it."""
    return StartedView(
        trigger=fire.trigger,
        outcome=outcome,
        id=fire.id or None,
        url=PLACES[fire.kind].format(fire.id) if fire.id else None,
        detail=fire.detail,
    )


def definition_view(definition: TriggerDefinition) -> dict[str, Any]:
    """Return a trigger's keys as they are written in functions.yaml."""
    return definition.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"name"})
