"""What event a message is: the CloudEvent that it holds, or one that is made of it."""

from __future__ import annotations

import json
from urllib.parse import quote

from gateway.brokers.broker import Message
from scheduler.definitions.brokers import BrokerDefinition
from scheduler.triggers.cloud_events import EventFault, is_media_type, parse_http, parse_structured
from scheduler.triggers.event import REQUIRED, Event

LARGEST = 6 * 2**20
"""Bytes of a message, as many as POST /events takes: one that could never be kept would stand in the way of all."""


def events_of(message: Message, definition: BrokerDefinition, address: str) -> list[Event]:
    """The events of a message: several where it is a batch. Raises `EventFault` for one that says that it is a
    CloudEvent and is none, for one without data, and for one that is too large."""
    if message.fault is not None:
        raise EventFault(message.fault)
    if len(message.data) > LARGEST:
        raise EventFault(f"has {len(message.data)} bytes, more than {LARGEST}")
    if message.content_type is None and _is_structured(message.data):
        return [parse_structured(message.data)]
    headers = [
        (f"ce-{name.lower()}".encode(), quote(value).encode()) for name, value in message.attributes.items()
    ]
    # What is no media type, like `json`, is left out: the message does not say that it is a CloudEvent.
    if message.content_type is not None and (message.attributes or is_media_type(message.content_type)):
        headers.append((b"content-type", message.content_type.encode()))
        if message.content_type.lower().startswith("application/cloudevents"):
            return parse_http(headers, message.data)  # what it lacks is not made up
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
    """Whether it is the JSON of a CloudEvent, though nobody says so."""
    if not data.lstrip().startswith(b"{") or b'"specversion"' not in data:
        return False
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return all(isinstance(given.get(name), str) for name in REQUIRED)
