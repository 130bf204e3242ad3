"""CloudEvents 1.0 as they come and go: binary, structured, batch. The SDK checks the attributes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from cloudevents.core.bindings.http import HTTPMessage, from_binary
from cloudevents.core.exceptions import BaseCloudEventException, CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from scheduler.json_steps import dumps, loads
from scheduler.triggers.event import REQUIRED, Event
from scheduler.work import HeaderList

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
MOST_IN_BATCH = 1000
LONGEST = 2048
"""Characters of an attribute."""
MOST_ATTRIBUTES = 32
LARGEST = 60 * 1024
"""Bytes of all attributes as fields: they are part of a request's head, which functions read up to 64 KiB of."""
_NAME = re.compile(r"[a-z0-9]{1,64}")
_MEDIA = re.compile(r"[!-.0-~]+/[ -~]+")
_JSON = re.compile(r"(?:application|text)/(?:[^;]*\+)?json *(?:;.*)?", re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ESCAPED = re.compile(r"\\(.)")
_SAFE = "".join(character for character in map(chr, range(0x21, 0x7F)) if character not in '"%')
"""What stands for itself in a field, by the HTTP binding of CloudEvents."""


class EventFault(ValueError):
    """It is no CloudEvent of version 1.0; says why."""


class _Bytes(JSONFormat):
    """Leaves data as it is: to take it apart is the receiver's."""

    def read_data(self, body: bytes, datacontenttype: str | None) -> Any:
        return body


def is_event(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a message says that it is one event or several. Every answer of an accepted call is asked."""
    given = dict(reversed(headers))  # of several fields of a name the first, as `of_http` has it
    content_type = given.get(b"content-type", b"application/json")
    return (
        (content_type != b"application/json" and _media(content_type) in (STRUCTURED, BATCH))
        or b"ce-type" in given
        or b"ce-specversion" in given
    )


def is_media_type(content_type: str) -> bool:
    """Whether an event may have this as its `datacontenttype`."""
    return bool(_MEDIA.fullmatch(content_type))


def of_http(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, defaults: Mapping[str, str] | None = None
) -> list[Event]:
    """The events of a message; names of fields in lower case. `defaults` are attributes that it may leave out.

    Raises `EventFault`.
    """
    headers = list(headers)
    types = [value for name, value in headers if name == b"content-type"]
    media = _media(types[0]) if types else ""
    if media == BATCH:
        return of_batch(body, defaults)
    if media == STRUCTURED:
        return [of_structured(body, defaults)]
    if media.startswith("application/cloudevents"):
        raise EventFault(f"{media} is not known here; there are {STRUCTURED} and {BATCH}")
    return [of_binary(headers, body, defaults)]


def of_binary(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, defaults: Mapping[str, str] | None = None
) -> Event:
    """The event whose attributes are the `ce-` fields. Raises `EventFault`."""
    given = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    fields = {f"ce-{name}": quote(value, safe=_SAFE) for name, value in (defaults or {}).items()}
    fields |= {
        name: _unquoted(value) if name.startswith("ce-") else value
        for name, value in given.items()
        if name.startswith("ce-") or name == "content-type"
    }
    for name in REQUIRED:  # the SDK would make some up
        if not fields.get(f"ce-{name}"):
            raise EventFault(f"the field ce-{name} is missing")
    try:
        event = from_binary(HTTPMessage(fields, body), _Bytes(), CloudEvent)
    except (BaseCloudEventException, ValueError) as error:
        raise EventFault(_told(error)) from None
    attributes = {str(name): value for name, value in event.get_attributes().items()}
    if "ce-time" in fields:
        attributes["time"] = fields["ce-time"]
    else:
        del attributes["time"]
    return _checked(attributes, body)


def of_structured(body: bytes, defaults: Mapping[str, str] | None = None) -> Event:
    """The event that is one JSON object. Raises `EventFault`."""
    return _of_object(_json(body), defaults or {})


def of_batch(body: bytes, defaults: Mapping[str, str] | None = None) -> list[Event]:
    """The events of a JSON list, at most `MOST_IN_BATCH`. Raises `EventFault`: one that is faulty spoils all.

    Each gets a default `id` of its own.
    """
    items = _json(body)
    if not isinstance(items, list):
        raise EventFault("a batch is a JSON list of events")
    if len(items) > MOST_IN_BATCH:
        raise EventFault(f"a batch holds at most {MOST_IN_BATCH} events, not {len(items)}")
    events = []
    for number, item in enumerate(items):
        own = dict(defaults or {})
        if "id" in own:
            own["id"] += f"-{number}"
        try:
            events.append(_of_object(item, own))
        except EventFault as error:
            raise EventFault(f"event {number}: {error}") from None
    return events


def binary_headers(event: Event) -> HeaderList:
    """The fields that tell an event in binary mode; its data is the body."""
    headers = [
        (f"ce-{name}".encode(), quote(value, safe=_SAFE).encode())
        for name, value in event.attributes.items()
        if name != "datacontenttype"
    ]
    if event.content_type is not None:
        headers.append((b"content-type", event.content_type.encode()))
    return headers


def structured(event: Event) -> bytes:
    """The event as one JSON object."""
    shown: dict[str, Any] = dict(event.attributes)
    if event.data:
        try:
            if _is_json(event.content_type):
                shown["data"] = loads(event.data)
            else:
                shown["data"] = event.data.decode()
            return dumps(shown, allow_nan=False)
        except (ValueError, RecursionError):  # no JSON, or nested too deep to be written again
            shown.pop("data", None)
            shown["data_base64"] = base64.b64encode(event.data).decode()
    return dumps(shown)


def _of_object(given: Any, defaults: Mapping[str, str]) -> Event:
    if not isinstance(given, dict):
        raise EventFault("an event is a JSON object")
    attributes = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    inline, encoded = attributes.pop("data", None), attributes.pop("data_base64", None)
    for name in REQUIRED:
        if not attributes.get(name):
            raise EventFault(f"{name!r} is missing")
    data = b""
    if inline is not None and encoded is not None:
        raise EventFault("it has `data` and `data_base64`; one of them holds the data")
    if encoded is not None:
        try:
            data = base64.b64decode(encoded, validate=True)
        except (ValueError, TypeError):
            raise EventFault("`data_base64` is no base64") from None
    elif inline is not None:
        content_type = attributes.setdefault(
            "datacontenttype", "application/json"
        )  # as the JSON format has it
        as_text = isinstance(inline, str) and not _is_json(content_type)
        try:
            data = inline.encode(errors="replace") if as_text else dumps(inline, allow_nan=False)
        except (ValueError, RecursionError):
            raise EventFault("`data` is nested too deep, or holds a number that JSON has not") from None
    return _checked(attributes, data)


def _checked(given: Mapping[str, Any], data: bytes) -> Event:
    """An event of these attributes, all as text. Raises `EventFault`."""
    if len(given) > MOST_ATTRIBUTES:
        raise EventFault(f"it has more than {MOST_ATTRIBUTES} attributes")
    attributes: dict[str, str] = {}
    for name, value in given.items():
        if not _NAME.fullmatch(name):
            raise EventFault(f"{name!r} is no name of an attribute: lower-case letters and digits")
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str | int):
            raise EventFault(f"{name!r} must be text, a whole number, true or false")
        attributes[name] = str(value)
        if len(attributes[name]) > LONGEST:
            raise EventFault(f"{name!r} is over {LONGEST} characters")
        if any("\ud800" <= character <= "\udfff" for character in attributes[name]):
            raise EventFault(f"{name!r} holds half a character")
    if not is_media_type(attributes.get("datacontenttype", "any/thing")):
        raise EventFault("'datacontenttype' is no media type")
    typed: dict[str, Any] = dict(attributes)
    try:
        if "time" in typed:
            typed["time"] = datetime.fromisoformat(typed["time"])
        CloudEvent(typed)
    except (BaseCloudEventException, ValueError) as error:
        raise EventFault(_told(error)) from None
    event = Event(attributes, data)
    if sum(len(name) + len(value) + 4 for name, value in binary_headers(event)) > LARGEST:
        raise EventFault(f"its attributes are over {LARGEST} bytes as header fields")
    return event


def _unquoted(value: str) -> str:
    """A field's value without the quotes that it may stand in; the SDK leaves them."""
    return _ESCAPED.sub(r"\1", value[1:-1]) if _QUOTED.fullmatch(value) else value


def _told(error: Exception) -> str:
    if isinstance(error, CloudEventValidationError):
        return "; ".join(str(fault) for faults in error.errors.values() for fault in faults)
    return str(error)


def _json(body: bytes) -> Any:
    try:
        return loads(body)
    except (ValueError, RecursionError) as error:
        raise EventFault(f"it is no JSON: {error}") from None


def _is_json(content_type: object) -> bool:
    return content_type is None or (isinstance(content_type, str) and bool(_JSON.fullmatch(content_type)))


def _media(content_type: bytes) -> str:
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")
