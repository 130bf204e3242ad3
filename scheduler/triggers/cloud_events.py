"""CloudEvents 1.0 over HTTP: reading and writing binary, structured and batched events. The SDK checks attributes."""

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
MAX_EVENTS_IN_BATCH = 1000
"""Events of one batch; the triggers look at all of them in one turn."""
MAX_ATTRIBUTE_CHARACTERS = 2048
"""Longest value of one attribute; it becomes a header."""
MAX_ATTRIBUTES = 32
"""Attributes of one event; the specification names ten."""
MAX_HEADERS_BYTES = 60 * 1024
"""All attributes of one event as headers. Functions read a request's head of up to 64 KiB."""
_NAME = re.compile(r"[a-z0-9]{1,64}")
_MEDIA = re.compile(r"[!-.0-~]+/[ -~]+")
_JSON = re.compile(r"(?:application|text)/(?:[^;]*\+)?json *(?:;.*)?", re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ESCAPED = re.compile(r"\\(.)")
_SAFE = "".join(character for character in map(chr, range(0x21, 0x7F)) if character not in '"%')
"""Characters that a header holds unescaped, by the HTTP binding of CloudEvents."""


class EventFault(ValueError):
    """A message is not a valid CloudEvent of version 1.0; the text says why."""


class _Bytes(JSONFormat):
    """Format that leaves the data as bytes: only the receiver parses it."""

    def read_data(self, body: bytes, datacontenttype: str | None) -> Any:
        return body


def is_event(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether the headers of a message declare events. It is asked for every answer of an accepted call."""
    given = dict(reversed(headers))  # the first of several fields of one name counts, as in `parse_http`
    content_type = given.get(b"content-type", b"application/json")
    return (
        (content_type != b"application/json" and _media(content_type) in (STRUCTURED, BATCH))
        or b"ce-type" in given
        or b"ce-specversion" in given
    )


def is_media_type(content_type: str) -> bool:
    """Return whether an event may have this as its `datacontenttype`."""
    return bool(_MEDIA.fullmatch(content_type))


def parse_http(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, defaults: Mapping[str, str] | None = None
) -> list[Event]:
    """Return the events of a message. Names of `headers` are in lower case. `defaults` replace missing attributes.

    Raises `EventFault`.
    """
    headers = list(headers)
    types = [value for name, value in headers if name == b"content-type"]
    media = _media(types[0]) if types else ""
    if media == BATCH:
        return parse_batch(body, defaults)
    if media == STRUCTURED:
        return [parse_structured(body, defaults)]
    if media.startswith("application/cloudevents"):
        raise EventFault(f"{media} is not supported; send {STRUCTURED} or {BATCH}")
    return [parse_binary(headers, body, defaults)]


def parse_binary(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, defaults: Mapping[str, str] | None = None
) -> Event:
    """Return the event whose attributes are the `ce-` headers. Raises `EventFault`."""
    given = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    fields = {f"ce-{name}": quote(value, safe=_SAFE) for name, value in (defaults or {}).items()}
    fields |= {
        name: _unquoted(value) if name.startswith("ce-") else value
        for name, value in given.items()
        if name.startswith("ce-") or name == "content-type"
    }
    for name in REQUIRED:  # the SDK would invent values
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


def parse_structured(body: bytes, defaults: Mapping[str, str] | None = None) -> Event:
    """Return the event in one JSON object. Raises `EventFault`."""
    return _of_object(_json(body), defaults or {})


def parse_batch(body: bytes, defaults: Mapping[str, str] | None = None) -> list[Event]:
    """Return the events of a JSON list, `MAX_EVENTS_IN_BATCH` at most. Each gets a default `id` of its own.

    Raises `EventFault` if any of them is faulty.
    """
    items = _json(body)
    if not isinstance(items, list):
        raise EventFault("a batch is a JSON list of events")
    if len(items) > MAX_EVENTS_IN_BATCH:
        raise EventFault(f"a batch holds at most {MAX_EVENTS_IN_BATCH} events, not {len(items)}")
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
    """Return the headers of an event in binary mode; its data is the body."""
    headers = [
        (f"ce-{name}".encode(), quote(value, safe=_SAFE).encode())
        for name, value in event.attributes.items()
        if name != "datacontenttype"
    ]
    if event.content_type is not None:
        headers.append((b"content-type", event.content_type.encode()))
    return headers


def structured_body(event: Event) -> bytes:
    """Return an event in structured mode: one JSON object."""
    shown: dict[str, Any] = dict(event.attributes)
    if event.data:
        try:
            if _is_json(event.content_type):
                shown["data"] = loads(event.data)
            else:
                shown["data"] = event.data.decode()
            return dumps(shown, allow_nan=False)
        except (ValueError, RecursionError):  # not JSON, or nested too deeply to be written again
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
            raise EventFault("`data_base64` is not valid base64") from None
    elif inline is not None:
        content_type = attributes.setdefault(
            "datacontenttype", "application/json"
        )  # as the JSON format has it
        as_text = isinstance(inline, str) and not _is_json(content_type)
        try:
            data = inline.encode(errors="replace") if as_text else dumps(inline, allow_nan=False)
        except (ValueError, RecursionError):
            raise EventFault(
                "`data` is nested too deeply, or holds a number that JSON does not have"
            ) from None
    return _checked(attributes, data)


def _checked(given: Mapping[str, Any], data: bytes) -> Event:
    """Return an event with these attributes as text. Raises `EventFault` if one is not valid."""
    if len(given) > MAX_ATTRIBUTES:
        raise EventFault(f"it has more than {MAX_ATTRIBUTES} attributes; put the rest into its data")
    attributes: dict[str, str] = {}
    for name, value in given.items():
        if not _NAME.fullmatch(name):
            raise EventFault(
                f"{name!r} is not an attribute's name; use 1 to 64 lower-case letters and digits"
            )
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str | int):
            raise EventFault(f"{name!r} must be text, a whole number, true or false")
        attributes[name] = str(value)
        if len(attributes[name]) > MAX_ATTRIBUTE_CHARACTERS:
            raise EventFault(f"{name!r} is over {MAX_ATTRIBUTE_CHARACTERS} characters")
        if any("\ud800" <= character <= "\udfff" for character in attributes[name]):
            raise EventFault(f"{name!r} holds half of a surrogate pair; send the whole character")
    if not is_media_type(attributes.get("datacontenttype", "any/thing")):
        raise EventFault("'datacontenttype' is not a media type; write one like application/json")
    typed: dict[str, Any] = dict(attributes)
    try:
        if "time" in typed:
            typed["time"] = datetime.fromisoformat(typed["time"])
        CloudEvent(typed)
    except (BaseCloudEventException, ValueError) as error:
        raise EventFault(_told(error)) from None
    event = Event(attributes, data)
    if sum(len(name) + len(value) + 4 for name, value in binary_headers(event)) > MAX_HEADERS_BYTES:
        raise EventFault(f"its attributes are over {MAX_HEADERS_BYTES} bytes as header fields; shorten them")
    return event


def _unquoted(value: str) -> str:
    """Return a header's value without its quotes; the SDK leaves them in."""
    return _ESCAPED.sub(r"\1", value[1:-1]) if _QUOTED.fullmatch(value) else value


def _told(error: Exception) -> str:
    if isinstance(error, CloudEventValidationError):
        return "; ".join(str(fault) for faults in error.errors.values() for fault in faults)
    return str(error)


def _json(body: bytes) -> Any:
    try:
        return loads(body)
    except (ValueError, RecursionError) as error:
        raise EventFault(f"it is not valid JSON: {error}") from None


def _is_json(content_type: object) -> bool:
    return content_type is None or (isinstance(content_type, str) and bool(_JSON.fullmatch(content_type)))


def _media(content_type: bytes) -> str:
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")
