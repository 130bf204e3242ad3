"""The store of triggers, in the file of accepted calls: a fire and what it starts are one commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from scheduler.store.sqlite.rows import trigger_rows
from scheduler.store.sqlite.rows.room import Room
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.model import Course, Fire, FireRecord, Kept, Outcome


class TriggerStore:
    """Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    def __init__(self, writer: Writer, room: Room) -> None:
        self._writer = writer
        self._room = room

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
                self._room.make(db)
            if course is not None:
                trigger_rows.keep_course(db, course)
            numbers = {name: self._room.caller(db, name) for name in {fire.caller for fire in fires}}
            outcomes = [trigger_rows.fire(db, fire, now, numbers[fire.caller]) for fire in fires]
            if Outcome.STARTED in outcomes:
                self._room.make(db)
                self._room.check_share(db, numbers.values())
            return outcomes

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
