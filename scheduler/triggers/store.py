"""The store of triggers, in the file of accepted calls: a fire and what it starts are one commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from scheduler.durable.room import MakeRoom
from scheduler.durable.writer import Writer
from scheduler.triggers import trigger_rows
from scheduler.triggers.model import Course, Fire, FireRecord, Kept, Outcome


class TriggerStore:
    """Each verb is atomic and on disk when it returns. All raise `StoreError`.

    `make_room` is called within an operation before anything is begun; it raises `StoreFull`.
    """

    def __init__(self, writer: Writer, make_room: MakeRoom) -> None:
        self._writer = writer
        self._make_room = make_room

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept here."""
        return self._writer.file.exists

    async def fire(self, fires: Sequence[Fire], now: float, course: Course | None = None) -> list[Outcome]:
        """Begin what these fires start and record them, and how the schedule stands after them: all or nothing.

        What came of each. Raises `StoreFull`.
        """

        def operation(db: sqlite3.Connection) -> list[Outcome]:
            if any(fire.work is not None for fire in fires):
                self._make_room(db)
            if course is not None:
                trigger_rows.keep_course(db, course)
            return [trigger_rows.fire(db, fire, now) for fire in fires]

        return await self._writer.do(operation)

    async def fires(self, trigger: str, most: int) -> list[FireRecord]:
        """The latest fires of a trigger, newest first."""
        return await self._writer.read(lambda db: trigger_rows.fires(db, trigger, most))

    async def latest_fires(self, triggers: Sequence[str]) -> dict[str, FireRecord]:
        """Return the latest fire of each of these triggers that has fired."""
        return await self._writer.read_many(lambda db: trigger_rows.latest_fires(db, triggers))

    async def pause(self, trigger: str, paused: bool, course: Course | None = None) -> None:
        """Record whether a trigger is paused, and how its schedule stands now."""

        def operation(db: sqlite3.Connection) -> None:
            trigger_rows.keep_paused(db, trigger, paused)
            if course is not None:
                trigger_rows.keep_course(db, course)

        await self._writer.do(operation)

    async def define(self, trigger: str, definition: str) -> None:
        """Record a trigger that is made over the API; `definition` is JSON."""
        await self._writer.do(lambda db: trigger_rows.keep_definition(db, trigger, definition))

    async def forget(self, trigger: str) -> None:
        """Forget a trigger and its fires. What it has started goes on."""
        await self._writer.do(lambda db: trigger_rows.forget(db, trigger))

    async def all(self) -> list[Kept]:
        """Every trigger that anything is kept of."""
        return await self._writer.do(trigger_rows.all_kept)
