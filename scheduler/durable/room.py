"""Whether the file of the store may grow, within somebody's operation."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from scheduler.durable.store import StoreFull

MakeRoom = Callable[[sqlite3.Connection], None]
"""Forgets old calls where the file is full, and raises `StoreFull` if that is not enough."""


def has_room(db: sqlite3.Connection, make_room: MakeRoom) -> bool:
    """Whether there is room for more, now that what could be forgotten is."""
    try:
        make_room(db)
    except StoreFull:
        return False
    return True
