"""The routes of workflows and their runs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from gateway.access.access import CURRENT
from gateway.api.calls.routes import Cursor, Limit
from gateway.api.calls.views import InvocationsView, cursor_of, invocations_response
from gateway.api.openapi import problem_responses
from gateway.api.workflows.drawing import draw
from gateway.api.workflows.views import (
    RunsView,
    RunView,
    RunWithStepsView,
    WorkflowView,
    run_view,
    run_with_steps_view,
    workflow_view,
)
from gateway.calls.idempotency import idempotency_of, parameter
from gateway.http.answer_headers import response_headers
from gateway.http.pieces import Desk, in_time, list_response, page_response, unhurried
from gateway.http.preferences import preferences
from gateway.http.problems import Problem, problem_of
from gateway.invoke.body import whole_document
from scheduler.calls import model
from scheduler.calls.model import EMPTY_PAGE
from scheduler.calls.store import KeyReused, Store
from scheduler.calls.targets import Start
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.store.sqlite.rows.run_rows import owner_of
from scheduler.workflows.model import RunQuery, RunRecord, RunStatus
from scheduler.workflows.runs import WorkflowRuns
from scheduler.workflows.target import run_of
from scheduler.workflows.values import Body

TAGS: list[str | Enum] = ["workflows"]
NO_WORKFLOW = problem_responses("not-found")
NOT_DRAWN = problem_responses("not-found", "store-failed", "busy")
NO_RUN = problem_responses("not-found", "store-failed")
CONFLICT = problem_responses("not-found", "conflict", "store-failed")
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
OUTPUT: dict[int | str, dict[str, Any]] = {
    200: {"description": "What the run has answered", "content": {"*/*": {"schema": {}}}}
}

PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture", "content": {"image/svg+xml": {"schema": {"type": "string"}}}}
}

WorkflowName = Annotated[str, Path(description="Name of the workflow", examples=["gallery"])]
RunId = Annotated[str, Path(description="`id` of a run")]
StepName = Annotated[str, Path(description="Name of a step")]


def add_routes(router: APIRouter, runs: WorkflowRuns, calls: Store, draining: Callable[[], bool]) -> None:
    """Add the routes of one gateway."""

    def may_see(functions: Iterable[str]) -> bool:
        return sight()(functions)

    desk = Desk()

    def sight() -> Callable[[Iterable[str]], bool]:
        may_name = CURRENT.get().may_name  # a reader's thread has no request
        return lambda functions: all(map(may_name, functions))

    def may_start(functions: Iterable[str], deed: str) -> None:
        for function in functions:
            if not CURRENT.get().may_invoke(function):
                raise Problem("forbidden", f"only a key that may invoke {function} {deed}")

    def declared(name: str) -> WorkflowDefinition:
        found = runs.workflows().get(name)
        if found is None or not may_see(found.functions()):
            raise Problem("not-found", f"there is no workflow {name!r}; GET /workflows lists them")
        return found

    async def find(id: str) -> RunRecord:
        record = await runs.store.show(id) if runs.store.exists else None
        if record is None or not may_see(record.functions):
            raise Problem("not-found", f"there is no run {id!r}, or it is forgotten already")
        return record

    async def find_own(id: str) -> RunRecord:
        record = await find(id)
        may_start(record.functions, "decides about this run")
        return record

    async def with_steps(record: RunRecord) -> tuple[RunWithStepsView, WorkflowDefinition]:
        found = await runs.store.steps(record)
        if found is None:
            raise Problem("not-found", f"the run {record.id!r} is forgotten")
        return run_with_steps_view(record, *found), found[0]

    async def begin(name: str, definition: WorkflowDefinition, request: Request) -> RunRecord:
        """Keep a run on disk. What was read for it is let go of before anybody waits for its end."""
        async with whole_document(request, LARGEST_INPUT, "the most that a run takes") as data:
            headers = request.headers.raw
            caller = CURRENT.get()
            key = await desk.do(len(data), lambda: idempotency_of(caller, headers, data))
            start = Start(secrets.token_hex(16), name, data, headers)
            try:  # it is parsed once to see that expressions can look at it
                run = await desk.do(len(data), lambda: run_of(start, definition))
            except ValueError as error:
                raise Problem("bad-request", str(error)) from error
            try:
                return await runs.begin(run, key, CURRENT.get().caller)
            except KeyReused as error:
                raise problem_of(error) from error

    @router.get("/workflows", tags=TAGS, summary="List the workflows", response_model=list[WorkflowView])
    async def list_workflows() -> Response:
        """Every workflow of functions.yaml whose functions the key may see."""
        seen = [
            (name, definition)
            async for name, definition in unhurried(runs.workflows().items())
            if may_see(definition.functions())
        ]
        return await list_response(seen, lambda each: workflow_view(*each))

    @router.get("/workflows/{name}", tags=TAGS, summary="Show a workflow", responses=NO_WORKFLOW)
    async def show_workflow(name: WorkflowName) -> WorkflowView:
        """Its steps, what they need, and the expressions between them."""
        return workflow_view(name, declared(name))

    @router.get(
        "/workflows/{name}/graph.svg",
        tags=TAGS,
        summary="Draw a workflow",
        response_class=Response,
        responses={**NOT_DRAWN, **PICTURE},
    )
    async def draw_workflow(name: WorkflowName) -> Response:
        """Its steps and what they need."""
        return picture_of(await desk.in_turn(partial(draw, name, declared(name))))

    @router.post(
        "/workflows/{name}",
        tags=TAGS,
        status_code=202,
        summary="Start a run of a workflow",
        response_class=Response,
        responses={**STARTED, **NOT_STARTED},
        openapi_extra=ANY_BODY,
    )
    async def start_run(name: WorkflowName, request: Request) -> Response:
        """Keep a run on disk, answer 202, and go on with it: also if the gateway is killed.

        The key must be allowed to invoke every function of the workflow.
        """
        definition = declared(name)
        may_start(definition.functions(), f"starts {name}")
        if draining():
            raise Problem("draining", "the gateway is shutting down", retry_after=5.0)
        record = await begin(name, definition, request)
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

    @router.get(
        "/runs",
        tags=TAGS,
        summary="List runs of workflows",
        response_model=RunsView,
        responses=problem_responses("store-failed"),
    )
    async def list_runs(
        workflow: Annotated[str | None, Query(description="Only runs of this workflow")] = None,
        status: Annotated[RunStatus | None, Query(description="Only runs that stand so")] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """WorkflowRuns, newest first."""
        visible = None if CURRENT.get().sees_all else sight()
        query = RunQuery(workflow, status, int(cursor) if cursor else None, limit, visible)
        page = await runs.store.page(query) if runs.store.exists else EMPTY_PAGE
        return await page_response("runs", page.records, run_view, cursor=cursor_of(page))

    @router.get("/runs/{id}", tags=TAGS, summary="Show a run", responses=NO_RUN)
    async def show_run(id: RunId) -> RunWithStepsView:
        """How a run and each of its steps stands."""
        return (await with_steps(await find(id)))[0]

    @router.get(
        "/runs/{id}/output",
        tags=TAGS,
        summary="Read what a run has answered",
        response_class=Response,
        responses={**CONFLICT, **OUTPUT},
    )
    async def read_run_output(id: RunId) -> Response:
        """The run's output, with its content type, when it has succeeded."""
        record = await find(id)
        output = await runs.store.output(id) if record.status is RunStatus.SUCCEEDED else None
        if output is None:
            raise Problem(
                "conflict", f"the run is {record.status}; only one that has succeeded has an output"
            )
        return answer_of(output, {})

    @router.get(
        "/runs/{id}/graph.svg",
        tags=TAGS,
        summary="Draw a run",
        response_class=Response,
        responses={**NOT_DRAWN, **PICTURE},
    )
    async def draw_run(id: RunId) -> Response:
        """Its workflow with the state of each step, as it is now."""
        record = await find(id)
        shown, definition = await with_steps(record)
        return picture_of(await desk.in_turn(partial(draw, record.workflow, definition, shown.steps)))

    @router.get(
        "/runs/{id}/steps/{step}",
        tags=TAGS,
        summary="List the calls of a step",
        response_model=InvocationsView,
        responses=NO_RUN,
    )
    async def list_step_calls(
        id: RunId, step: StepName, limit: Limit = 50, cursor: Cursor = None
    ) -> Response:
        """The accepted calls of a step that were begun, newest first; `part` is the number of the item."""
        record = await find(id)
        owner = owner_of(record.id, step)
        query = model.Query(before=int(cursor) if cursor else None, limit=limit, owner=owner)
        return await invocations_response(await calls.page(query))

    @router.delete("/runs/{id}", tags=TAGS, summary="Cancel or forget a run", responses=CONFLICT)
    async def cancel_run(id: RunId) -> RunView:
        """One that goes on is cancelled: what waits is never called, what runs is interrupted. One that has ended is
        forgotten, with the calls of its steps."""
        record = await find_own(id)
        if record.status.ended:
            await in_time(runs.forget(id), "forgetting the run")
            return run_view(record)
        await in_time(runs.cancel(id), "cancelling the run")
        return run_view(await find(id))

    @router.post(
        "/runs/{id}/resume",
        tags=TAGS,
        status_code=202,
        summary="Let a failed run go on",
        response_description="It goes on",
        responses=CONFLICT,
    )
    async def resume_run(id: RunId) -> RunView:
        """A run that has failed or was cancelled goes on where it stopped: what did not succeed is called again, with
        all its attempts before it, and what did is not."""
        await find_own(id)
        record = await in_time(runs.resume(id), "resuming the run")
        if record is not None and record.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
            raise Problem(
                "conflict", f"the run is {record.status}; one that has failed or was cancelled goes on"
            )
        return run_view(await find(id))


def picture_of(svg: bytes) -> Response:
    """A drawing as an answer."""
    return answer_of(Body(svg, "image/svg+xml"), {})


def answer_of(output: Body, headers: dict[str, str]) -> Response:
    """A run's output as an answer. It may be any function's page: browsers give it no rights on our origin."""
    kept = [(b"content-type", output.content_type.encode("latin-1"))] if output.content_type else []
    safe = {name.decode(): value.decode("latin-1") for name, value in response_headers(kept, web=False)}
    return Response(output.data, 200, {**headers, **safe, "cache-control": "no-store"})
