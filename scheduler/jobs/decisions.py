"""Decisions about a job: tasks to queue next, final status, default parallelism. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.jobs.model import Counts, JobStatus, TaskState

QUEUED_AHEAD = 16
"""Tasks that a job with an image queues beyond those that may run. So a task that waits for its retry leaves no
instance idle: the job's private function has only as many instances as the job runs tasks at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """Progress of a job. `open` tasks are queued or running, `again` tasks need another run (counted up to `window`),
    `begun` tasks have been queued at least once."""

    count: int
    begun: int
    again: int
    open: int
    window: int
    """Limit of open tasks."""
    cancelling: bool = False


@dataclass(frozen=True, slots=True)
class NextTasks:
    """Numbers of tasks to queue again and to queue for the first time, and whether the job ends."""

    again: int = 0
    fresh: int = 0
    ends: bool = False


def open_window(parallel: int, own_function: bool) -> int:
    """Return the limit of open tasks of a job."""
    return parallel + QUEUED_AHEAD if own_function else parallel


def next_tasks(progress: JobProgress) -> NextTasks:
    """Return the tasks that a job which has not ended queues now. Once they are queued, it returns none."""
    if progress.cancelling:
        return NextTasks(ends=progress.open == 0)
    room = max(0, progress.window - progress.open)
    again = min(room, progress.again)
    fresh = min(room - again, progress.count - progress.begun)
    return NextTasks(again, fresh, ends=progress.open + progress.again + progress.count - progress.begun == 0)


def final_status(counts: Counts, count: int, cancelling: bool) -> JobStatus:
    """Return the final status of a job of so many tasks."""
    if counts.get(TaskState.SUCCEEDED, 0) == count:
        return JobStatus.SUCCEEDED
    return JobStatus.CANCELLED if cancelling else JobStatus.FAILED


def default_parallel(count: int, cores: int, places: int) -> int:
    """Return how many tasks run at once by default: one for each of `places`, but at most two for each core."""
    return max(1, min(count, 2 * cores, places))
