"""Makes events of messages: the CloudEvent that a message holds, or one that is made of it."""

from __future__ import annotations

import json
from urllib.parse import quote

from gateway.brokers.broker import Message
from scheduler.definitions.brokers import BrokerDefinition
from scheduler.triggers.cloud_events import EventFault, is_media_type, parse_http, parse_structured
from scheduler.triggers.event import REQUIRED, Event

LARGEST_MESSAGE_BYTES = 6 * 2**20
"""Limit of a message, as of POST /events: one that can never be kept would hold up all behind it."""


def events_of(message: Message, definition: BrokerDefinition, address: str) -> list[Event]:
    """Return the events of a message, several if it is a batch.

    Raises `EventFault` for a message that claims to be a CloudEvent and is not, that has no data, or is too large.
    """
    if message.fault is not None:
        raise EventFault(message.fault)
    if len(message.data) > LARGEST_MESSAGE_BYTES:
        raise EventFault(f"has {len(message.data)} bytes, more than {LARGEST_MESSAGE_BYTES}")
    if message.content_type is None and _is_structured(message.data):
        return [parse_structured(message.data)]
    headers = [
        (f"ce-{name.lower()}".encode(), quote(value).encode()) for name, value in message.attributes.items()
    ]
    # A content type that is no media type, like `json`, is left out: the message does not claim to be a CloudEvent.
    if message.content_type is not None and (message.attributes or is_media_type(message.content_type)):
        headers.append((b"content-type", message.content_type.encode()))
        if message.content_type.lower().startswith("application/cloudevents"):
            return parse_http(headers, message.data)  # attributes that it lacks are not made up
    defaults = {
        "specversion": "1.0",
        "id": message.id,
        "source": definition.source or address,
        "type": definition.type or f"hearth.{definition.kind}.message",
    }
    defaults |= {
        name: value
        for name, value in (("subject", message.subject), ("time", message.time))
        if value is not None
    }
    return parse_http(headers, message.data, defaults)


def _is_structured(data: bytes) -> bool:
    """Return whether data is the JSON of a CloudEvent, though no content type says so."""
    if not data.lstrip().startswith(b"{") or b'"specversion"' not in data:
        return False
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return all(isinstance(given.get(name), str) for name in REQUIRED)
