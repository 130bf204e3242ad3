"""Callbacks in one SQLite file."""

from __future__ import annotations

import sqlite3

from scheduler.calls.callbacks import CallbackRecord, CallbackStatus, Delivery
from scheduler.store.sqlite.writer import Writer

PENDING = "status = 'pending'"


class SqliteCallbackStore:
    """Callbacks in the file of the accepted calls. Its verbs are those of `CallbackStore`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def exists(self) -> bool:
        return self._writer.file.exists

    async def due(self, now: float, each: int) -> tuple[list[Delivery], float | None]:
        def operation(db: sqlite3.Connection) -> tuple[list[Delivery], float | None]:
            found: list[Delivery] = []
            later: list[float] = []
            host = ""
            while row := db.execute(
                f"SELECT host FROM callbacks WHERE {PENDING} AND host > ? ORDER BY host LIMIT 1", (host,)
            ).fetchone():
                (host,) = row
                rows = db.execute(
                    f"SELECT message, url, host, body, attempts, due FROM callbacks WHERE {PENDING}"
                    " AND host = ? ORDER BY due LIMIT ?",
                    (host, each),
                ).fetchall()
                found += [Delivery(*row[:5]) for row in rows if row[5] <= now]
                later += [row[5] for row in rows if row[5] > now][:1]
            return found, min(later, default=None)

        return await self._writer.do(operation)

    async def record(
        self, message: str, status: CallbackStatus, attempts: int, due: float, fault: str | None
    ) -> None:
        statement = (
            "UPDATE callbacks SET status = ?, attempts = ?, due = ?, fault = ?,"
            " body = CASE WHEN ? = 'delivered' THEN x'' ELSE body END WHERE message = ?"
        )
        values = (status.value, attempts, due, fault, status.value, message)
        await self._writer.do(lambda db: db.execute(statement, values))

    async def of(self, invocation: str) -> CallbackRecord | None:
        def operation(db: sqlite3.Connection) -> CallbackRecord | None:
            row = db.execute(
                "SELECT url, callbacks.status, callbacks.attempts, callbacks.due, fault"
                " FROM callbacks JOIN invocations USING (seq) WHERE id = ?",
                (invocation,),
            ).fetchone()
            return None if row is None else CallbackRecord(row[0], CallbackStatus(row[1]), *row[2:])

        return await self._writer.read(operation)
