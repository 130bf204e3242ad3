"""Model of jobs: a job, its status, its tasks' states, and queries for jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pool.workload import PRIVATE_MARK
from scheduler.calls.model import Status
from scheduler.definitions.jobs import JobDefinition

KIND = "job"
"""Kind in the owner of its tasks, `job:ID`."""


class JobStatus(StrEnum):
    """Status of a job."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    """Cancelled, but some of its tasks are still being interrupted."""
    SUCCEEDED = "succeeded"
    """Every task has succeeded."""
    FAILED = "failed"
    """Every task has ended, and at least one without success."""
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Return whether the job is over; only a retry continues it."""
        return self not in (JobStatus.RUNNING, JobStatus.CANCELLING)


class TaskState(StrEnum):
    """State of a task: fewer values than the status of an accepted call."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """All its runs have failed."""
    CANCELLED = "cancelled"

    @property
    def statuses(self) -> tuple[Status, ...]:
        """Return the statuses of an accepted call that mean this state."""
        return tuple(status for status in Status if task_state(status) is self)


def task_state(status: Status) -> TaskState:
    """Return the state of a task whose call has this status."""
    if status in (Status.FAILED, Status.TIMED_OUT, Status.EXPIRED, Status.DEAD):
        return TaskState.FAILED
    return TaskState.QUEUED if status is Status.HELD else TaskState(status.value)


Counts = Mapping[TaskState, int]
"""Tasks by state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A stored job. Times are wall times in seconds."""

    seq: int
    id: str
    name: str
    definition: JobDefinition
    """Without its inputs."""
    status: JobStatus
    count: int
    parallel: int
    begun: int
    """Number of tasks queued so far, the ones with the smallest indices."""
    created: float
    ended: float | None
    depth: int = 0
    context: tuple[tuple[str, str], ...] = ()
    counts: Counts | None = None
    """Counts of its tasks once it has ended, else None."""

    @property
    def owner(self) -> str:
        """Return the owner that its tasks name."""
        return f"{KIND}:{self.id}"

    @property
    def function(self) -> str:
        """Return the function that its tasks call: a deployed one, or a private one that nobody else can call."""
        return self.definition.function or own_function(self.id)


def own_function(job: str) -> str:
    """Return the name of the private function of a job with an image. It is not valid in functions.yaml."""
    return f"{KIND}{PRIVATE_MARK}{job}"


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job that has ended, as its followers get it."""

    job: Job
    status: JobStatus
    ended: float
    counts: Counts

    def to_json(self) -> dict[str, object]:
        """Return it as the data of an event or the body of a call."""
        job, definition = self.job, self.job.definition
        return {
            "id": job.id,
            "name": job.name or None,
            "image": definition.image,
            "function": definition.function,
            "status": self.status.value,
            "count": job.count,
            "tasks": {state.value: number for state, number in self.counts.items()},
            "created": job.created,
            "ended": self.ended,
            "url": f"/jobs/{job.id}",
        }


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Query for jobs, newest first. `before` is a `seq`; only older jobs are returned."""

    status: JobStatus | None = None
    before: int | None = None
    limit: int = 50
    visible: Callable[[Job], bool] | None = None
    """Predicate on jobs to show; runs on a reader's thread. None shows all jobs."""
