"""The route of webhooks: POST /hooks/NAME, whose messages are signed instead of coming with a key."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from gateway.body import whole_pieces
from gateway.openapi import problem_responses
from gateway.pieces import Desk
from gateway.problems import Problem
from gateway.triggers.events import TAGS, TAKEN, carried_out, check_open
from gateway.triggers.signatures import SCHEMES, Pieces, WrongSignature
from gateway.triggers.views import EventsView
from pool.clock import Clock
from scheduler.dispatcher import Dispatcher
from scheduler.trigger_definitions import LARGEST_MESSAGE, TriggerDefinition, Webhook
from scheduler.triggers.event import Event
from scheduler.triggers.model import Fire
from scheduler.triggers.triggers import Triggers
from scheduler.triggers.wire import EventFault

log = logging.getLogger("hearth.triggers")

NOBODYS_SECRET = secrets.token_bytes(32)
"""What a message is checked against that there is no webhook for: as much work, and never right."""
LOG_EVERY = 10.0
"""Seconds between two lines about what one webhook refuses: strangers send it."""
CHALLENGE = (b"www-authenticate", b'Signature realm="hearth"')
MESSAGE: dict[str, Any] = {
    "requestBody": {
        "description": "The message, signed as the trigger's `signature` says",
        "content": {"*/*": {"schema": {}}},
    }
}


class Hooks:
    """The webhooks of one gateway. Who does not sign with a webhook's secret cannot tell whether there is one: he is
    answered alike, and after the same work."""

    def __init__(self, triggers: Triggers, clock: Clock) -> None:
        self._triggers = triggers
        self._clock = clock
        self._logged: dict[str, float] = {}
        """When a webhook's refusals were logged last."""

    def largest(self) -> int:
        """Bytes that any of them takes, whatever its name: the limit of one would show that it is there."""
        webhooks = [trigger.webhook for trigger in self._triggers.all.values()]
        return max((webhook.max_body for webhook in webhooks if webhook is not None), default=LARGEST_MESSAGE)

    def take(
        self, name: str, headers: Mapping[str, str], body: Pieces
    ) -> tuple[TriggerDefinition, Webhook, Event]:
        """The trigger of this name, and the event that a message becomes for it. Raises `Problem`."""
        definition = self._triggers.all.get(name)
        webhook = None if definition is None else definition.webhook
        signature, secret = "github", NOBODYS_SECRET
        if definition is not None and webhook is not None:
            try:
                signature, secret = webhook.signature, self._triggers.secret(definition)
            except ValueError as error:
                self._tell(name, str(error))
        now = self._clock.wall()
        try:
            event = SCHEMES[signature](name, secret, headers, body, now)
        except WrongSignature as error:
            # The time that one way of signing takes would tell whose it is: both are checked.
            for other in SCHEMES.keys() - {signature}:
                with suppress(WrongSignature):
                    SCHEMES[other](name, NOBODYS_SECRET, headers, body, now)
            if webhook is not None:
                self._tell(name, str(error))
            detail = f"there is no webhook {name!r}, or the message is not signed with its secret"
            raise Problem("unauthorized", detail, headers=(CHALLENGE,)) from None
        except EventFault as error:
            raise Problem("bad-request", str(error)) from None
        assert definition is not None and webhook is not None, "nobody's secret is signed with"
        if sum(map(len, body)) > webhook.max_body:
            raise Problem(
                "body-too-large", f"the body is over {webhook.max_body} bytes (max_body of the webhook)"
            )
        return definition, webhook, event

    def _tell(self, name: str, why: str) -> None:
        """Log why a message is refused, for its sender is not told."""
        now = self._clock.now()
        if name not in self._logged or now - self._logged[name] >= LOG_EVERY:
            self._logged[name] = now
            log.warning("webhook %s refuses a message: %s", name, why)


def add_hook_routes(router: APIRouter, triggers: Triggers, clock: Clock, dispatcher: Dispatcher) -> None:
    """Add the route of one gateway."""
    hooks = Hooks(triggers, clock)
    desk = Desk()

    def fire_of(definition: TriggerDefinition, webhook: Webhook, event: Event) -> Fire:
        known_by = hashlib.sha256(event.data).hexdigest() if webhook.once == "body" else event.id
        return triggers.fire_of(definition, event, "webhook", known_by=known_by)

    @router.post(
        "/hooks/{trigger}",
        tags=TAGS,
        status_code=202,
        summary="Deliver to a webhook",
        response_description="What it starts is on disk",
        responses=problem_responses(*TAKEN, "unauthorized", "conflict"),
        openapi_extra=MESSAGE,
    )
    async def deliver(
        trigger: Annotated[str, Path(description="Name of a trigger with a `webhook`", examples=["on-push"])],
        request: Request,
    ) -> EventsView:
        """Take a signed message of another system, as an event for this trigger. Its signature is its key."""
        check_open(triggers, dispatcher)
        body = await whole_pieces(request, hooks.largest(), "the most that webhooks take")
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]
        }
        size = sum(map(len, body))
        definition, webhook, event = await desk.do(size, lambda: hooks.take(trigger, headers, body))
        if trigger in triggers.paused:
            raise Problem("conflict", f"the trigger {trigger} is paused")
        if not triggers.passes(webhook.filters or (), event):
            return await carried_out(triggers, [], 1)
        fire = await desk.do(size, lambda: fire_of(definition, webhook, event))
        return await carried_out(triggers, [fire], 1)
