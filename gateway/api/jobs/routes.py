"""The routes of jobs: starting and showing them and their tasks, cancelling, running failed tasks again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from gateway.access.access import CURRENT, check_may_start_any
from gateway.api.calls.views import cursor_of
from gateway.api.dependencies import ClockPart, JobsPart, JobStartsPart, KeptContainersPart, WorkQueuesPart
from gateway.api.jobs.requests import EXAMPLES, LARGEST, SCHEMA, job_of, object_of
from gateway.api.jobs.rights import check_may_follow, check_may_run, is_named, may_name, may_see
from gateway.api.jobs.views import JobsView, JobView, TasksView, job_view, task_view
from gateway.api.openapi import problem_responses
from gateway.api.parts import ApiParts
from gateway.api.short_ids import short_id
from gateway.api.views import PageCursor, PageLimit, place_of
from gateway.calls.idempotency import idempotency_of, parameter
from gateway.http.pieces import in_time, page_response
from gateway.http.problems import Problem, problem_of
from gateway.invoke.body import whole_document
from scheduler.calls.model import EMPTY_PAGE
from scheduler.calls.store import KeyReused
from scheduler.jobs.jobs import Jobs
from scheduler.jobs.model import Counts, Job, JobQuery, JobStatus, TaskState
from scheduler.jobs.starting import NotStarted

STORE = problem_responses("store-failed")
NOT_FOUND = problem_responses("not-found", "ambiguous-id", "store-failed")
CONFLICT = problem_responses("not-found", "ambiguous-id", "conflict", "store-failed")
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

router = APIRouter(tags=["jobs"])


async def ids_of_jobs(parts: ApiParts, prefix: str) -> Sequence[str]:
    """Return ids of jobs that the caller may see."""
    store, admission = parts.jobs.store, CURRENT.get()
    if not store.exists:
        return ()
    return await store.ids_with_prefix(prefix, lambda job: is_named(admission, job.name, job.definition))


JobId = Annotated[str, short_id("`id` of a job", ids_of_jobs)]


async def find_job(jobs: Jobs, id: str) -> tuple[Job, Counts]:
    """Return a job that the caller may see, and how many of its tasks are in each state. Raises `Problem`."""
    found = await jobs.store.show(id) if jobs.store.exists else None
    if found is None or not may_see(found[0]):
        raise Problem("not-found", f"there is no job {id!r}, or it is forgotten already")
    return found


async def find_own_job(jobs: Jobs, id: str) -> Job:
    """Return a job that the caller may decide about. Raises `Problem`."""
    job, _ = await find_job(jobs, id)
    check_may_run(job.name, job.definition)
    return job


@router.post(
    "/jobs",
    status_code=202,
    summary="Start a job",
    response_description="It is on disk, and its tasks will be run",
    responses=STARTED,
    openapi_extra=BODY,
)
async def start_job(
    request: Request, response: Response, starts: JobStartsPart, jobs: JobsPart, work_queues: WorkQueuesPart
) -> JobView:
    """Run an image or a deployed function many times: `count` times, or once for each of `inputs`.

    Also a job of functions.yaml, by its name: `{"job": "nightly"}`.
    """
    check_may_start_any(starts.names())
    async with whole_document(request, LARGEST, "the most that a job takes") as body:
        caller, headers, declared = CURRENT.get(), request.headers.raw, starts.declared()
        key = await work_queues.jobs.do(len(body), lambda: idempotency_of(caller, headers, body))
        name, definition = await work_queues.jobs.do(len(body), lambda: job_of(object_of(body), declared))
        check_may_run(name, definition)
        check_may_follow(name, definition)
        try:
            job = await starts.start(secrets.token_hex(16), name, definition, key, CURRENT.get().caller)
        except NotStarted as error:
            raise Problem(error.slug, str(error), error.retry_after) from error
        except KeyReused as error:
            raise problem_of(error) from error
    response.headers["location"] = f"/jobs/{job.id}"
    shown = await jobs.store.show(job.id)
    return job_view(*(shown or (job, {})))


@router.get("/jobs", summary="List jobs", response_model=JobsView, responses=STORE)
async def list_jobs(
    jobs: JobsPart,
    starts: JobStartsPart,
    status: Annotated[JobStatus | None, Query(description="Only jobs that stand so")] = None,
    limit: PageLimit = 50,
    cursor: PageCursor = None,
) -> Response:
    """List jobs that were started, newest first, and the names of those that functions.yaml declares."""
    admission = CURRENT.get()

    def visible(job: Job) -> bool:  # a reader's thread has no request
        return is_named(admission, job.name, job.definition)

    query = JobQuery(status, place_of(cursor), limit, None if admission.sees_all else visible)
    page = await jobs.store.page(query) if jobs.store.exists else EMPTY_PAGE
    return await page_response(
        "jobs",
        page.records,
        lambda found: job_view(*found),
        declared=[name for name, job in starts.declared().items() if may_name(name, job)],
        cursor=cursor_of(page),
    )


@router.get("/jobs/{id}", summary="Show a job", responses=NOT_FOUND)
async def show_job(id: JobId, jobs: JobsPart) -> JobView:
    """Show a job: its status, and how many tasks are in each status."""
    return job_view(*await find_job(jobs, id))


@router.get(
    "/jobs/{id}/tasks",
    summary="List the tasks of a job",
    response_model=TasksView,
    responses=NOT_FOUND,
)
async def list_tasks(
    id: JobId,
    jobs: JobsPart,
    kept: KeptContainersPart,
    status: Annotated[TaskState | None, Query(description="Only tasks that stand so")] = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Response:
    """List its tasks in the order of their indices, each with its attempts, error, result and log."""
    job, _ = await find_job(jobs, id)
    containers = {} if job.definition.remove == "all" else await kept.of(job.function)
    page = await jobs.store.tasks(job, status, int(cursor) if cursor else -1, limit)
    return await page_response(
        "tasks",
        page.records,
        lambda record: task_view(record, containers.get(record.id, [])),
        cursor=cursor_of(page),
    )


@router.post("/jobs/{id}/cancel", summary="Cancel a job", responses=CONFLICT)
async def cancel_job(id: JobId, jobs: JobsPart) -> JobView:
    """Cancel a job. Tasks that wait are never run. Running ones are interrupted, which may take a moment longer."""
    await find_own_job(jobs, id)
    before = await jobs.cancel(id)
    if before is not None and before.status.ended:
        raise Problem("conflict", f"the job is {before.status} already")
    return job_view(*await find_job(jobs, id))


@router.post(
    "/jobs/{id}/retry",
    status_code=202,
    summary="Run the failed tasks of a job again",
    response_description="They will be run",
    responses=CONFLICT,
)
async def retry_job(id: JobId, jobs: JobsPart, starts: JobStartsPart) -> JobView:
    """Run every task of an ended job again that has not succeeded, with all its attempts before it."""
    job = await find_own_job(jobs, id)
    check_may_follow(job.name, job.definition)
    if starts.draining():
        raise Problem("conflict", f"the gateway is shutting down; job {job.id} is left as it is")
    before = await jobs.retry(id)
    if before is not None and before.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise Problem("conflict", f"the job is {before.status}; there is nothing to run again")
    return job_view(*await find_job(jobs, id))


@router.delete(
    "/jobs/{id}",
    status_code=204,
    summary="Forget a job",
    response_description="It is forgotten",
    responses=CONFLICT,
)
async def forget_job(id: JobId, jobs: JobsPart, clock: ClockPart) -> Response:
    """Forget an ended job, with its tasks, their results and the containers that it has kept."""
    job = await find_own_job(jobs, id)
    if not job.status.ended:
        raise Problem("conflict", f"the job is {job.status}; cancel it first: POST /jobs/{id}/cancel")
    await in_time(jobs.forget(id), "forgetting the job", clock)
    return Response(status_code=204)
