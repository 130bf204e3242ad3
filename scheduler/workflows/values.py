"""What travels between steps: bodies as values that expressions can look into, and values as bodies. Pure functions.

JSON is what it is, text a string, and every other body an object of `content_type` and `base64`; the way back is the
same, so that a picture that one step has answered is the body that the next is called with.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Any

from scheduler.json_steps import dumps, loads
from scheduler.work import Body

LARGEST = 8 * 2**20
"""Bytes of one body that an expression can look at, and of one that a step is called with."""
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
_BINARY = {"content_type", "base64"}
_GUESSED = ("", "application/x-www-form-urlencoded", "multipart/form-data")
"""Types that clients set when they mean none: such a body is JSON if it parses as that."""


NOTHING = Body(b"", "")


def value_of(body: Body) -> Any:
    """What expressions see of a body. Raises ValueError for one that is not what it says, or is too large."""
    if len(body.data) > LARGEST:
        raise ValueError(f"has {len(body.data)} bytes, and {LARGEST} is the most that a workflow takes")
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


def body_of(value: Any) -> Body:
    """The body that a value is sent as. Raises ValueError for one that cannot be, or is too large."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        body = Body(value.encode(), TEXT)
    elif isinstance(value, dict) and value.keys() == _BINARY:
        body = _unpacked(value)
    else:
        try:
            body = Body(dumps(value, allow_nan=False, separators=(",", ":")), JSON)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"cannot be written as JSON: {error}") from error
    if len(body.data) > LARGEST:
        raise ValueError(f"has {len(body.data)} bytes, and {LARGEST} is the most that a workflow takes")
    return body


def _parsed(data: bytes) -> Any:
    try:
        return loads(data, _no_number)
    except RecursionError:
        raise ValueError("is JSON that is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from error


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


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
        raise ValueError("has a `content_type` or `base64` that is no text")
    if not kind.isascii() or not kind.isprintable():
        raise ValueError("has a `content_type` that no header can hold")
    try:
        return Body(b64decode(text, validate=True), kind)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"has a `base64` that is none: {error}") from error
