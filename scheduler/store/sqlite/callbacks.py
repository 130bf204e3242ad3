"""Callbacks in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from scheduler.calls.callback_store import CallbackAttempt
from scheduler.calls.callbacks import CallbackRecord, CallbackStatus, Delivery
from scheduler.calls.leases import LeaseOwner
from scheduler.store.sqlite.rows import lease_rows
from scheduler.store.sqlite.writer import Writer

PENDING = "status = 'pending'"


class SqliteCallbackStore:
    """Callbacks in the file of the accepted calls. Its verbs are those of `CallbackStore`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def exists(self) -> bool:
        return self._writer.file.exists

    async def due(self, owner: LeaseOwner, now: float, each: int) -> tuple[list[Delivery], float | None]:
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
                    " AND host = ? AND lease_owner IN ('', ?) ORDER BY due LIMIT ?",
                    (host, owner.id, each),
                ).fetchall()
                found += [Delivery(*row[:5]) for row in rows if row[5] <= now]
                later += [row[5] for row in rows if row[5] > now][:1]
            return found, min(later, default=None)

        return await self._writer.do(operation)

    async def lease(self, owner: LeaseOwner, messages: Sequence[str], now: float) -> set[str]:
        def operation(db: sqlite3.Connection) -> set[str]:
            lease_rows.check(db, owner, now)
            some = json.dumps(list(messages))
            db.execute(
                f"UPDATE callbacks SET lease_owner = ?, leased = ? WHERE {PENDING} AND lease_owner = ''"
                " AND message IN (SELECT value FROM json_each(?))",
                (owner.id, now, some),
            )
            rows = db.execute(
                f"SELECT message FROM callbacks WHERE {PENDING} AND lease_owner = ?"
                " AND message IN (SELECT value FROM json_each(?))",
                (owner.id, some),
            )
            return {message for (message,) in rows}

        return await self._writer.do(operation)

    async def record(self, owner: LeaseOwner, message: str, attempt: CallbackAttempt) -> bool:
        statement = (
            "UPDATE callbacks SET status = ?, attempts = ?, due = ?, fault = ?, lease_owner = '',"
            " body = CASE WHEN ? = 'delivered' THEN x'' ELSE body END WHERE message = ? AND lease_owner = ?"
        )
        status, attempts, due, fault = attempt
        values = (status.value, attempts, due, fault, status.value, message, owner.id)
        return await self._writer.do(lambda db: db.execute(statement, values).rowcount > 0)

    async def of(self, invocation: str) -> CallbackRecord | None:
        def operation(db: sqlite3.Connection) -> CallbackRecord | None:
            row = db.execute(
                "SELECT url, callbacks.status, callbacks.attempts, callbacks.due, fault"
                " FROM callbacks JOIN invocations USING (seq) WHERE id = ?",
                (invocation,),
            ).fetchone()
            return None if row is None else CallbackRecord(row[0], CallbackStatus(row[1]), *row[2:])

        return await self._writer.read(operation)
