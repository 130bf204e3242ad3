"""The store of triggers and their fires, whichever database is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scheduler.triggers.model import Course, FireRecord, KeptTrigger, ScheduleWatch
from scheduler.work import Fire, Outcome

FIRES_KEPT = 100
"""Fires that are kept of one trigger, the latest: enough to see what happened, however often it fires."""


class TriggerStore(Protocol):
    """Triggers, schedules and fires. Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    @property
    def exists(self) -> bool:
        """Return whether anything was ever kept here."""

    async def fire(
        self, fires: Sequence[Fire], now: float, watch: ScheduleWatch | None = None
    ) -> list[Outcome]:
        """Begin what these fires start, and record them and the course of their schedule: all or nothing.

        The schedule is leased to its watcher. Returns the outcome of each fire. Raises `StoreFull`, `LeaseLost`, and
        `LeaseRefused` if another watches the schedule.
        """

    async def fires(self, trigger: str, most: int) -> list[FireRecord]:
        """Return the latest fires of a trigger, newest first."""

    async def latest_fires(self, triggers: Sequence[str]) -> dict[str, FireRecord]:
        """Return the latest fire of each of these triggers that has fired."""

    async def pause(self, trigger: str, paused: bool, course: Course | None = None) -> None:
        """Record whether a trigger is paused, and the course of its schedule."""

    async def define(self, trigger: str, definition: str) -> None:
        """Record a trigger that is made over the API; `definition` is JSON."""

    async def forget(self, trigger: str) -> None:
        """Forget a trigger and its fires. What it has started goes on."""

    async def all(self) -> list[KeptTrigger]:
        """Return every trigger of which anything is kept."""
