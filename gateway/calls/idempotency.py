"""`Idempotency-Key`: the same key of the same caller with the same request starts once, whatever it starts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from gateway.access.access import Admission
from gateway.http.forwarding import HeaderList
from gateway.http.problems import Problem
from scheduler.calls.model import Idempotency

KEY_LIFE_SECONDS = 24 * 3600.0
"""Time for which a key gives the same call, job or run again."""
_KEY = re.compile(rb"[\x20-\x7e]{1,255}")


def parameter(gives: str) -> dict[str, Any]:
    """Return the header for the OpenAPI document; `gives` describes the effect of the same key."""
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "description": f"{gives} for 24 hours",
        "schema": {"type": "string", "maxLength": 255},
    }


class RequestDigest:
    """The digest by which two requests with one key are compared: content type, `shape`, and the body as it comes."""

    def __init__(self, headers: HeaderList, shape: Sequence[str] = ()) -> None:
        types = [value for name, value in headers if name == b"content-type"]
        self._hash = hashlib.sha256(json.dumps([*shape, str(types)]).encode() + b"\0")

    def add(self, data: bytes) -> None:
        """Take in the next piece of the body."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """Return the digest of all that was added."""
        return self._hash.digest()


def idempotency_of(
    admission: Admission, headers: HeaderList, body: bytes, shape: Sequence[str] = ()
) -> Idempotency | None:
    """Return the key that a request came with, or None if it came without.

    Requests are the same if `shape`, content type and body are. Raises `Problem`.
    """
    if (key := key_of(headers)) is None:
        return None
    digest = RequestDigest(headers, shape)
    digest.add(body)
    return known_by(admission, key, digest)


def known_by(admission: Admission, key: str, digest: RequestDigest) -> Idempotency:
    """Return the key of a request that was read already."""
    return Idempotency(admission.caller, key, digest.digest(), KEY_LIFE_SECONDS)


def key_of(headers: HeaderList) -> str | None:
    """Return the key that a request came with, or None if it came without. Raises `Problem`."""
    given = [value for name, value in headers if name == b"idempotency-key"]
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Problem(
            "bad-request", "Idempotency-Key must be one value of 1 to 255 printable ASCII characters"
        )
    return given[0].decode()
