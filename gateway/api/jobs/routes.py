"""The routes of jobs: starting them, how they and their tasks stand, cancelling, running failed tasks again."""

from __future__ import annotations

import secrets
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from gateway.access.access import CURRENT, Admission, check_may_start_any
from gateway.api.calls.views import cursor_of
from gateway.api.jobs.requests import EXAMPLES, LARGEST, SCHEMA, job_of, object_of
from gateway.api.jobs.views import JobsView, JobView, TasksView, job_view, task_view
from gateway.api.openapi import problem_responses
from gateway.calls.idempotency import idempotency_of, parameter
from gateway.http.pieces import Desk, in_time, page_response
from gateway.http.problems import Problem, problem_of
from gateway.invoke.body import whole_document
from scheduler.calls.model import EMPTY_PAGE
from scheduler.calls.store import KeyReused
from scheduler.definitions.jobs import JobDefinition
from scheduler.jobs.jobs import Jobs
from scheduler.jobs.kept_containers import KeptContainers
from scheduler.jobs.model import Counts, Job, JobQuery, JobStatus, TaskState
from scheduler.jobs.starting import JobStarts, NotStarted

TAGS: list[str | Enum] = ["jobs"]
STORE = problem_responses("store-failed")
NOT_FOUND = problem_responses("not-found", "store-failed")
CONFLICT = problem_responses("not-found", "conflict", "store-failed")
STARTED = {
    202: {
        "headers": {
            "Location": {"description": "Where the job is: `/jobs/{id}`", "schema": {"type": "string"}}
        }
    },
    **problem_responses(
        "bad-request",
        "body-timeout",
        "busy",
        "not-found",
        "no-such-function",
        "body-too-large",
        "invalid-input",
        "key-reused",
        "draining",
        "engine-down",
        "store-failed",
    ),
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SCHEMA, "examples": EXAMPLES}},
    },
    "parameters": [parameter("The same key and request give the same job")],
}

JobId = Annotated[str, Path(description="`id` of a job")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many a page has at most")]
Cursor = Annotated[
    str | None, Query(pattern="^[0-9]{1,18}$", description="`cursor` of the page before this one")
]


def add_job_routes(router: APIRouter, jobs: Jobs, starts: JobStarts, kept: KeptContainers) -> None:
    """Add the routes of one gateway."""
    store = jobs.store
    desk = Desk()

    async def find(id: str) -> tuple[Job, Counts]:
        found = await store.show(id) if store.exists else None
        if found is None or not may_see(found[0]):
            raise Problem("not-found", f"there is no job {id!r}, or it is forgotten already")
        return found

    async def find_own(id: str) -> Job:
        job, _ = await find(id)
        check_may_run(job.name, job.definition)
        return job

    @router.post(
        "/jobs",
        tags=TAGS,
        status_code=202,
        summary="Start a job",
        response_description="It is on disk, and its tasks will be run",
        responses=STARTED,
        openapi_extra=BODY,
    )
    async def start_job(request: Request, response: Response) -> JobView:
        """Run an image or a deployed function many times: `count` times, or once for each of `inputs`.

        Also a job of functions.yaml, by its name: `{"job": "nightly"}`.
        """
        check_may_start_any(starts.names())
        async with whole_document(request, LARGEST, "the most that a job takes") as body:
            caller, headers, declared = CURRENT.get(), request.headers.raw, starts.declared()
            key = await desk.do(len(body), lambda: idempotency_of(caller, headers, body))
            name, definition = await desk.do(len(body), lambda: job_of(object_of(body), declared))
            check_may_run(name, definition)
            check_may_follow(name, definition)
            try:
                job = await starts.start(secrets.token_hex(16), name, definition, key, CURRENT.get().caller)
            except NotStarted as error:
                raise Problem(error.slug, str(error), error.retry_after) from error
            except KeyReused as error:
                raise problem_of(error) from error
        response.headers["location"] = f"/jobs/{job.id}"
        shown = await store.show(job.id)
        return job_view(*(shown or (job, {})))

    @router.get("/jobs", tags=TAGS, summary="List jobs", response_model=JobsView, responses=STORE)
    async def list_jobs(
        status: Annotated[JobStatus | None, Query(description="Only jobs that stand so")] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """Jobs that were started, newest first, and the names of those that functions.yaml declares."""
        admission = CURRENT.get()

        def visible(job: Job) -> bool:  # a reader's thread has no request
            return is_named(admission, job.name, job.definition)

        query = JobQuery(
            status, int(cursor) if cursor else None, limit, None if admission.sees_all else visible
        )
        page = await store.page(query) if store.exists else EMPTY_PAGE
        return await page_response(
            "jobs",
            page.records,
            lambda found: job_view(*found),
            declared=[name for name, job in starts.declared().items() if may_name(name, job)],
            cursor=cursor_of(page),
        )

    @router.get("/jobs/{id}", tags=TAGS, summary="Show a job", responses=NOT_FOUND)
    async def show_job(id: JobId) -> JobView:
        """How a job stands, and how many of its tasks stand how."""
        return job_view(*await find(id))

    @router.get(
        "/jobs/{id}/tasks",
        tags=TAGS,
        summary="List the tasks of a job",
        response_model=TasksView,
        responses=NOT_FOUND,
    )
    async def list_tasks(
        id: JobId,
        status: Annotated[TaskState | None, Query(description="Only tasks that stand so")] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """Its tasks in the order of their indices, each with its attempts, its error, its result and its log."""
        job, _ = await find(id)
        containers = {} if job.definition.remove == "all" else await kept.of(job.function)
        page = await store.tasks(job, status, int(cursor) if cursor else -1, limit)
        return await page_response(
            "tasks",
            page.records,
            lambda record: task_view(record, containers.get(record.id, [])),
            cursor=cursor_of(page),
        )

    @router.post("/jobs/{id}/cancel", tags=TAGS, summary="Cancel a job", responses=CONFLICT)
    async def cancel_job(id: JobId) -> JobView:
        """Tasks that wait are never run. Those that run are interrupted, which may take a moment longer."""
        await find_own(id)
        before = await jobs.cancel(id)
        if before is not None and before.status.ended:
            raise Problem("conflict", f"the job is {before.status} already")
        return job_view(*await find(id))

    @router.post(
        "/jobs/{id}/retry",
        tags=TAGS,
        status_code=202,
        summary="Run the failed tasks of a job again",
        response_description="They will be run",
        responses=CONFLICT,
    )
    async def retry_job(id: JobId) -> JobView:
        """Every task of a job that has ended but for those that have succeeded, with all its attempts before it."""
        job = await find_own(id)
        check_may_follow(job.name, job.definition)
        check_may_run_now(job)
        before = await jobs.retry(id)
        if before is not None and before.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise Problem("conflict", f"the job is {before.status}; there is nothing to run again")
        return job_view(*await find(id))

    def check_may_run_now(job: Job) -> None:
        if starts.draining():
            raise Problem("conflict", f"the gateway is shutting down; job {job.id} is left as it is")

    @router.delete(
        "/jobs/{id}",
        tags=TAGS,
        status_code=204,
        summary="Forget a job",
        response_description="It is forgotten",
        responses=CONFLICT,
    )
    async def forget_job(id: JobId) -> Response:
        """With its tasks, their results and the containers that it has kept. Only a job that has ended."""
        job = await find_own(id)
        if not job.status.ended:
            raise Problem("conflict", f"the job is {job.status}; cancel it first: POST /jobs/{id}/cancel")
        await in_time(jobs.forget(id), "forgetting the job")
        return Response(status_code=204)


def may_name(name: str, definition: JobDefinition) -> bool:
    """Whether the caller may learn of such a job."""
    return is_named(CURRENT.get(), name, definition)


def is_named(admission: Admission, name: str, definition: JobDefinition) -> bool:
    """Return whether a caller may learn of such a job."""
    if definition.function is not None:
        return admission.may_name(definition.function)
    return admission.may_name(name) or admission.may_deploy


def may_see(job: Job) -> bool:
    """Whether the caller may learn of this job."""
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
