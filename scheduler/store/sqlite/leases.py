"""Owners of leases in one SQLite file."""

from __future__ import annotations

import sqlite3
from functools import partial

from scheduler.calls.leases import LeaseOwner
from scheduler.store.sqlite.rows import lease_rows
from scheduler.store.sqlite.writer import Writer


class SqliteLeaseStore:
    """Owners of leases in the file of the accepted calls. Its verbs are those of `LeaseStore`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def exists(self) -> bool:
        return self._writer.file.exists

    async def heartbeat(self, owner: LeaseOwner, now: float) -> bool:
        return await self._writer.do(partial(lease_rows.touch, owner=owner, now=now))

    async def requeue_abandoned(self, owner: LeaseOwner, now: float, silent_seconds: float) -> int:
        def operation(db: sqlite3.Connection) -> int:
            lease_rows.give_up_silent(db, owner, now, silent_seconds)
            return lease_rows.free_abandoned(db, owner, now)

        return await self._writer.do(operation)
