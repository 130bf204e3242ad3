"""Ids by their first digits, found by the index of ids."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Literal, TypeVar

R = TypeVar("R")
MOST_LOOKED_AT = 1000
"""Records that one search reads. Ids are random, so even four digits fit few of a million."""
MOST_FOUND = 10
"""Ids that one search returns. Two already say that the digits are too few."""
AFTER_DIGITS = "g"
"""Sorts behind every hexadecimal digit, so that ids with a prefix are one range of the index."""


def ids_with_prefix(
    db: sqlite3.Connection,
    table: Literal["invocations", "jobs", "runs"],
    show: Callable[[sqlite3.Connection, str], R | None],
    prefix: str,
    visible: Callable[[R], bool],
) -> list[str]:
    """Return a few ids of visible records that begin with these hexadecimal digits. `show` reads a record."""
    found: list[str] = []
    ids = db.execute(
        f"SELECT id FROM {table} WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (prefix, prefix + AFTER_DIGITS, MOST_LOOKED_AT),
    )
    for (id,) in ids:
        record = show(db, id)
        if record is not None and visible(record):
            found.append(id)
            if len(found) == MOST_FOUND:
                break
    return found
