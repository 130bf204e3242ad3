"""Answers about accepted calls."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from gateway.api.views import NEXT_PAGE, moment
from gateway.http.answer_headers import response_headers
from gateway.http.pieces import page_response
from scheduler.calls.callbacks import CallbackRecord, CallbackStatus
from scheduler.calls.model import CallRecord, Page, Phases, Result, Status
from scheduler.work import HeaderList


class PhasesView(BaseModel):
    """Where the time of a run went, in milliseconds, as `Server-Timing` says it of a direct call."""

    start_kind: Literal["warm", "prewarmed", "cold"] = Field(description="As `X-Hearth-Start` says it")
    queue: float = Field(description="Waiting for a slot")
    start: float = Field(description="Starting an instance")
    exec: float = Field(description="In the function")


class CallbackView(BaseModel):
    """The callback of a call: whether its URL was told that the call has ended."""

    url: str = Field(description="Without its query, which may hold a secret")
    status: CallbackStatus
    attempts: int
    due: datetime | None = Field(None, description="While it is pending: when it is tried, or may be")
    fault: str | None = Field(None, description="What its latest attempt failed of, in words")


class InvocationView(BaseModel):
    """A call that was accepted to be run later."""

    id: str = Field(examples=["6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4"])
    function: str = Field(examples=["hello"])
    status: Status = Field(
        description="`queued`, `held` and `running` change by themselves, the others do not"
    )
    attempts: int = Field(description="Runs so far, the one that runs included")
    accepted: datetime
    due: datetime | None = Field(None, description="While it is queued: when it may be run")
    started: datetime | None = Field(None, description="When its latest run began")
    ended: datetime | None = None
    error: str | None = Field(
        None,
        description="What its latest run failed of: the slug of a problem, `function-error` for an answer of the "
        "function's own with a status from 400, `expired` for a call that was not run in time, `not-kept` for a "
        "result that the store cannot keep",
    )
    detail: str = Field("", description="The same in words")
    blame: Literal["caller", "function", "platform", "none"] = "none"
    phases: PhasesView | None = Field(
        None, description="Where the time of its latest run went; null: no run of it has had a slot"
    )
    owner: str | None = Field(
        None, description="What it is a part of, as `kind:id`; null: it was sent by a caller"
    )
    part: str | None = Field(None, description="Which part of it")
    callback: CallbackView | None = Field(
        None, description="Only where one call is shown, and it has ended; null: nobody asked to be told"
    )
    result: str | None = Field(None, description="Where its answer is, when it has ended")


class InvocationsView(BaseModel):
    """A page of a list."""

    invocations: list[InvocationView]
    cursor: str | None = Field(None, description=NEXT_PAGE)


class CountView(BaseModel):
    """The number of calls that were changed."""

    count: int


def _phases(phases: Phases | None) -> PhasesView | None:
    if phases is None:
        return None
    kind: Any = phases.kind
    queue, start, exec = (round(each, 2) for each in (phases.queue, phases.start, phases.exec))
    return PhasesView(start_kind=kind, queue=queue, start=start, exec=exec)


def record_view(record: CallRecord) -> InvocationView:
    """Return a record as the API shows it."""
    return InvocationView(
        id=record.id,
        function=record.function,
        status=record.status,
        attempts=record.attempts,
        accepted=moment(record.accepted),
        due=moment(record.due) if record.status is Status.QUEUED else None,
        started=None if record.started is None else moment(record.started),
        ended=None if record.ended is None else moment(record.ended),
        error=record.error,
        detail=record.detail,
        blame=record.blame,  # type: ignore[arg-type]
        phases=_phases(record.phases),
        owner=record.owner or None,
        part=record.part or None,
        callback=None,
        result=f"/invocations/{record.id}/result" if record.status.ended else None,
    )


async def invocations_response(page: Page[CallRecord]) -> Response:
    """Return a page of a list, an `InvocationsView`, as an answer."""
    return await page_response("invocations", page.records, record_view, cursor=cursor_of(page))


def cursor_of(page: Page[Any]) -> str | None:
    """Return where the next page begins, or None if this is the last."""
    return None if page.cursor is None else str(page.cursor)


_NEW = CallRecord(0, "%s", "%s", Status.QUEUED, 0, 0.0, 0.0, None, None, None, "", "none")
_QUEUED = record_view(_NEW).model_dump_json().replace("1970-01-01T00:00:00Z", "%s")


def record_json(record: CallRecord) -> bytes:
    """Return `record_view` as JSON.

    Every 202 carries that of a new call, which fills in a template: its model would cost a seventh of accepting a
    call.
    """
    if record.attempts or record.due != record.accepted or record.owner or record.status is not Status.QUEUED:
        return record_view(record).model_dump_json().encode()
    when = moment(record.accepted).isoformat().replace("+00:00", "Z")
    return (_QUEUED % (record.id, record.function, when, when)).encode()


def callback_view(callback: CallbackRecord) -> CallbackView:
    """Return a callback as the API shows it."""
    pending = callback.status is CallbackStatus.PENDING
    return CallbackView(
        url=callback.url.partition("?")[0],
        status=callback.status,
        attempts=callback.attempts,
        due=moment(callback.due) if pending else None,
        fault=callback.fault,
    )


def result_headers(result: Result, record: CallRecord) -> HeaderList:
    """Return the headers of an answer that was kept, as it is given to who asks for it.

    It is no page, whatever its function is marked: it may be older than the mark, and its place is the API's.
    """
    headers = response_headers(result.headers, False, result.status not in (204, 304))
    headers.append((b"x-invocation-id", record.id.encode()))
    if (phases := record.phases) is not None:
        timing = f"queue;dur={phases.queue:.2f}, start;dur={phases.start:.2f}, exec;dur={phases.exec:.2f}"
        headers += [(b"x-hearth-start", phases.kind.encode()), (b"server-timing", timing.encode())]
    headers.append((b"content-length", b"%d" % result.size))
    return headers
