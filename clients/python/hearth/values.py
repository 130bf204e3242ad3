"""Values as bodies of requests, and bodies of answers as values. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
OCTETS = "application/octet-stream"


def encode(data: Any, headers: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, str]]:
    """Return the body and the header fields that bring `data` to a function. A handler gets an equal event.

    None is an empty body. Bytes are sent as they are. So is text with a content type other than JSON among `headers`.
    Anything else is sent as JSON. Raises `TypeError` or `ValueError` if JSON cannot hold it.
    """
    fields = dict(headers or {})
    given = next((value for name, value in fields.items() if name.lower() == "content-type"), None)
    if data is None:
        return b"", fields
    if isinstance(data, (bytes, bytearray, memoryview)):
        body, content_type = bytes(data), OCTETS
    elif isinstance(data, str) and given is not None and not is_json(given):
        body, content_type = data.encode(), given
    else:
        body, content_type = json.dumps(data, allow_nan=False, separators=(",", ":")).encode(), JSON
    if given is None:
        fields["content-type"] = content_type
    return body, fields


def decode(body: bytes, content_type: str) -> Any:
    """Return the value that an answer's body stands for: parsed JSON, text or bytes.

    Lines of JSON become a list. No body and no type is None. Raises `ValueError` if the body is not of its type.
    """
    if not body and (not content_type or is_json(content_type)):
        return None
    if is_json(content_type):
        return parse(body)
    if essence(content_type) == JSON_LINES:
        return [parse(line) for line in body.splitlines() if line.strip()]
    if essence(content_type).startswith("text/"):
        try:
            return body.decode(charset(content_type))
        except LookupError:  # Python does not know it, or it is no encoding of text
            return body.decode()
    return body


def parse(text: bytes | str) -> Any:
    """Return the value of a JSON text. Raises `ValueError` for anything else."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def is_json(content_type: str) -> bool:
    """Return whether a content type is that of JSON."""
    return essence(content_type) == JSON or essence(content_type).endswith("+json")


def essence(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def charset(content_type: str) -> str:
    """Return the encoding that a content type names, or UTF-8."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"')
    return "utf-8"
