"""Triggers in one SQLite file. A fire and the work that it starts are one commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from scheduler.store.sqlite.rows import begin_rows, trigger_rows
from scheduler.store.sqlite.rows.room import Room
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.model import Course, FireRecord, KeptTrigger, ScheduleWatch
from scheduler.work import Fire, Outcome


class SqliteTriggerStore:
    """Triggers in the file of the accepted calls. Its verbs are those of `TriggerStore`."""

    def __init__(self, writer: Writer, room: Room) -> None:
        self._writer = writer
        self._room = room

    @property
    def exists(self) -> bool:
        return self._writer.file.exists

    async def fire(
        self, fires: Sequence[Fire], now: float, watch: ScheduleWatch | None = None
    ) -> list[Outcome]:
        def operation(db: sqlite3.Connection) -> list[Outcome]:
            if any(fire.work is not None for fire in fires):
                self._room.make(db)
            if watch is not None:
                trigger_rows.keep_watched(db, watch, now)
            numbers = {name: self._room.caller(db, name) for name in {fire.caller for fire in fires}}
            outcomes = [begin_rows.fire(db, fire, now, numbers[fire.caller]) for fire in fires]
            if Outcome.STARTED in outcomes:
                self._room.make(db)
                self._room.check_share(db, numbers.values())
            return outcomes

        return await self._writer.do(operation)

    async def fires(self, trigger: str, most: int) -> list[FireRecord]:
        return await self._writer.read(lambda db: trigger_rows.fires(db, trigger, most))

    async def latest_fires(self, triggers: Sequence[str]) -> dict[str, FireRecord]:
        return await self._writer.read_many(lambda db: trigger_rows.latest_fires(db, triggers))

    async def pause(self, trigger: str, paused: bool, course: Course | None = None) -> None:
        def operation(db: sqlite3.Connection) -> None:
            trigger_rows.keep_paused(db, trigger, paused)
            if course is not None:
                trigger_rows.keep_course(db, course)

        await self._writer.do(operation)

    async def define(self, trigger: str, definition: str) -> None:
        await self._writer.do(lambda db: trigger_rows.keep_definition(db, trigger, definition))

    async def forget(self, trigger: str) -> None:
        await self._writer.do(lambda db: trigger_rows.forget(db, trigger))

    async def all(self) -> list[KeptTrigger]:
        return await self._writer.do(trigger_rows.all_kept)
