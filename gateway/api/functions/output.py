"""The route of all output: what functions have printed and print, filtered by the rights of the key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from gateway.access.access import CURRENT, Access, Admission
from gateway.api.dependencies import AccessPart, ClockPart, OutputPart
from gateway.api.functions.output_forms import (
    JSON_LINES,
    LATE_SECONDS,
    MICROSECONDS,
    TEXT,
    LinePlace,
    as_events,
    as_json_lines,
    as_text,
    bounded_reader,
    journal_time,
)
from gateway.api.openapi import problem_responses
from gateway.api.views import EVENTS, EVENTS_OPENING, EVENTS_SIGN_OF_LIFE, NOT_HELD_BACK, moment_of
from gateway.http.problems import Problem
from pool.observe.journal.reader import OutputFilter
from pool.observe.journal.reading import Form, OutputReading
from pool.observe.journal.records import OutputLine

DEFAULT_LINES = 1000
"""Latest lines of an answer if the request names neither `limit` nor `since`."""
DEFAULT_FOLLOWED_LINES = 10
"""Latest lines with which an answer begins that goes on."""
MOST_LINES = 10_000
LONGEST_TEXT = 1000
"""Characters of a text to look for."""
OPENING: dict[Form, bytes] = {as_events: EVENTS_OPENING}
"""Bytes that open an answer which goes on."""
SIGN_OF_LIFE: dict[Form, bytes] = {as_events: EVENTS_SIGN_OF_LIFE, as_json_lines: b"\n"}
"""Bytes that mean nothing, sent when nothing was printed for a while."""

router = APIRouter(tags=["logs"])


@dataclass(frozen=True)
class LogRequest:
    """A request for output, read and checked."""

    wanted: OutputFilter
    after: int
    """Number of a record; lines behind it are looked at."""
    upto: int
    skip: LinePlace | None
    """Place of the line that the caller has seen last."""
    limit: int | None
    """Latest lines that are wanted, or None for all."""


@router.get(
    "/logs",
    summary="Read or follow what functions print",
    response_class=Response,
    responses={
        **problem_responses("invalid-input", "busy"),
        200: {
            "description": "Lines of output, oldest first",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                JSON_LINES: {"schema": {}},
                EVENTS: {"schema": {}},
            },
        },
    },
)
async def read_logs(
    output: OutputPart,
    access: AccessPart,
    clock: ClockPart,
    function: Annotated[str | None, Query(description="Only output of this function")] = None,
    invocation: Annotated[
        str | None, Query(description="Only of the call with this id, or of those whose begins so")
    ] = None,
    instance: Annotated[str | None, Query(description="Only of the instance with this id")] = None,
    since: Annotated[str | None, Query(description="Only from then on: `10m`, or a time (RFC 3339)")] = None,
    until: Annotated[str | None, Query(description="Only up to then: `5m`, or a time (RFC 3339)")] = None,
    grep: Annotated[
        str | None, Query(max_length=LONGEST_TEXT, description="Only lines with this text in them")
    ] = None,
    limit: Annotated[
        int | None,
        Query(
            ge=0, le=MOST_LINES, description="The latest so many lines. Default: all with `since`, else 1,000"
        ),
    ] = None,
    follow: Annotated[bool, Query(description="Go on with what is printed from now on")] = False,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Answer with lines of output: text, or JSON with `Accept: application/x-ndjson`. `follow=true` gives server-sent
    events, and goes on behind `Last-Event-ID`.

    Each line says its time, function, revision, invocation and instance. A key sees what it may `read` or `invoke`.
    """
    admission = CURRENT.get()
    if function is not None and not admission.may_name(function):
        raise Problem(
            "forbidden", f"the key may not see the output of {function!r}: this needs read, or invoke:NAME"
        )
    now = clock.wall()
    begin = None if since is None else moment_of(since, "since", now)
    end = None if until is None else moment_of(until, "until", now)
    wanted = OutputFilter(
        function=function,
        invocation=invocation,
        instance=instance,
        since=None if begin is None else journal_time(begin),
        until=None if end is None else journal_time(end),
        grep=grep,
        sees=admission.may_name,
    )
    if limit is None and begin is None:
        limit = DEFAULT_FOLLOWED_LINES if follow else DEFAULT_LINES
    seen = LinePlace.parse(last_event_id) if follow else None
    asked = _asked(wanted, begin, end, seen, limit, output.journal.written)
    if JSON_LINES in accept:
        kind, form = JSON_LINES, as_json_lines
    else:
        kind, form = (EVENTS, as_events) if follow else (TEXT, as_text)
    pieces = _pieces(output, asked, form, access if follow else None, admission)
    first = await anext(pieces)  # raises `Problem` if too many read; later the head of the answer is sent
    return StreamingResponse(_after(first, pieces), media_type=kind, headers=NOT_HELD_BACK)


def _asked(
    wanted: OutputFilter,
    begin: float | None,
    end: float | None,
    seen: LinePlace | None,
    limit: int | None,
    written: int,
) -> LogRequest:
    """Return where to read for a request. `written` is the number of the newest record."""
    return LogRequest(
        wanted,
        after=seen.number - 1 if seen else max(0, int((begin or 0.0) * MICROSECONDS) - 1),
        upto=written if end is None else min(written, int((end + LATE_SECONDS) * MICROSECONDS)),
        skip=seen,
        limit=None if seen else limit,
    )


async def _pieces(
    output: OutputReading, asked: LogRequest, form: Form, followed: Access | None, admission: Admission
) -> AsyncIterator[bytes]:
    """Yield the answer to a request. `followed` tells when a follower's key is no longer valid; None: no follower.

    The first piece comes at once. Raises `Problem` before it.
    """
    with bounded_reader(output):
        yield OPENING.get(form, b"") if followed else b""
        if asked.limit is not None:
            latest = await output.latest(asked.wanted, asked.limit, asked.after, asked.upto)
            async for piece in output.in_form(latest, form):
                yield piece
        else:
            unseen = partial(_unseen, form, asked.skip)
            async for piece in output.onward(asked.wanted, asked.after, asked.upto, unseen):
                yield piece
        if followed is None:
            return
        async for piece in output.follow(asked.wanted, asked.upto, form):
            if not followed.still_admits(admission):
                return
            yield piece or SIGN_OF_LIFE[form]


async def _after(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        if piece:
            yield piece


def _unseen(form: Form, seen: LinePlace | None, lines: list[OutputLine]) -> bytes:
    """Return the lines behind a place, in a form."""
    if seen is not None:
        lines = [line for line in lines if (line.number, line.place) > seen or not line.number]
    return form(lines)
