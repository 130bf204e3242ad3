"""The route of webhooks: POST /hooks/NAME, whose messages are signed instead of coming with a key."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from gateway.api.dependencies import DispatcherPart, HooksPart, TriggersPart, WorkQueuesPart
from gateway.api.openapi import problem_responses
from gateway.api.triggers.events import TAKEN, carried_out, check_open
from gateway.api.triggers.views import EventsView
from gateway.http.problems import Problem
from gateway.invoke.body import each_piece
from scheduler.definitions.triggers import TriggerDefinition, Webhook
from scheduler.triggers.event import Event
from scheduler.triggers.triggers import Triggers
from scheduler.work import Fire

MESSAGE: dict[str, Any] = {
    "requestBody": {
        "description": "The message, signed as the trigger's `signature` says",
        "content": {"*/*": {"schema": {}}},
    }
}

router = APIRouter(tags=["triggers"])


def fire_of(triggers: Triggers, definition: TriggerDefinition, webhook: Webhook, event: Event) -> Fire:
    """Return the fire that a message to a webhook becomes. The same message brings the same fire."""
    known_by = hashlib.sha256(event.data).hexdigest() if webhook.once == "body" else event.id
    return triggers.fire_of(definition, event, "webhook", known_by=known_by)


@router.post(
    "/hooks/{trigger}",
    status_code=202,
    summary="Deliver to a webhook",
    response_description="What it starts is on disk",
    responses=problem_responses(*TAKEN, "unauthorized", "conflict"),
    openapi_extra=MESSAGE,
)
async def deliver(
    trigger: Annotated[str, Path(description="Name of a trigger with a `webhook`", examples=["on-push"])],
    request: Request,
    triggers: TriggersPart,
    dispatcher: DispatcherPart,
    hooks: HooksPart,
    work_queues: WorkQueuesPart,
) -> EventsView:
    """Take a signed message of another system, as an event for this trigger. Its signature is its key."""
    check_open(triggers, dispatcher)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}
    message = hooks.message(trigger, headers)
    await each_piece(request, hooks.largest(), "the most that webhooks take", message.add)
    definition, webhook, event = await work_queues.hooks.do(message.size, lambda: hooks.event_of(message))
    if trigger in triggers.paused:
        raise Problem("conflict", f"the trigger {trigger} is paused")
    if not triggers.passes(webhook.filters or (), event):
        return await carried_out(triggers, [], 1)
    fire = await work_queues.hooks.do(message.size, lambda: fire_of(triggers, definition, webhook, event))
    return await carried_out(triggers, [fire], 1)
