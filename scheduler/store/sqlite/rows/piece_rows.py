"""The rows of payloads: bodies that are too large for memory, kept in pieces as they come.

A payload is `filling` until what refers to it is recorded, then `kept`, and `gone` when that is forgotten: its pieces
are freed a few at a time, since those who wait for the next commit wait for that.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from scheduler.calls.leases import LeaseOwner

FREED_AT_ONCE = 64
"""Pieces that one round frees: 16 MiB of full ones."""


def announced(db: sqlite3.Connection) -> int:
    """Return the bytes that are still to come of all payloads being filled."""
    (bytes,) = db.execute(
        "SELECT coalesce(sum(max(0, expected - bytes)), 0) FROM payloads WHERE state = 'filling'"
    ).fetchone()
    return int(bytes)


def begin(db: sqlite3.Connection, owner: LeaseOwner, caller: int, expected: int) -> int:
    """Begin a payload of a caller that will have `expected` bytes, as far as is known; return its number.

    `owner` fills it: when that is gone, it is discarded.
    """
    number = db.execute(
        "INSERT INTO payloads (caller, expected, lease_owner) VALUES (?, ?, ?)", (caller, expected, owner.id)
    ).lastrowid
    assert number is not None
    return number


class FillingPayload(NamedTuple):
    """A payload that is being filled: the number of its caller, and its bytes."""

    caller: int
    expected_bytes: int
    present_bytes: int


def find_filling(db: sqlite3.Connection, payload: int) -> FillingPayload | None:
    """Return a payload that is being filled, or None if there is none."""
    row = db.execute(
        "SELECT caller, expected, bytes FROM payloads WHERE id = ? AND state = 'filling'", (payload,)
    ).fetchone()
    return None if row is None else FillingPayload(*row)


def add(db: sqlite3.Connection, payload: int, data: bytes) -> None:
    """Add a piece to a payload."""
    db.execute(
        "INSERT INTO pieces SELECT ?1, coalesce(max(number) + 1, 0), ?2 FROM pieces WHERE payload = ?1",
        (payload, data),
    )
    db.execute("UPDATE payloads SET bytes = bytes + ? WHERE id = ?", (len(data), payload))


def keep(db: sqlite3.Connection, payload: int) -> None:
    """Keep a payload. From now on it counts with the record that refers to it."""
    db.execute("UPDATE payloads SET state = 'kept' WHERE id = ?", (payload,))


def discard(db: sqlite3.Connection, payload: int) -> None:
    """Discard a payload that no record refers to."""
    db.execute("UPDATE payloads SET state = 'gone' WHERE id = ? AND state = 'filling'", (payload,))


def free(db: sqlite3.Connection, most: int = FREED_AT_ONCE) -> int:
    """Free some pieces of discarded payloads. Return how many rows."""
    row = db.execute("SELECT id FROM payloads WHERE state = 'gone' ORDER BY id LIMIT 1").fetchone()
    if row is None:
        return 0
    some = "SELECT number FROM pieces WHERE payload = ?1 ORDER BY number DESC LIMIT ?2"
    freed = db.execute(
        f"DELETE FROM pieces WHERE payload = ?1 AND number IN ({some})", (row[0], most)
    ).rowcount
    if freed < most:
        db.execute("DELETE FROM payloads WHERE id = ?", row)
        freed += 1
    return freed


def piece(db: sqlite3.Connection, payload: int, number: int) -> bytes | None:
    """Return one piece of a payload, or None if there is none."""
    row = db.execute("SELECT data FROM pieces WHERE payload = ? AND number = ?", (payload, number)).fetchone()
    return None if row is None else row[0]


def size_of(db: sqlite3.Connection, payload: int) -> int:
    """Return the bytes of a payload, 0 if there is none."""
    row = db.execute("SELECT bytes FROM payloads WHERE id = ?", (payload,)).fetchone()
    return 0 if row is None else int(row[0])


def whole(db: sqlite3.Connection, payload: int) -> bytes:
    """Return all pieces of a payload as one. The caller has checked its size."""
    rows = db.execute("SELECT data FROM pieces WHERE payload = ? ORDER BY number", (payload,))
    return b"".join(data for (data,) in rows)
