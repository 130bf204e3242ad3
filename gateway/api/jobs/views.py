"""Answers about jobs and their tasks."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from gateway.api.views import NEXT_PAGE, moment
from scheduler.calls.model import CallRecord
from scheduler.jobs.model import Counts, Job, JobStatus, TaskState, task_state

EXAMPLE_ID = "0f3a1c5b7d9e4f60a1b2c3d4e5f60718"


class TaskCounts(BaseModel):
    """The tasks of a job, counted by status."""

    queued: int = Field(description="Those that wait for their turn or for their next run included")
    running: int
    succeeded: int
    failed: int = Field(description="Every run that they may have has failed")
    cancelled: int


class JobView(BaseModel):
    """A job."""

    id: str = Field(examples=[EXAMPLE_ID])
    name: str | None = Field(None, description="Its name in functions.yaml, if it was started by that")
    image: str | None = Field(None, description="What its tasks run", examples=["hearth-example/busybox"])
    command: list[str] | None = None
    function: str | None = Field(None, description="The deployed function that its tasks call instead")
    status: JobStatus = Field(
        description="`running` and `cancelling` change by themselves, the others do not"
    )
    count: int = Field(description="Tasks that it has")
    parallel: int = Field(description="Tasks at once, at most")
    retries: int = Field(description="Further runs that a task may have")
    tasks: TaskCounts
    created: datetime
    ended: datetime | None = None
    url: str = Field(examples=[f"/jobs/{EXAMPLE_ID}"])


class JobsView(BaseModel):
    """A page of the list of jobs."""

    jobs: list[JobView]
    declared: list[str] = Field(description="Names of the jobs of functions.yaml")
    cursor: str | None = Field(None, description=NEXT_PAGE)


class TaskView(BaseModel):
    """A task of a job."""

    index: int
    status: TaskState
    attempts: int = Field(description="Runs so far, the one that runs included")
    started: datetime | None = Field(None, description="When its latest run began")
    ended: datetime | None = None
    error: str | None = Field(None, description="What its latest run failed of: the slug of a problem")
    detail: str = Field("", description="The same in words")
    invocation: str = Field(description="Id of the accepted call that it is")
    result: str | None = Field(None, description="Where its result is, when it has ended")
    logs: str = Field(description="Where its log is")
    containers: list[str] = Field([], description="Ids of its containers that were kept, of all its runs")


class TasksView(BaseModel):
    """A page of a job's tasks, in the order of their indices; those whose turn has not come are not there yet."""

    tasks: list[TaskView]
    cursor: str | None = Field(None, description=NEXT_PAGE)


def job_view(job: Job, counts: Counts) -> JobView:
    """Return a job as the API shows it."""
    definition = job.definition
    return JobView(
        id=job.id,
        name=job.name or None,
        image=definition.image,
        command=None if definition.command is None else list(definition.command),
        function=definition.function,
        status=job.status,
        count=job.count,
        parallel=job.parallel,
        retries=definition.retries,
        tasks=TaskCounts(**{state.value: counts.get(state, 0) for state in TaskState}),
        created=moment(job.created),
        ended=None if job.ended is None else moment(job.ended),
        url=f"/jobs/{job.id}",
    )


def task_view(record: CallRecord, containers: list[str]) -> TaskView:
    """Return a task as the API shows it."""
    return TaskView(
        index=int(record.part),
        status=task_state(record.status),
        attempts=record.attempts,
        started=None if record.started is None else moment(record.started),
        ended=None if record.ended is None else moment(record.ended),
        error=record.error,
        detail=record.detail,
        invocation=record.id,
        result=f"/invocations/{record.id}/result" if record.status.ended else None,
        logs=f"/invocations/{record.id}/logs",
        containers=containers,
    )
