"""The rights of a caller over jobs: which it may see, start and decide about."""

from __future__ import annotations

from gateway.access.access import CURRENT, Admission
from gateway.http.problems import Problem
from scheduler.definitions.jobs import JobDefinition
from scheduler.jobs.model import Job


def may_name(name: str, definition: JobDefinition) -> bool:
    """Return whether the caller may learn of such a job."""
    return is_named(CURRENT.get(), name, definition)


def is_named(admission: Admission, name: str, definition: JobDefinition) -> bool:
    """Return whether a caller may learn of such a job."""
    if definition.function is not None:
        return admission.may_name(definition.function)
    return admission.may_name(name) or admission.may_deploy


def may_see(job: Job) -> bool:
    """Return whether the caller may learn of this job."""
    return may_name(job.name, job.definition)


def check_may_run(name: str, definition: JobDefinition) -> None:
    """Raise `Problem` unless the caller may start such a job, and so decide about it."""
    admission = CURRENT.get()
    if definition.function is not None:
        if not admission.may_invoke(definition.function):
            raise Problem("forbidden", f"only a key that may invoke {definition.function} may have it run")
    elif name:
        if not admission.may_invoke(name):
            raise Problem("forbidden", f"only a key with invoke:{name} may have the job {name} run")
    elif not admission.may_deploy:
        raise Problem("forbidden", "only a key with `deploy` may have an image run that nobody has declared")


def check_may_follow(name: str, definition: JobDefinition) -> None:
    """Raise `Problem` unless the caller may invoke what such a job calls when it has ended. What a job of
    functions.yaml calls is its author's matter."""
    for function in (definition.on_success, definition.on_failure):
        if not name and function is not None and not CURRENT.get().may_invoke(function):
            raise Problem("forbidden", f"only a key that may invoke {function} may have it called at the end")
