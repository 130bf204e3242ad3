"""The routes of runs of workflows: their status, steps and output, drawing, cancelling and resuming them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from gateway.access.access import CURRENT
from gateway.api.calls.views import InvocationsView, cursor_of, invocations_response
from gateway.api.dependencies import CallsPart, ClockPart, RunsPart, WorkQueuesPart
from gateway.api.openapi import problem_responses
from gateway.api.parts import ApiParts
from gateway.api.short_ids import short_id
from gateway.api.views import PageCursor, PageLimit, place_of
from gateway.api.workflows.answers import NOT_DRAWN, PICTURE, answer_of, picture_of
from gateway.api.workflows.drawing import draw
from gateway.api.workflows.rights import check_may_start, may_see, sight
from gateway.api.workflows.views import (
    RunsView,
    RunView,
    RunWithStepsView,
    run_view,
    run_with_steps_view,
)
from gateway.http.pieces import in_time, page_response
from gateway.http.problems import Problem
from scheduler.calls import model
from scheduler.calls.model import EMPTY_PAGE
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.workflows.model import RunQuery, RunRecord, RunStatus, owner_of
from scheduler.workflows.runs import WorkflowRuns

NO_RUN = problem_responses("not-found", "ambiguous-id", "store-failed")
CONFLICT = problem_responses("not-found", "ambiguous-id", "conflict", "store-failed")
OUTPUT: dict[int | str, dict[str, Any]] = {
    200: {"description": "What the run has answered", "content": {"*/*": {"schema": {}}}}
}

StepName = Annotated[str, Path(description="Name of a step")]

router = APIRouter(tags=["workflows"])


async def ids_of_runs(parts: ApiParts, prefix: str) -> Sequence[str]:
    """Return ids of runs that the caller may see."""
    store, may_see_run = parts.runs.store, sight()
    if not store.exists:
        return ()
    return await store.ids_with_prefix(prefix, lambda run: may_see_run(run.functions))


RunId = Annotated[str, short_id("`id` of a run", ids_of_runs)]


async def find_run(runs: WorkflowRuns, id: str) -> RunRecord:
    """Return a run that the caller may see. Raises `Problem`."""
    record = await runs.store.show(id) if runs.store.exists else None
    if record is None or not may_see(record.functions):
        raise Problem("not-found", f"there is no run {id!r}, or it is forgotten already")
    return record


async def find_own_run(runs: WorkflowRuns, id: str) -> RunRecord:
    """Return a run that the caller may decide about. Raises `Problem`."""
    record = await find_run(runs, id)
    check_may_start(record.functions, "decides about this run")
    return record


async def with_its_steps(
    runs: WorkflowRuns, record: RunRecord
) -> tuple[RunWithStepsView, WorkflowDefinition]:
    """Return a run with its steps as the API shows it, and the workflow that it follows. Raises `Problem`."""
    found = await runs.store.steps(record)
    if found is None:
        raise Problem("not-found", f"the run {record.id!r} is forgotten")
    return run_with_steps_view(record, *found), found[0]


@router.get(
    "/runs",
    summary="List runs of workflows",
    response_model=RunsView,
    responses=problem_responses("store-failed"),
)
async def list_runs(
    runs: RunsPart,
    workflow: Annotated[str | None, Query(description="Only runs of this workflow")] = None,
    status: Annotated[RunStatus | None, Query(description="Only runs that stand so")] = None,
    limit: PageLimit = 50,
    cursor: PageCursor = None,
) -> Response:
    """List runs, newest first."""
    visible = None if CURRENT.get().sees_all else sight()
    query = RunQuery(workflow, status, place_of(cursor), limit, visible)
    page = await runs.store.page(query) if runs.store.exists else EMPTY_PAGE
    return await page_response("runs", page.records, run_view, cursor=cursor_of(page))


@router.get("/runs/{id}", summary="Show a run", responses=NO_RUN)
async def show_run(id: RunId, runs: RunsPart) -> RunWithStepsView:
    """Show a run and each of its steps, with their status."""
    return (await with_its_steps(runs, await find_run(runs, id)))[0]


@router.get(
    "/runs/{id}/output",
    summary="Read what a run has answered",
    response_class=Response,
    responses={**CONFLICT, **OUTPUT},
)
async def read_run_output(id: RunId, runs: RunsPart) -> Response:
    """Answer with the run's output and its content type, when it has succeeded."""
    record = await find_run(runs, id)
    output = await runs.store.output(id) if record.status is RunStatus.SUCCEEDED else None
    if output is None:
        raise Problem("conflict", f"the run is {record.status}; only one that has succeeded has an output")
    return answer_of(output, {})


@router.get(
    "/runs/{id}/graph.svg",
    summary="Draw a run",
    response_class=Response,
    responses={**NOT_DRAWN, **PICTURE},
)
async def draw_run(id: RunId, runs: RunsPart, work_queues: WorkQueuesPart) -> Response:
    """Draw its workflow with the current status of each step."""
    record = await find_run(runs, id)
    shown, definition = await with_its_steps(runs, record)
    return picture_of(
        await work_queues.workflows.in_turn(partial(draw, record.workflow, definition, shown.steps))
    )


@router.get(
    "/runs/{id}/steps/{step}",
    summary="List the calls of a step",
    response_model=InvocationsView,
    responses=NO_RUN,
)
async def list_step_calls(
    id: RunId,
    step: StepName,
    runs: RunsPart,
    calls: CallsPart,
    limit: PageLimit = 50,
    cursor: PageCursor = None,
) -> Response:
    """List the accepted calls of a step that were begun, newest first; `part` is the number of the item."""
    record = await find_run(runs, id)
    owner = owner_of(record.id, step)
    query = model.Query(before=place_of(cursor), limit=limit, owner=owner)
    return await invocations_response(await calls.page(query))


@router.delete("/runs/{id}", summary="Cancel or forget a run", responses=CONFLICT)
async def cancel_run(id: RunId, runs: RunsPart, clock: ClockPart) -> RunView:
    """Cancel a running run: waiting steps are never called, running ones are interrupted.

    A run that has ended is forgotten, with the calls of its steps.
    """
    record = await find_own_run(runs, id)
    if record.status.ended:
        await in_time(runs.forget(id), "forgetting the run", clock)
        return run_view(record)
    await in_time(runs.cancel(id), "cancelling the run", clock)
    return run_view(await find_run(runs, id))


@router.post(
    "/runs/{id}/resume",
    status_code=202,
    summary="Let a failed run go on",
    response_description="It goes on",
    responses=CONFLICT,
)
async def resume_run(id: RunId, runs: RunsPart, clock: ClockPart) -> RunView:
    """Let a run that has failed or was cancelled go on where it stopped.

    Calls that did not succeed are made again, with all their attempts before; the others are not.
    """
    await find_own_run(runs, id)
    record = await in_time(runs.resume(id), "resuming the run", clock)
    if record is not None and record.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
        raise Problem("conflict", f"the run is {record.status}; one that has failed or was cancelled goes on")
    return run_view(await find_run(runs, id))
