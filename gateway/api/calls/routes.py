"""The routes of accepted calls: how they stand, what they answered, cancelling, retrying, dead letters."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

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
from gateway.api.openapi import problem_responses
from gateway.calls.kept_answer import KeptAnswer
from gateway.http.pieces import in_time
from gateway.http.problems import Problem
from pool.clock import Clock
from pool.observe.metrics import Metrics, label_of
from pool.workload import is_private
from scheduler.calls import model
from scheduler.calls.model import Page, Record, Status
from scheduler.calls.running.worker import Worker
from scheduler.calls.store import Store, StoreError
from scheduler.store.sqlite.rows.callback_rows import CallbackStore

STORE = problem_responses("store-failed")
NOT_FOUND = problem_responses("not-found", "store-failed")
CONFLICT = problem_responses("not-found", "conflict", "store-failed")
UNKEPT = problem_responses("not-found", "conflict", "not-kept", "store-failed")
TAGS: list[str | Enum] = ["async"]
DEAD = (Status.DEAD, Status.EXPIRED)

InvocationId = Annotated[str, Path(description="`id` of an accepted call")]
OfFunction = Annotated[str | None, Query(description="Only calls of this function")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many a page has at most")]
Cursor = Annotated[
    str | None, Query(pattern="^[0-9]{1,18}$", description="`cursor` of the page before this one")
]
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The function's own answer, or the problem that a direct call would have had. Its status may "
        "be any other too",
        "content": {"*/*": {"schema": {}}},
    }
}


async def kept_log(store: Store, id: str) -> bytes | None:
    """What an accepted call had printed when it was recorded last; None: it was not accepted."""
    if await store.show(id) is None:
        return None
    result = await store.result(id)
    return result.log if result is not None else b""


async def export_backlog(store: Store, metrics: Metrics) -> None:
    """Count what waits and runs, when somebody looks."""
    for reason, refused in store.refusals.items():
        metrics.store_reads_refused.labels(reason).value = refused
    if not store.exists:
        return
    with suppress(StoreError):
        counts = await store.counts()
        metrics.async_backlog.clear()
        for (function, status), count in counts.items():
            metrics.async_backlog.labels(label_of(function, is_private(function)), status.value).inc(count)
        kept = await store.kept()
        for what in ("used", "unfinished", "largest", "size"):
            metrics.async_bytes.labels(what).set(getattr(kept, what))


def add_routes(
    router: APIRouter, store: Store, callbacks: CallbackStore, worker: Worker, clock: Clock
) -> None:
    """Add the routes of one gateway."""

    async def find(id: str) -> Record:
        record = await store.show(id) if store.exists else None
        if record is None or not CURRENT.get().may_name(record.function):
            raise Problem("not-found", f"no invocation {id!r} was accepted, or it is forgotten already")
        return record

    async def find_own(id: str) -> Record:
        record = await find(id)
        if not CURRENT.get().may_invoke(record.function):
            raise Problem(
                "forbidden", f"only a key that may invoke {record.function} decides about its calls"
            )
        return record

    async def page(query: model.Query) -> Response:
        if not store.exists:
            return await invocations_response(Page((), None))
        admission = CURRENT.get()
        page = await store.page(query if admission.sees_all else replace(query, visible=admission.may_name))
        return await invocations_response(page)

    @router.get(
        "/invocations",
        tags=TAGS,
        summary="List accepted calls",
        response_model=InvocationsView,
        responses=STORE,
    )
    async def list_invocations(
        function: OfFunction = None,
        status: Annotated[Status | None, Query(description="Only calls that stand so")] = None,
        since: Annotated[
            datetime | None,
            Query(description="Only calls accepted at this time or later (ISO 8601, or Unix time)"),
        ] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """Calls that were accepted with `Prefer: respond-async`, newest first."""
        statuses = () if status is None else (status,)
        if since is not None and since.tzinfo is None:
            since = since.replace(tzinfo=UTC)
        before = int(cursor) if cursor else None
        return await page(
            model.Query(function, statuses, since.timestamp() if since else None, before, limit)
        )

    @router.get("/invocations/{id}", tags=TAGS, summary="Show an accepted call", responses=NOT_FOUND)
    async def show_invocation(id: InvocationId) -> InvocationView:
        """How a call stands, and its callback, if it has one."""
        view = record_view(await find(id))
        if view.ended is not None and (callback := await callbacks.of(id)) is not None:
            view.callback = callback_view(callback)
        return view

    @router.get(
        "/invocations/{id}/result",
        tags=TAGS,
        summary="Read the answer of an accepted call",
        response_class=Response,
        responses={**UNKEPT, **ANSWER},
    )
    async def read_result(id: InvocationId) -> Response:
        """The function's own status, headers and body, when the call has ended."""
        record = await find(id)
        if not record.status.ended:
            raise Problem("conflict", f"the invocation is {record.status}; it has no result yet")
        result = await store.result(id)
        if result is None and record.error == "not-kept":
            raise Problem("not-kept", record.detail)
        if result is None:
            raise Problem("not-found", f"the invocation is {record.status} and has no result: it was not run")
        headers = result_headers(result, record)
        if result.payload is not None:
            return KeptAnswer(record.id, result.status, headers, store.pieces(result.payload.id))
        response = Response(result.body, status_code=result.status)
        response.raw_headers = headers
        return response

    @router.delete("/invocations/{id}", tags=TAGS, summary="Cancel an accepted call", responses=CONFLICT)
    async def cancel_invocation(id: InvocationId) -> InvocationView:
        """One that waits is never run. One that runs is interrupted: its instance is destroyed."""
        await find_own(id)
        record = await store.cancel(id, clock.wall())
        running = record is not None and record.status is Status.RUNNING
        if running and not await in_time(worker.cancel(id), "interrupting the call"):
            record = await store.cancel(
                id, clock.wall()
            )  # it may have failed just now, and wait for its next run
        after = await find(id)
        if record is None or record.status.ended or after.status is not Status.CANCELLED:
            raise Problem("conflict", f"the invocation is {after.status} already")
        if record.status is not Status.RUNNING:
            worker.ended(record.owner)
        return record_view(after)

    @router.post(
        "/invocations/{id}/retry",
        tags=TAGS,
        status_code=202,
        summary="Run an accepted call again",
        response_description="It is queued",
        responses=CONFLICT,
    )
    async def retry_invocation(id: InvocationId) -> InvocationView:
        """Queue a call that has ended once more, with all its attempts before it."""
        if owner := (await find_own(id)).owner:
            raise Problem("conflict", f"the invocation is a part of {owner}, which alone runs it again")
        record = await store.again(id, clock.wall())
        if record is not None and not record.status.ended:
            raise Problem(
                "conflict", f"the invocation is {record.status}; only one that has ended is run again"
            )
        worker.notify()
        return record_view(await find(id))

    @router.get(
        "/dead-letters",
        tags=TAGS,
        summary="List dead letters",
        response_model=InvocationsView,
        responses=STORE,
    )
    async def list_dead_letters(
        function: OfFunction = None, limit: Limit = 50, cursor: Cursor = None
    ) -> Response:
        """Calls that were given up: every attempt has failed (`dead`), or they grew too old (`expired`)."""
        return await page(model.Query(function, DEAD, None, int(cursor) if cursor else None, limit))

    @router.post("/dead-letters/redrive", tags=TAGS, summary="Run all dead letters again", responses=STORE)
    async def redrive_dead_letters(function: OfFunction = None) -> CountView:
        """Queue every dead letter, of one function or of all, as if it were new."""
        count = await store.redrive(clock.wall(), function) if store.exists else 0
        worker.notify()
        return CountView(count=count)

    @router.delete("/dead-letters", tags=TAGS, summary="Forget all dead letters", responses=STORE)
    async def purge_dead_letters(function: OfFunction = None) -> CountView:
        """Forget every dead letter, of one function or of all."""
        return CountView(count=await store.purge(clock.wall(), function) if store.exists else 0)
