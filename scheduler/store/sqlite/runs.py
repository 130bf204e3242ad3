"""Workflow runs in one SQLite file. A step's calls are begun in the commit that records the step."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Idempotency, Page
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.store.sqlite.id_search import ids_with_prefix
from scheduler.store.sqlite.rows import begin_rows, run_end_rows, run_rows, start_keys
from scheduler.store.sqlite.rows.call_rows import ROW_BYTES
from scheduler.store.sqlite.rows.room import Room
from scheduler.store.sqlite.writer import Writer
from scheduler.work import RUNS, Body, NewRun
from scheduler.workflows.model import (
    KIND,
    Changes,
    FailedCall,
    RunEnd,
    RunProgress,
    RunQuery,
    RunRecord,
    StepRecord,
)


class SqliteRunStore:
    """Workflow runs in the file of the accepted calls. Its verbs are those of `RunStore`."""

    def __init__(self, writer: Writer, room: Room) -> None:
        self._writer = writer
        self._room = room
        room.forgetters.append(partial(run_end_rows.prune, before=math.inf))

    @property
    def exists(self) -> bool:
        return self._writer.file.exists

    async def begin(
        self, run: NewRun, now: float, key: Idempotency | None = None, caller: str = ""
    ) -> RunRecord:
        scope = f"{KIND}:{run.workflow}"

        def operation(db: sqlite3.Connection) -> RunRecord:
            if (
                key is not None
                and (known := start_keys.known(db, scope, key, now, run_rows.show)) is not None
            ):
                return known
            if run_rows.show(db, run.id) is None:
                # Its first step is called with as much again: a run that cannot take that is not begun.
                wanted = 2 * (len(run.input.data) + ROW_BYTES)
                number = self._room.caller(db, caller + RUNS)
                self._room.admit(db, number, wanted, direct=True)
                begin_rows.begin_run(db, run, now, number)
            if key is not None:
                start_keys.remember(db, scope, key, run.id, now)
            record = run_rows.show(db, run.id)
            assert record is not None
            return record

        return await self._writer.do(operation)

    async def progress(self, owner: LeaseOwner, id: str, now: float) -> RunProgress | None:
        return await self._writer.do(partial(run_rows.progress, owner=owner, id=id, now=now))

    async def apply(self, owner: LeaseOwner, id: str, changes: Changes, revision: int, now: float) -> bool:
        def operation(db: sqlite3.Connection) -> bool:
            if not run_rows.apply(db, owner, id, changes, revision, now):
                return False
            if changes.opened or changes.more or changes.end is not None:
                self._room.make(db)
            if changes.opened and (record := run_rows.show(db, id)) is not None:
                self._room.check_share(db, (run_rows.caller_of(db, record),))
            return True

        return await self._writer.do(operation)

    async def give_up(self, owner: LeaseOwner, record: RunRecord, end: RunEnd, now: float) -> bool:
        def operation(db: sqlite3.Connection) -> bool:
            given_up = run_end_rows.give_up(db, owner, record, end, now)
            if given_up and end.follow:
                self._room.make(db)
            return given_up

        return await self._writer.do(operation)

    async def show(self, id: str) -> RunRecord | None:
        return await self._writer.read(partial(run_rows.show, id=id))

    async def steps(self, record: RunRecord) -> tuple[WorkflowDefinition, Sequence[StepRecord]] | None:
        def operation(db: sqlite3.Connection) -> tuple[WorkflowDefinition, Sequence[StepRecord]] | None:
            if run_rows.show(db, record.id) is None:
                return None
            return run_rows.definition(db, record), list(run_rows.step_records(db, record))

        return await self._writer.read_many(operation)

    async def ids_with_prefix(self, prefix: str, visible: Callable[[RunRecord], bool]) -> Sequence[str]:
        return await self._writer.read(lambda db: ids_with_prefix(db, "runs", run_rows.show, prefix, visible))

    async def page(self, query: RunQuery) -> Page[RunRecord]:
        return await self._writer.read_many(partial(run_rows.list_runs, query=query))

    async def input(self, id: str) -> Body | None:
        return await self._writer.do(partial(run_rows.body, id=id, which="input"))

    async def output(self, id: str) -> Body | None:
        return await self._writer.read(partial(run_rows.body, id=id, which="output"))

    async def answers(self, id: str, step: str, most: int) -> Sequence[Body | None] | None:
        return await self._writer.do(partial(run_rows.answers, id=id, step=step, most=most))

    async def first_failure(self, id: str, step: str) -> FailedCall | None:
        return await self._writer.do(partial(run_rows.first_failure, id=id, step=step))

    async def unfinished(self, owner: LeaseOwner) -> Sequence[str]:
        return await self._writer.do(partial(run_rows.unfinished, owner=owner))

    async def cancel(self, id: str, now: float) -> tuple[RunRecord | None, Sequence[str]]:
        return await self._writer.do(partial(run_end_rows.cancel, id=id, now=now))

    async def resume(self, id: str) -> RunRecord | None:
        def operation(db: sqlite3.Connection) -> RunRecord | None:
            record = run_end_rows.resume(db, id)
            if record is not None and record.status.ended:
                self._room.check_share(db, (run_rows.caller_of(db, record),))
            return record

        return await self._writer.do(operation)

    async def forget(self, id: str) -> bool:
        return await self._writer.do(partial(run_end_rows.forget, id=id))

    async def prune(self, before: float) -> int:
        return await self._writer.do(
            lambda db: run_end_rows.prune(db, before if self._room.has_room(db) else math.inf)
        )
