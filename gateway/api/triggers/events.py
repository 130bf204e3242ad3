"""The route that events come in by: POST /events."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from gateway.access.access import CURRENT, check_may_start_any
from gateway.api.dependencies import AccessPart, DispatcherPart, TriggersPart, WorkQueuesPart
from gateway.api.openapi import problem_responses
from gateway.api.triggers.views import EventsView, started_view
from gateway.http.pieces import SMALL_BODY_BYTES, Turn
from gateway.http.problems import Problem
from gateway.invoke.body import whole_document
from scheduler.calls.store import StoreError
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.triggers.cloud_events import BATCH, STRUCTURED, EventFault, parse_http
from scheduler.triggers.triggers import Triggers
from scheduler.work import Fire

LARGEST_EVENTS = 6 * 2**20
"""Bytes of one event, or of one batch."""
EVENT = {
    "specversion": "1.0",
    "id": "42",
    "source": "/shop",
    "type": "com.example.order.paid",
    "data": {"order": 42},
}
EVENTS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One event (structured), a list of them (batch), or any data with the attributes in `ce-` "
        "headers (binary). At most 6 MiB",
        "content": {
            STRUCTURED: {"schema": {"type": "object"}, "example": EVENT},
            BATCH: {"schema": {"type": "array", "items": {"type": "object"}}, "example": [EVENT]},
            "*/*": {"schema": {}},
        },
    }
}
TAKEN = ("bad-request", "body-timeout", "body-too-large", "busy", "store-failed", "no-capacity", "draining")

router = APIRouter(tags=["triggers"])


def check_open(triggers: Triggers, dispatcher: Dispatcher) -> None:
    """Raise `Problem` where triggers cannot fire yet, or not any more."""
    if dispatcher.draining:
        raise Problem("draining", "the gateway is shutting down", retry_after=5.0)
    if not triggers.is_ready:
        raise Problem("no-capacity", "the triggers are being loaded", retry_after=2.0)


async def carried_out(
    triggers: Triggers, fires: list[Fire], events: int, sender: str | None = None
) -> EventsView:
    """Return what so many events have started, when it is on disk. `sender` is that of a `Fire`."""
    outcomes = await triggers.carry_out(fires, sender=sender)
    return EventsView(events=events, started=list(map(started_view, fires, outcomes)))


def found(looks: Iterable[Fire | None]) -> list[Fire]:
    """Return the fires that looks at triggers bring."""
    return [fire for fire in looks if fire is not None]


@router.post(
    "/events",
    status_code=202,
    summary="Publish events",
    response_description="What they start is on disk",
    responses=problem_responses(*TAKEN),
    openapi_extra=EVENTS,
)
async def publish_events(
    request: Request,
    triggers: TriggersPart,
    dispatcher: DispatcherPart,
    access: AccessPart,
    work_queues: WorkQueuesPart,
) -> EventsView:
    """Start the action of every trigger whose condition one of these CloudEvents (1.0) meets, and whose functions
    the caller may invoke. An event with the `source` and `id` of an earlier one starts nothing again."""
    check_open(triggers, dispatcher)
    check_may_start_any(triggers.startable())
    async with whole_document(request, LARGEST_EVENTS, "the most that events may have") as body:
        headers = request.scope["headers"]
        try:
            events = await work_queues.events.do(len(body), lambda: parse_http(headers, body))
        except EventFault as error:
            raise Problem("bad-request", f"this is no CloudEvent: {error}") from None
        caller, more = CURRENT.get(), max(0, len(events) - 1)
        if (over_rate := access.charge(caller, more)) is not None:
            raise over_rate
        fires: list[Fire] = []
        turn = Turn()
        for event in events:
            looks = triggers.looks(event, allowed=caller.may_invoke)
            if len(event.data) > SMALL_BODY_BYTES:  # a workflow's or a job's input is parsed
                fires += await work_queues.events.do(len(event.data), partial(found, looks))
                continue
            for fire in looks:
                await turn.rest()
                if fire is not None:
                    fires.append(fire)
        try:
            return await carried_out(triggers, fires, len(events), caller.caller)
        except StoreError:
            access.give_back(caller, more)  # nothing is started, and its sender is told to send it again
            raise
