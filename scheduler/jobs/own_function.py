"""The function that a job with an image has of its own, for as long as it runs."""

from __future__ import annotations

from pool.workload import Keep
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.jobs import IMAGE_TIMEOUT_SECONDS, JobDefinition
from scheduler.jobs.model import Job

QUEUE_TIMEOUT = 600.0
"""Seconds that a task waits for memory before it gives its place to others."""
LARGEST_INPUT = 64 * 2**20
KEPT = {"all": Keep.NONE, "succeeded": Keep.FAILED, "none": Keep.ALL}
"""By what a job says of its ended containers: which `remove` leaves."""


def own_definition(job: Job) -> FunctionDefinition:
    """What would be declared of it, under a name that nothing can be declared by."""
    return definition_of(job.function, job.definition, job.parallel)


def definition_of(name: str, job: JobDefinition, parallel: int) -> FunctionDefinition:
    """A command that runs in as many containers at once as the job has tasks at once. Nothing is checked again."""
    given = {key: getattr(job, key) for key in ContainerKeys.model_fields}
    return FunctionDefinition.model_construct(
        name=name,
        image=job.image,
        command=job.command,
        timeout=job.timeout or IMAGE_TIMEOUT_SECONDS,
        queue_timeout=QUEUE_TIMEOUT,
        max_instances=parallel,
        max_body=LARGEST_INPUT,
        **given,
    )
