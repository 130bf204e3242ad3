"""Idempotency keys of what is begun and is no call, such as a job: what each was used for, inside somebody's
transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from scheduler.calls.model import Idempotency
from scheduler.calls.store import KeyReused

PRUNED_AT_ONCE = 2000
"""Keys of each kind that one transaction forgets: those who wait for the next one wait for it."""
T = TypeVar("T")
Show = Callable[[sqlite3.Connection, str], T | None]


def known(db: sqlite3.Connection, scope: str, key: Idempotency, now: float, show: Show[T]) -> T | None:
    """What was begun with a key, as `show` has it by its id; None: nothing was, or it is forgotten. Keys of different
    scopes do not meet. Raises `KeyReused`."""
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
    """Record what a key was used for."""
    db.execute(
        "INSERT OR REPLACE INTO start_keys VALUES (?, ?, ?, ?, ?, ?)",
        (key.caller, scope, key.key, key.digest, id, now + key.seconds),
    )


def prune(db: sqlite3.Connection, now: float) -> None:
    """Forget some keys, of calls too, that are too old to give anything again."""
    for table, columns in (("start_keys", "caller, scope, key"), ("idempotency", "caller, function, key")):
        oldest = f"SELECT {columns} FROM {table} WHERE expires < ? ORDER BY expires LIMIT {PRUNED_AT_ONCE}"
        db.execute(f"DELETE FROM {table} WHERE ({columns}) IN ({oldest})", (now,))
