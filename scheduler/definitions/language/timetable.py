"""Timetable of a schedule: when it fires, and how it treats a fire that cannot start in time. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from scheduler.definitions.language.cron import Cron

Overlap = Literal["skip", "queue", "allow"]
CatchUp = Literal["none", "last", "all"]


@dataclass(frozen=True, slots=True)
class Timetable:
    """A schedule's times and its rules for missed and overlapping fires. `jitter` in seconds; fires stay in order."""

    name: str
    cron: Cron
    overlap: Overlap = "skip"
    catch_up: CatchUp = "last"
    jitter: float = 0.0

    def delay(self, scheduled: float) -> float:
        """Return by how many seconds the fire of this time is put off; always the same for one time."""
        if not self.jitter:
            return 0.0
        following = next(self.cron.after(scheduled), None)
        most = self.jitter if following is None else min(self.jitter, following - scheduled)
        digest = hashlib.sha256(f"{self.name} {scheduled:.0f}".encode()).digest()
        return most * int.from_bytes(digest[:4]) / 2**32

    def next(self, considered: float) -> float | None:
        """Return when the first fire after this time is due, delay included, or None if it never fires again."""
        scheduled = next(self.cron.after(considered), None)
        return None if scheduled is None else scheduled + self.delay(scheduled)
