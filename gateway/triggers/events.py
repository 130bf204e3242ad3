"""The routes that events come in by: POST /events, and a webhook for each trigger that has one."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from gateway.access.access import CURRENT, Access
from gateway.body import whole_body
from gateway.openapi import problem_responses
from gateway.problems import Problem
from gateway.triggers.signatures import SCHEMES, WrongSignature
from gateway.triggers.views import EventsView, started_view
from pool.clock import Clock
from scheduler.dispatcher import Dispatcher
from scheduler.triggers.model import Fire
from scheduler.triggers.triggers import Triggers
from scheduler.triggers.wire import BATCH, STRUCTURED, EventFault, of_http

log = logging.getLogger("hearth.triggers")

TAGS: list[str | Enum] = ["triggers"]
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
MESSAGE: dict[str, Any] = {
    "requestBody": {
        "description": "The message, signed as the trigger's `signature` says",
        "content": {"*/*": {"schema": {}}},
    }
}
TAKEN = ("bad-request", "body-timeout", "body-too-large", "store-failed", "no-capacity", "draining")


def check_open(triggers: Triggers, dispatcher: Dispatcher) -> None:
    """Raise `Problem` where triggers cannot fire yet, or not any more."""
    if dispatcher.draining:
        raise Problem("draining", "the gateway is shutting down", retry_after=5.0)
    if not triggers.is_ready:
        raise Problem("no-capacity", "the triggers are being loaded", retry_after=2.0)


def add_event_routes(
    router: APIRouter, triggers: Triggers, access: Access, clock: Clock, dispatcher: Dispatcher
) -> None:
    """Add the routes of one gateway."""

    async def carried_out(fires: list[Fire], events: int) -> EventsView:
        outcomes = await triggers.carry_out(fires)
        return EventsView(events=events, started=list(map(started_view, fires, outcomes)))

    @router.post(
        "/events",
        tags=TAGS,
        status_code=202,
        summary="Publish events",
        response_description="What they start is on disk",
        responses=problem_responses(*TAKEN),
        openapi_extra=EVENTS,
    )
    async def publish_events(request: Request) -> EventsView:
        """Start the action of every trigger whose condition one of these CloudEvents (1.0) meets, and whose functions
        the caller may invoke. An event with the `source` and `id` of an earlier one starts nothing again."""
        check_open(triggers, dispatcher)
        body = await whole_body(request, LARGEST_EVENTS, "the most that events may have")
        try:
            events = of_http(request.scope["headers"], body)
        except EventFault as error:
            raise Problem("bad-request", f"this is no CloudEvent: {error}") from None
        if (over_rate := access.charge(CURRENT.get(), max(0, len(events) - 1))) is not None:
            raise over_rate
        may_invoke = CURRENT.get().may_invoke
        fires: list[Fire] = []
        for event in events:
            await asyncio.sleep(0)  # a batch holds nobody up
            fires += triggers.fires_of(event, allowed=may_invoke)
        return await carried_out(fires, len(events))

    @router.post(
        "/hooks/{trigger}",
        tags=TAGS,
        status_code=202,
        summary="Deliver to a webhook",
        response_description="What it starts is on disk",
        responses=problem_responses(*TAKEN, "unauthorized", "not-found", "conflict", "internal-error"),
        openapi_extra=MESSAGE,
    )
    async def deliver(
        trigger: Annotated[str, Path(description="Name of a trigger with a `webhook`", examples=["on-push"])],
        request: Request,
    ) -> EventsView:
        """Take a signed message of another system, as an event for this trigger. Its signature is its key."""
        check_open(triggers, dispatcher)
        definition = triggers.all.get(trigger)
        webhook = None if definition is None else definition.webhook
        if definition is None or webhook is None:
            raise Problem("not-found", f"no trigger {trigger!r} has a webhook")
        body = await whole_body(request, webhook.max_body, "max_body of the webhook")
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]
        }
        try:
            secret = webhook.secret()
            event = SCHEMES[webhook.signature](trigger, secret, headers, body, clock.wall())
        except WrongSignature as error:
            challenge = (b"www-authenticate", b'Signature realm="hearth"')
            raise Problem("unauthorized", str(error), headers=(challenge,)) from None
        except EventFault as error:
            raise Problem("bad-request", str(error)) from None
        except ValueError as error:
            log.error("webhook %s: %s", trigger, error)  # for us; who sends this is nobody that we know
            raise Problem("conflict", "this webhook has no secret; the gateway's log says more") from None
        if trigger in triggers.paused:
            raise Problem("conflict", f"the trigger {trigger} is paused")
        passes = triggers.passes(webhook.filters or (), event)
        return await carried_out([triggers.fire_of(definition, event, "webhook")] if passes else [], 1)
