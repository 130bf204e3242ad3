"""The store in one SQLite file (write-ahead log, fsync at each commit). The verbs are those of `Store`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial

from scheduler.durable import batch_rows, call_rows, claim_rows, dead_rows, list_rows, start_keys
from scheduler.durable.call_rows import AGAIN, FORGETTABLE, FREE
from scheduler.durable.model import Claimed, Ending, Idempotency, NewCall, Page, Query, Record, Result, Status
from scheduler.durable.store import Choose, StoreFull
from scheduler.durable.work import begin
from scheduler.durable.writer import Writer


class SqliteStore:
    """Accepted calls in a file. `max_bytes` is how large it may grow with what has not ended."""

    def __init__(self, writer: Writer, max_bytes: int) -> None:
        self._writer = writer
        self._max_bytes = max_bytes

    @property
    def exists(self) -> bool:
        return self._writer.file.exists

    @property
    def fault(self) -> str | None:
        return self._writer.file.fault()

    @property
    def commits(self) -> int:
        """Transactions so far."""
        return self._writer.commits

    @property
    def refusals(self) -> Mapping[str, int]:
        return self._writer.refusals

    async def accept(self, call: NewCall, now: float, idempotency: Idempotency | None = None) -> Record:
        if idempotency is None and not call.owner:
            return await self._writer.do_jointly(self._accept_all, (call, now))
        return await self._writer.do(lambda db: self._accept(db, call, now, idempotency))

    async def claim(self, now: float, choose: Choose) -> Claimed:
        return await self._writer.do(partial(claim_rows.claim, now=now, choose=choose))

    async def begin(self, works: Sequence[object], now: float) -> None:
        def operation(db: sqlite3.Connection) -> None:
            self.make_room(db)
            for work in works:
                begin(work, db, now)

        await self._writer.do(operation)

    async def hand_back(self, ids: Sequence[str]) -> None:
        await self._writer.do(
            lambda db: db.executemany(
                "UPDATE invocations SET status = 'queued', attempts = attempts - 1"
                " WHERE id = ? AND status = 'running'",
                [(id,) for id in ids],
            )
        )

    async def finish(self, endings: Sequence[Ending], now: float) -> Sequence[bool]:
        return await self._writer.do(partial(batch_rows.finish_all, endings=endings, now=now))

    async def cancel(self, id: str, now: float) -> Record | None:
        def operation(db: sqlite3.Connection) -> Record | None:
            record = call_rows.show(db, id)
            if record is not None and record.status in (Status.QUEUED, Status.HELD):
                db.execute(
                    "UPDATE invocations SET status = 'cancelled', ended = ? WHERE seq = ?", (now, record.seq)
                )
            return record

        return await self._writer.do(operation)

    async def again(self, id: str, now: float) -> Record | None:
        def operation(db: sqlite3.Connection) -> Record | None:
            record = call_rows.show(db, id)
            if record is not None and record.status.ended and not record.owner:
                db.execute("DELETE FROM results WHERE seq = ?", (record.seq,))
                db.execute(f"UPDATE invocations SET {AGAIN} WHERE seq = ?", (now, now, record.seq))
            return record

        return await self._writer.do(operation)

    async def redrive(self, now: float, function: str | None = None) -> int:
        return await self._in_pieces(partial(dead_rows.redrive, function=function, now=now))

    async def purge(self, now: float, function: str | None = None) -> int:
        return await self._in_pieces(partial(dead_rows.purge, function=function, now=now))

    async def _in_pieces(self, some: dead_rows.Some) -> int:
        """Do it to all dead letters, some in each commit, so that nobody waits long for the next one."""
        count = 0
        for status in dead_rows.DEAD:
            after: int | None = 0
            while after is not None:
                done, after = await self._writer.do(partial(some, status=status, after=after))
                count += done
        return count

    async def void(self, now: float) -> int:
        statement = "UPDATE invocations SET status = 'queued', due = ? WHERE status = 'running'"
        return await self._writer.do(lambda db: db.execute(statement, (now,)).rowcount)

    async def prune(self, before: float, now: float) -> int:
        def operation(db: sqlite3.Connection) -> int:
            start_keys.prune(db, now)
            return (
                call_rows.forget(db, FORGETTABLE)
                if self._is_full(db)
                else call_rows.forget(db, f"ended < ? AND {FREE}", before)
            )

        return await self._writer.do(operation)

    async def show(self, id: str) -> Record | None:
        return await self._writer.read(lambda db: call_rows.show(db, id))

    async def result(self, id: str) -> Result | None:
        return await self._writer.read(partial(call_rows.result, id=id))

    async def page(self, query: Query) -> Page[Record]:
        return await self._writer.read_many(partial(list_rows.page, query=query))

    async def counts(self) -> Mapping[tuple[str, Status], int]:
        def operation(db: sqlite3.Connection) -> dict[tuple[str, Status], int]:
            return {
                (function, status): count
                for status in (Status.QUEUED, Status.RUNNING)
                for function, count in db.execute(
                    f"SELECT function, count(*) FROM invocations WHERE status = '{status}' GROUP BY function"
                )
            }

        return await self._writer.read_many(operation)

    async def close(self) -> None:
        await self._writer.close()

    def _accept(
        self, db: sqlite3.Connection, call: NewCall, now: float, idempotency: Idempotency | None
    ) -> Record:
        if idempotency is not None and (known := call_rows.known(db, call, now, idempotency)) is not None:
            return known
        self.make_room(db)
        record = call_rows.insert(db, call, now)
        if idempotency is not None:
            db.execute(
                "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)",
                (
                    idempotency.caller,
                    call.function,
                    idempotency.key,
                    idempotency.digest,
                    record.seq,
                    now + idempotency.seconds,
                ),
            )
        return record

    def _accept_all(self, db: sqlite3.Connection, calls: Sequence[tuple[NewCall, float]]) -> Sequence[Record]:
        if sum(len(call.body) for call, _ in calls) < self._room(db):
            return batch_rows.insert_all(db, calls)
        return [self._accept(db, call, now, None) for call, now in calls]

    def make_room(self, db: sqlite3.Connection) -> None:
        """Within somebody's operation: forget the oldest calls that have ended where the store is full.

        Raises `StoreFull` where that is not enough for anything new.
        """
        if self._is_full(db) and not (call_rows.forget(db, FORGETTABLE) and not self._is_full(db)):
            raise StoreFull(
                f"the store holds its {self._max_bytes} bytes, and what can be forgotten is not enough"
            )

    def _is_full(self, db: sqlite3.Connection) -> bool:
        return self._room(db) < 0

    def _room(self, db: sqlite3.Connection) -> int:
        """Bytes that it may still grow by; negative: it is too large. Pages that are free again do not count: what
        was forgotten makes room without shrinking the file."""
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return self._max_bytes - int((pages - free) * size)
