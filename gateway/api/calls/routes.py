"""The routes of accepted calls: their status and answers, cancelling and retrying, dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from gateway.access.access import CURRENT
from gateway.api.calls.views import (
    CountView,
    InvocationsView,
    InvocationView,
    callback_view,
    invocations_response,
    record_view,
    result_headers,
)
from gateway.api.dependencies import CallbacksPart, CallsPart, ClockPart, WorkerPart
from gateway.api.openapi import problem_responses
from gateway.api.parts import ApiParts
from gateway.api.short_ids import short_id
from gateway.api.views import PageCursor, PageLimit, place_of
from gateway.calls.kept_answer import KeptAnswer
from gateway.http.pieces import in_time
from gateway.http.problems import Problem
from scheduler.calls import model
from scheduler.calls.model import CallRecord, Page, Status
from scheduler.calls.store import CallStore

STORE = problem_responses("store-failed")
NOT_FOUND = problem_responses("not-found", "ambiguous-id", "store-failed")
CONFLICT = problem_responses("not-found", "ambiguous-id", "conflict", "store-failed")
UNKEPT = problem_responses("not-found", "ambiguous-id", "conflict", "not-kept", "store-failed")
DEAD = (Status.DEAD, Status.EXPIRED)

OfFunction = Annotated[str | None, Query(description="Only calls of this function")]
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The function's own answer, or the problem that a direct call would have had. Its status may "
        "be any other too",
        "content": {"*/*": {"schema": {}}},
    }
}

router = APIRouter(tags=["async"])


async def ids_of_calls(parts: ApiParts, prefix: str) -> Sequence[str]:
    """Return ids of accepted calls that the caller may see."""
    if not parts.calls.exists:
        return ()
    may_name = CURRENT.get().may_name  # a reader's thread has no request
    return await parts.calls.ids_with_prefix(prefix, lambda call: may_name(call.function))


InvocationId = Annotated[str, short_id("`id` of an accepted call", ids_of_calls)]


async def find_call(calls: CallStore, id: str) -> CallRecord:
    """Return an accepted call that the caller may see. Raises `Problem`."""
    record = await calls.show(id) if calls.exists else None
    if record is None or not CURRENT.get().may_name(record.function):
        raise Problem("not-found", f"no invocation {id!r} was accepted, or it is forgotten already")
    return record


async def find_own_call(calls: CallStore, id: str) -> CallRecord:
    """Return an accepted call that the caller may decide about. Raises `Problem`."""
    record = await find_call(calls, id)
    if not CURRENT.get().may_invoke(record.function):
        raise Problem("forbidden", f"only a key that may invoke {record.function} decides about its calls")
    return record


async def page_of_calls(calls: CallStore, query: model.Query) -> Response:
    """Return a page of the accepted calls that the caller may see."""
    if not calls.exists:
        return await invocations_response(Page((), None))
    admission = CURRENT.get()
    seen = query if admission.sees_all else replace(query, visible=admission.may_name)
    return await invocations_response(await calls.page(seen))


@router.get(
    "/invocations",
    summary="List accepted calls",
    response_model=InvocationsView,
    responses=STORE,
)
async def list_invocations(
    calls: CallsPart,
    function: OfFunction = None,
    status: Annotated[Status | None, Query(description="Only calls that stand so")] = None,
    since: Annotated[
        datetime | None,
        Query(description="Only calls accepted at this time or later (ISO 8601, or Unix time)"),
    ] = None,
    limit: PageLimit = 50,
    cursor: PageCursor = None,
) -> Response:
    """List calls that were accepted with `Prefer: respond-async`, newest first."""
    statuses = () if status is None else (status,)
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    after = since.timestamp() if since else None
    return await page_of_calls(calls, model.Query(function, statuses, after, place_of(cursor), limit))


@router.get("/invocations/{id}", summary="Show an accepted call", responses=NOT_FOUND)
async def show_invocation(id: InvocationId, calls: CallsPart, callbacks: CallbacksPart) -> InvocationView:
    """Show a call: its status, and its callback if it has one."""
    view = record_view(await find_call(calls, id))
    if view.ended is not None and (callback := await callbacks.of(id)) is not None:
        view.callback = callback_view(callback)
    return view


@router.get(
    "/invocations/{id}/result",
    summary="Read the answer of an accepted call",
    response_class=Response,
    responses={**UNKEPT, **ANSWER},
)
async def read_result(id: InvocationId, calls: CallsPart) -> Response:
    """Answer with the function's own status, headers and body, when the call has ended."""
    record = await find_call(calls, id)
    if not record.status.ended:
        raise Problem("conflict", f"the invocation is {record.status}; it has no result yet")
    result = await calls.result(id)
    if result is None and record.error == "not-kept":
        raise Problem("not-kept", record.detail)
    if result is None:
        raise Problem("not-found", f"the invocation is {record.status} and has no result: it was not run")
    headers = result_headers(result, record)
    if result.payload is not None:
        return KeptAnswer(record.id, result.status, headers, calls.pieces(result.payload.id))
    response = Response(result.body, status_code=result.status)
    response.raw_headers = headers
    return response


@router.delete("/invocations/{id}", summary="Cancel an accepted call", responses=CONFLICT)
async def cancel_invocation(
    id: InvocationId, calls: CallsPart, worker: WorkerPart, clock: ClockPart
) -> InvocationView:
    """Cancel a call. One that waits is never run. One that runs is interrupted: its instance is destroyed."""
    await find_own_call(calls, id)
    record = await calls.cancel(id, clock.wall())
    running = record is not None and record.status is Status.RUNNING
    if running and not await in_time(worker.cancel(id), "interrupting the call", clock):
        # It may have failed just now, and wait for its next run.
        record = await calls.cancel(id, clock.wall())
    after = await find_call(calls, id)
    if record is None or record.status.ended or after.status is not Status.CANCELLED:
        raise Problem("conflict", f"the invocation is {after.status} already")
    if record.status is not Status.RUNNING:
        worker.ended(record.owner)
    return record_view(after)


@router.post(
    "/invocations/{id}/retry",
    status_code=202,
    summary="Run an accepted call again",
    response_description="It is queued",
    responses=CONFLICT,
)
async def retry_invocation(
    id: InvocationId, worker: WorkerPart, calls: CallsPart, clock: ClockPart
) -> InvocationView:
    """Queue a call that has ended once more, with all its attempts before it."""
    if owner := (await find_own_call(calls, id)).owner:
        raise Problem("conflict", f"the invocation is a part of {owner}, which alone runs it again")
    record = await calls.run_again(id, clock.wall())
    if record is not None and not record.status.ended:
        raise Problem("conflict", f"the invocation is {record.status}; only one that has ended is run again")
    worker.notify()
    return record_view(await find_call(calls, id))


@router.get(
    "/dead-letters",
    summary="List dead letters",
    response_model=InvocationsView,
    responses=STORE,
)
async def list_dead_letters(
    calls: CallsPart, function: OfFunction = None, limit: PageLimit = 50, cursor: PageCursor = None
) -> Response:
    """List calls that were given up: every attempt has failed (`dead`), or they grew too old (`expired`)."""
    return await page_of_calls(calls, model.Query(function, DEAD, None, place_of(cursor), limit))


@router.post("/dead-letters/redrive", summary="Run all dead letters again", responses=STORE)
async def redrive_dead_letters(
    calls: CallsPart, worker: WorkerPart, clock: ClockPart, function: OfFunction = None
) -> CountView:
    """Queue every dead letter, of one function or of all, as if it were new."""
    count = await calls.redrive(clock.wall(), function) if calls.exists else 0
    worker.notify()
    return CountView(count=count)


@router.delete("/dead-letters", summary="Forget all dead letters", responses=STORE)
async def purge_dead_letters(calls: CallsPart, clock: ClockPart, function: OfFunction = None) -> CountView:
    """Forget every dead letter, of one function or of all."""
    return CountView(count=await calls.purge(clock.wall(), function) if calls.exists else 0)
