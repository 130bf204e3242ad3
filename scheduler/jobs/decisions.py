"""What a job does next, and how it has ended. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.jobs.model import Counts, JobStatus, TaskState

AHEAD = 16
"""Tasks of a job with a function of its own that are queued beyond those that may run: one that waits to be tried
again holds no place then. Such a function has no more instances than the job has tasks at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """How far a job is. `open` tasks are queued or running, `again` are to be run once more (counted up to `window`),
    `begun` were queued."""

    count: int
    begun: int
    again: int
    open: int
    window: int
    """Open tasks, at most."""
    cancelling: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done: so many tasks are queued again, so many for the first time; or the job ends."""

    again: int = 0
    fresh: int = 0
    ends: bool = False


def window_of(parallel: int, own_function: bool) -> int:
    """How many tasks of a job are open at a time."""
    return parallel + AHEAD if own_function else parallel


def next_step(stand: Stand) -> Step:
    """The next step of a job that has not ended; the same again when nothing has changed but by that step."""
    if stand.cancelling:
        return Step(ends=stand.open == 0)
    room = max(0, stand.window - stand.open)
    again = min(room, stand.again)
    fresh = min(room - again, stand.count - stand.begun)
    return Step(again, fresh, ends=stand.open + stand.again + stand.count - stand.begun == 0)


def outcome(counts: Counts, count: int, cancelling: bool) -> JobStatus:
    """How a job of so many tasks has ended."""
    if counts.get(TaskState.SUCCEEDED, 0) == count:
        return JobStatus.SUCCEEDED
    return JobStatus.CANCELLED if cancelling else JobStatus.FAILED


def fitting_parallel(count: int, cores: int, places: int) -> int:
    """How many tasks run at once if nobody says: as many as there are `places` for, but two for each core at most."""
    return max(1, min(count, 2 * cores, places))
