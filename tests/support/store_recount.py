"""What the store counts for its callers, and what a recount of all that lies in it comes to."""

from __future__ import annotations

import sqlite3

from scheduler.store.sqlite.rows.begin_rows import INPUT_BYTES
from scheduler.store.sqlite.rows.call_rows import ROW_BYTES

REQUEST = f"{ROW_BYTES} + length(head) + length(requests.body) + length(terms) + coalesce(asked.bytes, 0)"
RESULT = "length(headers) + length(results.body) + length(log) + coalesce(told.bytes, 0)"
CALLS = (
    "(SELECT *, seq IN (SELECT seq FROM callbacks WHERE status = 'pending') AS waits FROM invocations) AS calls"
    " JOIN requests USING (seq) LEFT JOIN results USING (seq)"
    " LEFT JOIN payloads AS asked ON asked.id = requests.payload"
    " LEFT JOIN payloads AS told ON told.id = results.payload"
)
ITEM_BYTES = 64


def counted(db: sqlite3.Connection) -> int:
    """Return the bytes that all callers count with."""
    return _one(db, "SELECT sum(bytes) FROM callers")


def recounted(db: sqlite3.Connection) -> int:
    """Return the same, of the bodies themselves."""
    return _calls(db) + _runs(db) + _jobs(db) + _filling(db)


def _calls(db: sqlite3.Connection) -> int:
    return _one(
        db,
        f"SELECT sum({REQUEST} + coalesce({RESULT}, 0)) FROM {CALLS} WHERE owner = '' AND (ended IS NULL OR waits)",
    )


def _runs(db: sqlite3.Connection) -> int:
    size = 0
    for seq, id in db.execute("SELECT seq, id FROM runs WHERE ended IS NULL").fetchall():
        size += ROW_BYTES + _one(
            db,
            "SELECT length(definition) + length(input) + coalesce(length(output), 0) FROM run_data WHERE seq = ?",
            seq,
        )
        size += _one(db, f"SELECT sum(length(body) + {ITEM_BYTES}) FROM run_items WHERE seq = ?", seq)
        size += _parts(db, f"run:{id}/")
    return size


def _jobs(db: sqlite3.Connection) -> int:
    size = 0
    for seq, id in db.execute("SELECT seq, id FROM jobs WHERE ended IS NULL").fetchall():
        size += ROW_BYTES + _one(
            db, "SELECT length(definition) + coalesce(length(each), 0) FROM jobs WHERE seq = ?", seq
        )
        size += _one(db, f"SELECT sum(length(body) + {INPUT_BYTES}) FROM job_inputs WHERE job = ?", seq)
        size += _parts(db, f"job:{id}")
    return size


def _parts(db: sqlite3.Connection, owner: str) -> int:
    return _one(
        db,
        f"SELECT sum({REQUEST} + coalesce({RESULT}, 0)) FROM {CALLS} WHERE substr(owner, 1, ?) = ?",
        len(owner),
        owner,
    )


def _filling(db: sqlite3.Connection) -> int:
    return _one(db, "SELECT sum(max(expected, bytes)) FROM payloads WHERE state = 'filling'")


def _one(db: sqlite3.Connection, statement: str, *values: object) -> int:
    (size,) = db.execute(statement, values).fetchone()
    return int(size or 0)
