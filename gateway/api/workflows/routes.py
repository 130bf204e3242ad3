"""The routes of workflows: those that functions.yaml declares, drawing them, starting a run."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from gateway.access.access import CURRENT
from gateway.api.dependencies import DispatcherPart, RunsPart, WorkQueuesPart
from gateway.api.openapi import problem_responses
from gateway.api.workflows.answers import NOT_DRAWN, PICTURE, answer_of, picture_of
from gateway.api.workflows.drawing import draw
from gateway.api.workflows.rights import check_may_start, may_see
from gateway.api.workflows.views import RunView, WorkflowView, run_view, workflow_view
from gateway.calls.idempotency import idempotency_of, parameter
from gateway.http.pieces import WorkQueue, list_response, unhurried
from gateway.http.preferences import preferences
from gateway.http.problems import Problem, problem_of
from gateway.invoke.body import whole_document
from scheduler.calls.store import KeyReused
from scheduler.calls.targets import Start
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.workflows.model import RunRecord, RunStatus
from scheduler.workflows.runs import WorkflowRuns
from scheduler.workflows.target import run_of

NO_WORKFLOW = problem_responses("not-found")
NOT_STARTED = problem_responses(
    "bad-request",
    "not-found",
    "body-timeout",
    "body-too-large",
    "busy",
    "key-reused",
    "store-failed",
    "draining",
)
LARGEST_INPUT = 6 * 2**20
"""Bytes of what a run is started with."""
ANY_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "The run's input: JSON, text, or any other body of at most 6 MiB",
        "content": {
            "application/json": {"schema": {}, "example": {"width": 160}},
            "text/plain": {"schema": {"type": "string"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "description": "`wait=5`: answer with the run's output if it succeeds within 5 seconds (300 at the most)",
            "schema": {"type": "string"},
        },
        parameter("The same key and input give the same run"),
    ],
}
STARTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The run's output (`Prefer: wait`)",
        "content": {"*/*": {"schema": {}}},
    },
    202: {
        "model": RunView,
        "description": "The run is on disk and goes on",
        "headers": {
            "Location": {
                "description": "Where the run is: `/runs/{id}`",
                "schema": {"type": "string"},
            }
        },
    },
}
WorkflowName = Annotated[str, Path(description="Name of the workflow", examples=["gallery"])]

router = APIRouter(tags=["workflows"])


def find_workflow(runs: WorkflowRuns, name: str) -> WorkflowDefinition:
    """Return a workflow that the caller may see. Raises `Problem`."""
    found = runs.workflows().get(name)
    if found is None or not may_see(found.functions()):
        raise Problem("not-found", f"there is no workflow {name!r}; GET /workflows lists them")
    return found


async def begin_run(
    runs: WorkflowRuns, work_queue: WorkQueue, name: str, definition: WorkflowDefinition, request: Request
) -> RunRecord:
    """Keep a run on disk, and let go of its input before anybody waits for its end. Raises `Problem`."""
    async with whole_document(request, LARGEST_INPUT, "the most that a run takes") as data:
        headers = request.headers.raw
        caller = CURRENT.get()
        key = await work_queue.do(len(data), lambda: idempotency_of(caller, headers, data))
        start = Start(secrets.token_hex(16), name, data, headers)
        try:  # it is parsed once to see that expressions can look at it
            run = await work_queue.do(len(data), lambda: run_of(start, definition))
        except ValueError as error:
            raise Problem("bad-request", str(error)) from error
        try:
            return await runs.begin(run, key, caller.caller)
        except KeyReused as error:
            raise problem_of(error) from error


@router.get("/workflows", summary="List the workflows", response_model=list[WorkflowView])
async def list_workflows(runs: RunsPart) -> Response:
    """List every workflow of functions.yaml whose functions the key may see."""
    seen = [
        (name, definition)
        async for name, definition in unhurried(runs.workflows().items())
        if may_see(definition.functions())
    ]
    return await list_response(seen, lambda each: workflow_view(*each))


@router.get("/workflows/{name}", summary="Show a workflow", responses=NO_WORKFLOW)
async def show_workflow(name: WorkflowName, runs: RunsPart) -> WorkflowView:
    """Show its steps, what they need, and the expressions between them."""
    return workflow_view(name, find_workflow(runs, name))


@router.get(
    "/workflows/{name}/graph.svg",
    summary="Draw a workflow",
    response_class=Response,
    responses={**NOT_DRAWN, **PICTURE},
)
async def draw_workflow(name: WorkflowName, work_queues: WorkQueuesPart, runs: RunsPart) -> Response:
    """Draw its steps and what they need."""
    return picture_of(await work_queues.workflows.in_turn(partial(draw, name, find_workflow(runs, name))))


@router.post(
    "/workflows/{name}",
    status_code=202,
    summary="Start a run of a workflow",
    response_class=Response,
    responses={**STARTED, **NOT_STARTED},
    openapi_extra=ANY_BODY,
)
async def start_run(
    name: WorkflowName,
    request: Request,
    runs: RunsPart,
    dispatcher: DispatcherPart,
    work_queues: WorkQueuesPart,
) -> Response:
    """Keep a run on disk, answer 202, and go on with it: also if the gateway is killed.

    The key must be allowed to invoke every function of the workflow.
    """
    definition = find_workflow(runs, name)
    check_may_start(definition.functions(), f"starts {name}")
    if dispatcher.draining:
        raise Problem("draining", "the gateway is shutting down", retry_after=5.0)
    record = await begin_run(runs, work_queues.workflows, name, definition, request)
    headers = request.headers.raw
    wait = preferences(headers).wait
    shown = {"location": f"/runs/{record.id}"}
    if wait is not None:
        shown["preference-applied"] = f"wait={wait:g}"
        await runs.wait(record.id, wait)
        record = await runs.store.show(record.id) or record
        output = await runs.store.output(record.id) if record.status is RunStatus.SUCCEEDED else None
        if output is not None:
            return answer_of(output, shown)
    body = run_view(record).model_dump_json()
    return Response(body, 202, {**shown, "cache-control": "no-store"}, "application/json")
