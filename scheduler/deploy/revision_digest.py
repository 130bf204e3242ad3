"""The digest that tells one revision of a function from another."""

from __future__ import annotations

import json

from pool.host.uids import OWN_USER, SHARED_USER
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.source_folder import SourceCode, digest_of

SHAPES_NO_VERSION = ("source", "retries", "max_event_age", "on_success", "on_failure", "callback")
"""Keys that say nothing of how a call is run: where the code is, and what is done about accepted calls."""


SAME_VERSION_USERS = {OWN_USER: SHARED_USER, SHARED_USER: f"{SHARED_USER} always"}
"""Stands for these users in a version. The default's is what it was when all containers shared a user: a new
release of the gateway adopts what the one before has left."""


def version_digest(definition: FunctionDefinition, source: SourceCode | None, image_id: str) -> str:
    """SHA-256, in hex, of what shapes a function version; the first 12 digits are what people are shown.

    These are: the function's name; every key of its definition, defaults included, but for those that shape nothing;
    the names and contents of the files of `source`, not where the folder is; and the id of the image that its
    containers are made from. So a new image behind the same reference, or another byte of code, is a new version,
    and a folder that was moved, copied or touched is not. No times, and no paths of the host but those of `volumes`.
    """
    keys = definition.model_dump(mode="json", exclude=set(SHAPES_NO_VERSION))
    keys["user"] = SAME_VERSION_USERS.get(definition.user, definition.user)
    return digest_of(
        [
            json.dumps(keys, sort_keys=True).encode(),
            source.digest().encode() if source is not None else b"",
            image_id.encode(),
        ]
    )
