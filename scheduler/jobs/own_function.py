"""Private function of a job with an image, in service as long as the job runs."""

from __future__ import annotations

from pool.workload import Keep
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.jobs import IMAGE_TIMEOUT_SECONDS, JobDefinition
from scheduler.jobs.model import Job

QUEUE_TIMEOUT_SECONDS = 600.0
"""Time that a task waits for memory before it gives its place in the queue to others."""
MAX_INPUT_BYTES = 64 * 2**20
"""Largest input of one task."""
KEEP_BY_REMOVE = {"all": Keep.NONE, "succeeded": Keep.FAILED, "none": Keep.ALL}
"""By the job's `remove`: the ended containers that are kept."""


def own_definition(job: Job) -> FunctionDefinition:
    """Return the definition of a job's private function."""
    return command_definition(job.function, job.definition, job.parallel)


def command_definition(name: str, job: JobDefinition, parallel: int) -> FunctionDefinition:
    """Return a command with one instance for each task that runs at once. The job's keys were checked before."""
    given = {key: getattr(job, key) for key in ContainerKeys.model_fields}
    return FunctionDefinition.model_construct(
        name=name,
        image=job.image,
        command=job.command,
        timeout=job.timeout or IMAGE_TIMEOUT_SECONDS,
        queue_timeout=QUEUE_TIMEOUT_SECONDS,
        max_instances=parallel,
        max_body=MAX_INPUT_BYTES,
        reuse=False,
        **given,
    )
