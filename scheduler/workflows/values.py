"""Conversion between bodies, which functions send and get, and values, which expressions read. Pure functions.

A JSON body becomes its value, text a string, and any other body an object of `content_type` and `base64`. The way
back is the inverse, so a step can pass on a picture that another step has answered.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Any

from scheduler.json_steps import dumps, loads
from scheduler.work import Body

MAX_BODY_BYTES = 8 * 2**20
"""Largest body that an expression can read, and largest input of a step."""
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
_BINARY = {"content_type", "base64"}
_GUESSED = ("", "application/x-www-form-urlencoded", "multipart/form-data")
"""Content types that clients set by default. Such a body is JSON if it parses as JSON."""


EMPTY_BODY = Body(b"", "")


def body_to_value(body: Body) -> Any:
    """Return a body as a value. Raises ValueError if it is too large, or not of its content type."""
    if len(body.data) > MAX_BODY_BYTES:
        raise ValueError(
            f"has {len(body.data)} bytes, and {MAX_BODY_BYTES} is the most that a workflow takes"
        )
    if not body.data:
        return None
    kind = body.content_type.partition(";")[0].strip().lower()
    if kind == JSON or kind.endswith("+json"):
        return _parsed(body.data)
    if kind in _GUESSED:
        try:
            return _parsed(body.data)
        except ValueError:
            return _text_or_binary(body.data, "application/octet-stream")
    if kind.startswith("text/"):
        return _text_or_binary(body.data, body.content_type)
    return _binary(body.data, body.content_type)


def value_to_body(value: Any) -> Body:
    """Return a value as a body. Raises ValueError if it cannot be sent or is too large."""
    if value is None:
        return EMPTY_BODY
    if isinstance(value, str):
        body = Body(value.encode(), TEXT)
    elif isinstance(value, dict) and value.keys() == _BINARY:
        body = _unpacked(value)
    else:
        try:
            body = Body(dumps(value, allow_nan=False, separators=(",", ":")), JSON)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"cannot be written as JSON: {error}") from error
    if len(body.data) > MAX_BODY_BYTES:
        raise ValueError(
            f"has {len(body.data)} bytes, and {MAX_BODY_BYTES} is the most that a workflow takes"
        )
    return body


def _parsed(data: bytes) -> Any:
    try:
        return loads(data, _no_number)
    except RecursionError:
        raise ValueError("is JSON that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from error


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _text_or_binary(data: bytes, content_type: str) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _binary(data, content_type)


def _binary(data: bytes, content_type: str) -> dict[str, str]:
    return {"content_type": content_type, "base64": b64encode(data).decode()}


def _unpacked(value: dict[str, Any]) -> Body:
    kind, text = value["content_type"], value["base64"]
    if not isinstance(kind, str) or not isinstance(text, str):
        raise ValueError("has a `content_type` or `base64` that is not text")
    if not kind.isascii() or not kind.isprintable():
        raise ValueError("has a `content_type` that no header can hold")
    try:
        return Body(b64decode(text, validate=True), kind)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"has a `base64` that is not valid base64: {error}") from error
