"""What a job is and how it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pool.workload import PRIVATE_MARK
from scheduler.calls.model import Status
from scheduler.definitions.jobs import JobDefinition

KIND = "job"
"""Kind of the owner of its tasks."""


class JobStatus(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    """It was cancelled, and some of its tasks are still being interrupted."""
    SUCCEEDED = "succeeded"
    """Every task has."""
    FAILED = "failed"
    """Every task has ended, and not every one has succeeded."""
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in (JobStatus.RUNNING, JobStatus.CANCELLING)


class TaskState(StrEnum):
    """How a task stands, in fewer words than an accepted call has."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Every run that it may have has failed."""
    CANCELLED = "cancelled"

    @property
    def statuses(self) -> tuple[Status, ...]:
        """Those of an accepted call that are meant."""
        return tuple(status for status in Status if task_state(status) is self)


def task_state(status: Status) -> TaskState:
    """How a task stands whose call stands so."""
    if status in (Status.FAILED, Status.TIMED_OUT, Status.EXPIRED, Status.DEAD):
        return TaskState.FAILED
    return TaskState.QUEUED if status is Status.HELD else TaskState(status.value)


Counts = Mapping[TaskState, int]
"""Tasks by state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job that was begun. Times are wall times in seconds."""

    seq: int
    id: str
    name: str
    definition: JobDefinition
    """Without its inputs."""
    status: JobStatus
    count: int
    parallel: int
    begun: int
    """Tasks that were queued so far, those with the smallest indices."""
    created: float
    ended: float | None
    depth: int = 0
    context: tuple[tuple[str, str], ...] = ()
    counts: Counts | None = None
    """Of its tasks, when it has ended."""

    @property
    def owner(self) -> str:
        """What its tasks say that they belong to."""
        return f"{KIND}:{self.id}"

    @property
    def function(self) -> str:
        """What its tasks are calls of: a deployed function, or one of its own that nobody else can call."""
        return self.definition.function or own_function(self.id)


def own_function(job: str) -> str:
    """Name of the function that a job with an image has: no function of functions.yaml can be called so."""
    return f"{KIND}{PRIVATE_MARK}{job}"


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job that has ended, for whoever is told."""

    job: Job
    status: JobStatus
    ended: float
    counts: Counts

    def to_json(self) -> dict[str, object]:
        """As the data of an event, or the body of a call."""
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
    """Which jobs are wanted, newest first. `before` is the `seq` that they are older than."""

    status: JobStatus | None = None
    before: int | None = None
    limit: int = 50
    visible: Callable[[Job], bool] | None = None
    """Whether a job may be shown; a reader's thread asks it. None: all may."""
