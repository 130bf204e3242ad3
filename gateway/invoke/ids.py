"""Ids of invocations: 128 random bits, which nobody can guess and no two calls share."""

from __future__ import annotations

import os

ID_BYTES = 16
BATCH = 256
"""Ids that are drawn at once. Drawing costs a system call, which an id each would pay for itself."""
_ready: list[str] = []


def new_id() -> str:
    """Return an id as 32 hexadecimal digits."""
    try:
        return _ready.pop()
    except IndexError:
        return _draw()


def _draw() -> str:
    drawn = os.urandom(ID_BYTES * BATCH).hex()
    first, *others = (drawn[at : at + 2 * ID_BYTES] for at in range(0, len(drawn), 2 * ID_BYTES))
    _ready.extend(others)
    return first


os.register_at_fork(after_in_child=_ready.clear)  # else both processes would give out the same ones
