"""Idempotency keys of runs and jobs, with what each was used for, inside somebody's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from scheduler.calls.model import Idempotency
from scheduler.calls.store import KeyReused

PRUNED_AT_ONCE = 2000
"""Keys of each kind that one transaction forgets: the next transaction waits for it."""
T = TypeVar("T")
Show = Callable[[sqlite3.Connection, str], T | None]


def known(db: sqlite3.Connection, scope: str, key: Idempotency, now: float, show: Show[T]) -> T | None:
    """Return what was begun with a key, by way of `show`, or None if nothing was or it is forgotten.

    Keys of different scopes are different keys. Raises `KeyReused`.
    """
    row = db.execute(
        "SELECT digest, id FROM start_keys WHERE caller = ? AND scope = ? AND key = ? AND expires > ?",
        (key.caller, scope, key.key, now),
    ).fetchone()
    if row is None or (begun := show(db, row[1])) is None:
        return None
    if row[0] != key.digest:
        raise KeyReused
    return begun


def remember(db: sqlite3.Connection, scope: str, key: Idempotency, id: str, now: float) -> None:
    """Record the id that a key was used for."""
    db.execute(
        "INSERT OR REPLACE INTO start_keys VALUES (?, ?, ?, ?, ?, ?)",
        (key.caller, scope, key.key, key.digest, id, now + key.seconds),
    )


def prune(db: sqlite3.Connection, now: float) -> None:
    """Forget some expired keys, also those of calls."""
    for table, columns in (("start_keys", "caller, scope, key"), ("idempotency", "caller, function, key")):
        oldest = f"SELECT {columns} FROM {table} WHERE expires < ? ORDER BY expires LIMIT {PRUNED_AT_ONCE}"
        db.execute(f"DELETE FROM {table} WHERE ({columns}) IN ({oldest})", (now,))
