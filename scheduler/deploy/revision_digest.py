"""Digest that tells one revision of a function from another."""

from __future__ import annotations

import json

from pool.host.uids import OWN_USER, SHARED_USER
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.source_folder import SourceCode, digest_of

SHAPES_NO_VERSION = ("source", "schemas", "retries", "max_event_age", "on_success", "on_failure", "callback")
"""Keys that do not affect how a call runs: the place of the code, the description of its input, and the handling of
accepted calls."""

NEWER_KEYS = ("stream", "pids", "nofile", "shm_size", "capabilities")
"""Keys that came after 0.1. With their defaults they do not count, so its warm containers are adopted."""
SAME_VERSION_USERS = {OWN_USER: SHARED_USER, SHARED_USER: f"{SHARED_USER} always"}
"""Values that replace these users in the digest. The default has the value from when all containers shared a user,
so a new release of the gateway adopts the instances of the one before."""


def version_digest(definition: FunctionDefinition, source: SourceCode | None, image_id: str) -> str:
    """Return the SHA-256, in hex, that identifies a revision. People are shown its first 12 digits.

    It covers the function's name, every key of its definition that affects calls, defaults included, the names and
    contents of the files of `source`, and the id of the image. So a new image behind the same reference, or another
    byte of code, makes a new revision. A folder that was moved, copied or touched does not. Times do not count, nor
    do paths of the host, except those of `volumes`.
    """
    keys = definition.model_dump(mode="json", exclude=set(SHAPES_NO_VERSION))
    for key in NEWER_KEYS:
        if getattr(definition, key) == FunctionDefinition.model_fields[key].default:
            del keys[key]
    keys["user"] = SAME_VERSION_USERS.get(definition.user, definition.user)
    return digest_of(
        [
            json.dumps(keys, sort_keys=True).encode(),
            source.digest().encode() if source is not None else b"",
            image_id.encode(),
        ]
    )
