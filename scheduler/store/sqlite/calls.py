"""Accepted calls in one SQLite file, with a write-ahead log and an fsync at each commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from scheduler.calls import shares
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Backlog, CallRecord, Claim, Ending, Idempotency, Page, Query, Result, Status
from scheduler.calls.store import LeaseRefused, StoreBusy, StoreError, StoreFull, StoreUse
from scheduler.store.sqlite.id_search import ids_with_prefix
from scheduler.store.sqlite.rows import (
    batch_rows,
    call_rows,
    claim_rows,
    dead_rows,
    lease_rows,
    list_rows,
    piece_rows,
    start_keys,
)
from scheduler.store.sqlite.rows.begin_rows import begin
from scheduler.store.sqlite.rows.call_rows import AGAIN, FORGETTABLE, FREE
from scheduler.store.sqlite.rows.room import Room
from scheduler.store.sqlite.writer import Operation, Writer
from scheduler.work import RESULTS, NewCall, Work

T = TypeVar("T")
PIECES_AT_ONCE = 32
"""Most pieces that wait for a commit at once: more would make the commit and the write-ahead log too large."""


class SqliteCallStore:
    """Accepted calls in a file of at most `max_bytes`. Its verbs are those of `CallStore`."""

    def __init__(self, writer: Writer, max_bytes: int) -> None:
        self._writer = writer
        self.room = Room(writer.file.path, max_bytes)
        """Room in the file, for the other stores in it."""
        self._pieces = asyncio.Semaphore(PIECES_AT_ONCE)
        self._discarding: set[asyncio.Future[None]] = set()

    @property
    def exists(self) -> bool:
        return self._writer.file.exists

    @property
    def fault(self) -> str | None:
        return self._writer.file.fault()

    @property
    def commits(self) -> int:
        """Return the number of transactions so far."""
        return self._writer.commits

    @property
    def refusals(self) -> Mapping[str, int]:
        return self._writer.refusals

    async def accept(self, call: NewCall, now: float, idempotency: Idempotency | None = None) -> CallRecord:
        accepted: CallRecord | StoreFull
        if idempotency is None and not call.owner and call.payload is None:
            accepted = await self._writer.do_jointly(self._accept_all, (call, now))
        else:
            accepted = await self._writer.do(lambda db: self._accept(db, call, now, idempotency))
        if isinstance(accepted, StoreFull):
            raise accepted
        return accepted

    async def backlogs(self, now: float) -> Mapping[str, Backlog]:
        look = partial(claim_rows.backlogs_of, now=now)
        try:
            return await self._writer.read(look)
        except StoreBusy:  # nobody's reads may keep calls from being run
            return await self._writer.do(look)

    async def claim(self, owner: LeaseOwner, wanted: Mapping[str, int], now: float) -> Sequence[Claim]:
        return await self._writer.do(partial(claim_rows.claim, owner=owner, wanted=wanted, now=now))

    async def begin(self, works: Sequence[Work], now: float, caller: str = "") -> None:
        def operation(db: sqlite3.Connection) -> None:
            self.room.make(db)
            number = self.room.caller(db, caller)
            for work in works:
                begin(db, work, now, number)
            self.room.admit(db, number, 0)

        await self._writer.do(operation)

    async def hand_back(self, owner: LeaseOwner, ids: Sequence[str]) -> None:
        await self._writer.do(
            lambda db: db.executemany(
                "UPDATE invocations SET status = 'queued', attempts = attempts - 1, lease_owner = ''"
                " WHERE id = ? AND status = 'running' AND lease_owner = ?",
                [(id, owner.id) for id in ids],
            )
        )

    async def finish(self, owner: LeaseOwner, endings: Sequence[Ending], now: float) -> Sequence[bool]:
        def operation(db: sqlite3.Connection) -> list[bool]:
            weight = sum([len(r.body) + len(r.log) for e in endings if (r := e.result) is not None])
            if weight:
                self._check_ends(db, endings, weight)
            recorded = batch_rows.finish_all(db, owner, endings, now)
            if any(map(batch_rows.FOLLOW, endings)):
                self.room.make(db)
            return recorded

        return await self._writer.do(operation)

    async def begin_payload(self, owner: LeaseOwner, call: str, expected: int, now: float) -> int:
        def operation(db: sqlite3.Connection) -> int:
            lease_rows.check(db, owner, now)
            row = db.execute(
                "SELECT owner, caller, name FROM invocations JOIN callers ON callers.id = caller"
                " WHERE invocations.id = ? AND status = 'running' AND lease_owner = ?",
                (call, owner.id),
            ).fetchone()
            if row is None:
                raise LeaseRefused(f"the invocation {call} is not leased to {owner.id}")
            part_of, caller, name = row
            # With its call it counts to a run or job; else it can be forgotten as soon as the call has ended.
            number = caller if part_of else self.room.caller(db, name + RESULTS)
            self.room.admit(db, number, expected)
            return piece_rows.begin(db, owner, number, expected)

        return await self._if_it_fits(operation)

    async def begin_body(self, owner: LeaseOwner, caller: str, expected: int, now: float) -> int:
        def operation(db: sqlite3.Connection) -> int:
            lease_rows.check(db, owner, now)
            number = self.room.caller(db, caller)
            self.room.admit(db, number, call_rows.ROW_BYTES + expected, direct=True)
            return piece_rows.begin(db, owner, number, expected)

        return await self._if_it_fits(operation)

    async def add_piece(self, payload: int, data: bytes, direct: bool = False) -> None:
        def operation(db: sqlite3.Connection) -> None:
            found = piece_rows.find_filling(db, payload)
            if found is None:
                raise StoreFull("what was kept of it has been discarded")
            announced = max(found.expected_bytes, found.present_bytes)
            if (more := found.present_bytes + len(data) - announced) > 0:
                self.room.admit(db, found.caller, more, direct)
            piece_rows.add(db, payload, data)

        async with self._pieces:
            await self._if_it_fits(operation)

    async def _if_it_fits(self, operation: Operation[T]) -> T:
        """Run an operation that makes room first. Raises `StoreFull`; calls forgotten by then stay forgotten."""

        def attempt(db: sqlite3.Connection) -> T | StoreFull:
            try:
                return operation(db)
            except StoreFull as full:
                return full  # raised here, it would undo all of it, and those who ask again find no more room

        done = await self._writer.do(attempt)
        if isinstance(done, StoreFull):
            raise done
        return done

    def discard(self, payload: int) -> None:
        async def discarded() -> None:
            with suppress(StoreError):  # the next start does it
                await self._writer.do(lambda db: piece_rows.discard(db, payload))

        task = asyncio.ensure_future(discarded())
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    async def pieces(self, payload: int) -> AsyncIterator[bytes]:
        number, left = 0, await self._writer.read(lambda db: piece_rows.size_of(db, payload))
        while left > 0:
            data = await self._writer.read_piece(partial(piece_rows.piece, payload=payload, number=number))
            if data is None:
                raise StoreError("what is kept of it was forgotten while it was read")
            yield data
            number, left = number + 1, left - len(data)

    async def cancel(self, id: str, now: float) -> CallRecord | None:
        return await self._writer.do(partial(call_rows.cancel, id=id, now=now))

    async def run_again(self, id: str, now: float) -> CallRecord | None:
        def operation(db: sqlite3.Connection) -> CallRecord | None:
            record = call_rows.show(db, id)
            if record is not None and record.status.ended and not record.owner:
                db.execute("DELETE FROM results WHERE seq = ?", (record.seq,))
                db.execute(f"UPDATE invocations SET {AGAIN} WHERE seq = ?", (now, now, record.seq))
                self.room.check_share(db, call_rows.callers_of(db, "seq = ?", (record.seq,)))
            return record

        return await self._writer.do(operation)

    async def redrive(self, now: float, function: str | None = None) -> int:
        return await self._in_pieces(partial(dead_rows.redrive, function=function, now=now, room=self.room))

    async def purge(self, now: float, function: str | None = None) -> int:
        return await self._in_pieces(partial(dead_rows.purge, function=function, now=now))

    async def _in_pieces(self, verb: dead_rows.DeadLetterVerb) -> int:
        """Change all dead letters, some in each commit, so that nobody waits long for the next one."""
        count = 0
        for status in dead_rows.DEAD:
            after: int | None = 0
            while after is not None:
                done, after = await self._writer.do(partial(verb, status=status, after=after))
                count += done
        return count

    async def prune(self, before: float, now: float) -> int:
        def operation(db: sqlite3.Connection) -> int:
            start_keys.prune(db, now)
            if freed := piece_rows.free(db):
                return freed
            if self.room.used(db) > self.room.size:
                return call_rows.forget(db, FORGETTABLE)
            return call_rows.forget(db, f"ended < ? AND {FREE}", before)

        return await self._writer.do(operation)

    async def show(self, id: str) -> CallRecord | None:
        return await self._writer.read(lambda db: call_rows.show(db, id))

    async def ids_with_prefix(self, prefix: str, visible: Callable[[CallRecord], bool]) -> Sequence[str]:
        return await self._writer.read(
            lambda db: ids_with_prefix(db, "invocations", call_rows.show, prefix, visible)
        )

    async def result(self, id: str) -> Result | None:
        return await self._writer.read(partial(call_rows.result, id=id))

    async def page(self, query: Query) -> Page[CallRecord]:
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

    async def usage(self) -> StoreUse:
        return await self._writer.read(self.room.usage)

    def _accept(
        self, db: sqlite3.Connection, call: NewCall, now: float, idempotency: Idempotency | None
    ) -> CallRecord | StoreFull:
        """Keep one call. `StoreFull` is returned: raising it would undo the other operations of the commit."""
        if idempotency is not None and (known := call_rows.known(db, call, now, idempotency)) is not None:
            if call.payload is not None:
                piece_rows.discard(db, call.payload.id)
            return known
        caller = self.room.caller(db, call.caller)
        try:
            self.room.admit(db, caller, call_rows.ROW_BYTES + len(call.body), direct=True)
        except StoreFull as full:
            return full
        record = call_rows.insert(db, call, now, caller)
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

    def _accept_all(
        self, db: sqlite3.Connection, calls: Sequence[tuple[NewCall, float]]
    ) -> Sequence[CallRecord | StoreFull]:
        weight = sum([call_rows.ROW_BYTES + len(call.body) for call, _ in calls])
        callers = {name: self.room.caller(db, name) for name in {call.caller for call, _ in calls}}
        try:
            self.room.make(db, weight, direct=True)
            self.room.check_share(db, callers.values(), weight)
        except StoreFull:  # there may be room for some of them
            return [self._accept(db, call, now, None) for call, now in calls]
        return batch_rows.insert_all(db, calls, callers)

    def _check_ends(self, db: sqlite3.Connection, endings: Sequence[Ending], weight: int) -> None:
        """Raise `StoreFull` if the results of these calls do not fit. The caller then records them one by one."""
        if not self.room.make(db, weight):
            return
        kept = self.room.usage(db)
        if not shares.may_hold(
            kept.size, kept.largest, kept.unfinished, weight
        ):  # perhaps it is one of theirs
            self.room.check_share(db, call_rows.owning(db, [ending.id for ending in endings]), weight)
