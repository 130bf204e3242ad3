"""The routes of the record of calls: the latest calls, one of them, and a stream of those that end."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from gateway.access.access import CURRENT
from gateway.api.dependencies import AllParts, RecentCallsPart
from gateway.api.openapi import problem_responses
from gateway.api.parts import ApiParts
from gateway.api.record.views import CallsView, CallView, CallViews, total_of
from gateway.api.short_ids import short_id
from gateway.http.pieces import Turn, page_response, unhurried
from gateway.http.problems import Problem
from gateway.invoke.recent_calls import Follower, RecentCalls, SeenCall
from scheduler.definitions.language.units import parse_duration

LOOK_SECONDS = 0.2
"""Time between two looks at the record for a follower: a call that ends tells nobody, as that would cost each."""
LOOKS_UNTIL_SIGN = 75
"""Looks without a call after which a follower gets a sign of life, so that proxies keep its connection."""
SIGN_OF_LIFE = b":\n\n"
EVENTS = "text/event-stream"
NO_STORE = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Fields that keep caches and proxies from holding events back."""

router = APIRouter(tags=["calls"])


async def ids_of_record(parts: ApiParts, prefix: str) -> list[str]:
    """Return ids of calls in the record that the caller may see."""
    sees = cache(CURRENT.get().may_name)
    found = (call.facts for call in parts.outcomes.recent.calls(prefix))
    return [facts.id for facts in found if sees(facts.function)]


CallId = Annotated[str, short_id("`X-Invocation-Id` of an answer", ids_of_record)]


@dataclass(frozen=True)
class CallFilter:
    """The calls that a request asks for, of those that its caller may see."""

    sees: Callable[[str], bool]
    function: str | None
    failed: bool
    slow: float
    """Seconds that a call took at least."""
    since: float
    """Unix time from which on it arrived."""

    def matches(self, call: SeenCall, record: RecentCalls, now: float) -> bool:
        """Return whether a call is among them."""
        facts = call.facts
        return (
            (self.function is None or facts.function == self.function)
            and (not self.failed or call.failure is not None)
            and (self.slow <= 0.0 or total_of(call, now) >= self.slow)
            and (self.since <= 0.0 or record.wall_times.wall(facts.arrived) >= self.since)
            and self.sees(facts.function)
        )


@router.get(
    "/calls",
    summary="List or follow the latest calls",
    response_model=CallsView,
    responses={
        **problem_responses("invalid-input"),
        200: {"content": {EVENTS: {"schema": {"type": "string"}}}},
    },
)
async def list_calls(
    parts: AllParts,
    record: RecentCallsPart,
    function: Annotated[str | None, Query(description="Only calls of this function")] = None,
    failed: Annotated[bool, Query(description="Only calls that failed")] = False,
    slow: Annotated[str | None, Query(description="Only calls that took this long or longer: `1s`")] = None,
    since: Annotated[
        str | None, Query(description="Only calls that arrived from then on: `10m`, or a time (RFC 3339)")
    ] = None,
    limit: Annotated[int, Query(ge=0, le=1000, description="The latest so many of them")] = 50,
    follow: Annotated[
        bool, Query(description="Go on with each call that ends, as server-sent events")
    ] = False,
) -> Response:
    """List the latest calls of every kind, newest first: those that run, 10,000 that went well and 2,000 that failed.

    `follow=true` gives an event `call` for each, oldest first, and then for each call when it ends. A key sees the
    calls of functions that it may invoke. With `read` it sees all.
    """
    admission, clock = CURRENT.get(), parts.clock
    wanted = CallFilter(
        sees=cache(admission.may_name),
        function=function,
        failed=failed,
        slow=0.0 if slow is None else duration_of(slow, "slow"),
        since=0.0 if since is None else moment_of(since, "since", clock.wall()),
    )
    follower = Follower(record)
    now = clock.now()
    matching, turn = [], Turn()
    for call in record.calls():
        if wanted.matches(call, record, now):
            matching.append(call)
        await turn.rest()
    latest = heapq.nlargest(limit, matching, key=lambda call: call.facts.arrived)
    if follow:
        ended = [call for call in reversed(latest) if not call.running]
        return StreamingResponse(_events(parts, follower, ended, wanted), media_type=EVENTS, headers=NO_STORE)
    return await page_response("calls", latest, CallViews(admission, record.wall_times, now).view)


async def _events(
    parts: ApiParts, follower: Follower, first: list[SeenCall], wanted: CallFilter
) -> AsyncIterator[bytes]:
    """Yield an event for each of the first calls, and then for each wanted call that ends."""
    record, clock, admission = parts.outcomes.recent, parts.clock, CURRENT.get()

    def event(call: SeenCall) -> bytes:
        shown = CallViews(admission, record.wall_times, clock.now()).view(call)
        return b"event: call\ndata: %b\n\n" % shown.model_dump_json().encode()

    yield b"retry: 1000\n\n"
    async for call in unhurried(first):
        yield event(call)
    looks = 0
    while not parts.dispatcher.draining:
        await clock.sleep(LOOK_SECONDS)
        looks += 1
        async for call in unhurried(follower.take()):
            if wanted.matches(call, record, clock.now()):
                looks = 0
                yield event(call)
        if looks == LOOKS_UNTIL_SIGN:
            looks = 0
            yield SIGN_OF_LIFE


@router.get("/calls/{id}", summary="Show a call", responses=problem_responses("not-found", "ambiguous-id"))
async def show_call(id: CallId, record: RecentCallsPart) -> CallView:
    """Show one call: of an accepted one its latest run here."""
    admission, call = CURRENT.get(), record.find(id)
    if call is None or not admission.may_name(call.facts.function):
        raise Problem("not-found", f"no call {id!r} is remembered; GET /calls lists the latest")
    return CallViews(admission, record.wall_times, record.clock.now()).view(call)


def duration_of(text: str, name: str) -> float:
    """Return the seconds of a duration in the query. Raises `Problem` 422 about the parameter `name`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Problem("invalid-input", f"query.{name}: {error}") from None


def moment_of(text: str, name: str, now: float) -> float:
    """Return the Unix time that a text names: a duration before `now`, or a time of RFC 3339 (UTC without a zone).

    Raises `Problem` 422 about the parameter `name`.
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Problem(
            "invalid-input",
            f"query.{name}: {text[:40]!r} is no time; write a duration like 10m, or a time like 2026-11-29T12:00:00Z",
        ) from None
