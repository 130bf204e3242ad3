"""The webhooks of a gateway: checks signed messages and makes events of them."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Mapping
from contextlib import suppress

from gateway.http.problems import Problem
from gateway.webhooks.signatures import SCHEMES, WrongSignature, signing
from pool.clock import Clock
from scheduler.definitions.triggers import DEFAULT_MESSAGE_BYTES, TriggerDefinition, Webhook
from scheduler.triggers.cloud_events import EventFault
from scheduler.triggers.event import Event
from scheduler.triggers.triggers import Triggers

log = logging.getLogger("hearth.triggers")

NOBODYS_SECRET = secrets.token_bytes(32)
"""Secret for messages to a webhook that does not exist: as much work, and never right."""
LOG_SECONDS = 10.0
"""Time between two log lines about refusals of one webhook: strangers decide how many there are."""
CHALLENGE = (b"www-authenticate", b'Signature realm="hearth"')


class HookMessage:
    """A message on its way to a webhook. It is hashed as it comes, and kept only if the webhook exists."""

    def __init__(
        self,
        name: str,
        definition: TriggerDefinition | None,
        signature: str,
        headers: Mapping[str, str],
        signings: Mapping[str, hmac.HMAC],
    ) -> None:
        self.name = name
        self.definition = definition
        self.signature = signature
        self.size = 0
        """Bytes of its body."""
        self._headers = headers
        self._signings = signings
        webhook = None if definition is None else definition.webhook
        self._most = 0 if webhook is None else webhook.max_body
        self._kept: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Hash the next piece of the body, and keep it if it may be used."""
        for signed in self._signings.values():
            signed.update(piece)
        self.size += len(piece)
        if self.size <= self._most:
            self._kept.append(piece)
        else:
            self._kept.clear()

    def take(self) -> bytes:
        """Return the body, once. It is empty if the webhook does not exist, or the body is over its limit."""
        body = b"".join(self._kept)
        self.drop()
        return body

    def drop(self) -> None:
        """Keep nothing of the body any more. Freeing many MiB takes some time."""
        self._kept.clear()

    def event(self, signature: str, now: float) -> Event:
        """Return the event that it becomes if it is signed this way. Raises `WrongSignature` and `EventFault`."""
        return SCHEMES[signature](self.name, self._signings[signature], self._headers, self.take, now)


class Hooks:
    """The webhooks of one gateway.

    A sender without a webhook's secret cannot tell whether the webhook exists: both are answered alike, after the
    same work.
    """

    def __init__(self, triggers: Triggers, clock: Clock) -> None:
        self._triggers = triggers
        self._clock = clock
        self._logged: dict[str, float] = {}
        """When a webhook's refusals were logged last."""

    def largest(self) -> int:
        """Return the bytes that any webhook takes: the limit of one alone would show that it exists."""
        webhooks = [trigger.webhook for trigger in self._triggers.all.values()]
        return max(
            (webhook.max_body for webhook in webhooks if webhook is not None), default=DEFAULT_MESSAGE_BYTES
        )

    def message(self, name: str, headers: Mapping[str, str]) -> HookMessage:
        """Begin to take a message for the webhook of this name, whether there is one or not."""
        definition = self._triggers.all.get(name)
        webhook = None if definition is None else definition.webhook
        signature, secret = "github", NOBODYS_SECRET
        if definition is not None and webhook is not None:
            try:
                signature, secret = webhook.signature, self._triggers.secret(definition)
            except ValueError as error:
                self._tell(name, str(error))
        # The time that one way of signing takes would tell whose it is: all are computed.
        secrets_of = dict.fromkeys(SCHEMES, NOBODYS_SECRET) | {signature: secret}
        signings = {other: signing(other, key, headers) for other, key in secrets_of.items()}
        return HookMessage(name, definition, signature, headers, signings)

    def event_of(self, message: HookMessage) -> tuple[TriggerDefinition, Webhook, Event]:
        """Return the trigger of a whole message, its webhook, and the event that it becomes. Raises `Problem`."""
        name, definition, now = message.name, message.definition, self._clock.wall()
        webhook = None if definition is None else definition.webhook
        try:
            event = message.event(message.signature, now)
        except WrongSignature as error:
            message.drop()
            for other in SCHEMES.keys() - {message.signature}:  # as much work as for any other name
                with suppress(WrongSignature):
                    message.event(other, now)
            if webhook is not None:
                self._tell(name, str(error))
            detail = f"there is no webhook {name!r}, or the message is not signed with its secret"
            raise Problem("unauthorized", detail, headers=(CHALLENGE,)) from None
        except EventFault as error:
            raise Problem("bad-request", str(error)) from None
        assert definition is not None and webhook is not None, "nobody's secret is signed with"
        if definition != self._triggers.all.get(name):
            raise Problem("conflict", f"the trigger {name} was changed meanwhile; send the message again")
        if message.size > webhook.max_body:
            raise Problem(
                "body-too-large", f"the body is over {webhook.max_body} bytes (max_body of the webhook)"
            )
        return definition, webhook, event

    def _tell(self, name: str, why: str) -> None:
        """Log why a message is refused, for its sender is not told."""
        now = self._clock.now()
        if name not in self._logged or now - self._logged[name] >= LOG_SECONDS:
            self._logged[name] = now
            log.warning("webhook %s refuses a message: %s", name, why)
