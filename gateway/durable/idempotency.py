"""`Idempotency-Key`: the same key of the same caller with the same request starts once, whatever it starts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from gateway.access.access import Admission
from gateway.forwarding import HeaderList
from gateway.problems import Problem
from scheduler.durable.model import Idempotency

IDEMPOTENT_FOR = 24 * 3600.0
"""Seconds for which a key gives the same again."""
_KEY = re.compile(rb"[\x20-\x7e]{1,255}")


def parameter(gives: str) -> dict[str, Any]:
    """The header for the OpenAPI document; `gives` says what the same key gives."""
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "description": f"{gives} for 24 hours",
        "schema": {"type": "string", "maxLength": 255},
    }


def idempotency_of(
    admission: Admission, headers: HeaderList, body: bytes, shape: Sequence[str] = ()
) -> Idempotency | None:
    """The key that a request came with, if it came with one; `shape` is what else makes it the same request, beside
    content type and body. Raises `Problem`."""
    given = [value for name, value in headers if name == b"idempotency-key"]
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Problem(
            "bad-request", "Idempotency-Key must be one value of 1 to 255 printable ASCII characters"
        )
    types = [value for name, value in headers if name == b"content-type"]
    digest = hashlib.sha256(json.dumps([*shape, str(types)]).encode() + b"\0")
    digest.update(body)
    return Idempotency(admission.caller, given[0].decode(), digest.digest(), IDEMPOTENT_FOR)
