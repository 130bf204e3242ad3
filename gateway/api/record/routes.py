"""The routes of the record of calls: the latest calls, one of them, and a stream of those that end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from operator import attrgetter
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from gateway.access.access import CURRENT, Admission
from gateway.api.dependencies import AllParts, ClockPart, RecentCallsPart
from gateway.api.openapi import problem_responses
from gateway.api.parts import ApiParts
from gateway.api.record.views import CallsView, CallTimesView, CallView, CallViews, times_view, total_of
from gateway.api.short_ids import short_id
from gateway.api.views import (
    EVENTS,
    EVENTS_OPENING,
    EVENTS_SIGN_OF_LIFE,
    NOT_HELD_BACK,
    duration_of,
    moment_of,
)
from gateway.http.pieces import Turn, json_response, mapping_of, page_response, unhurried
from gateway.http.problems import Problem
from gateway.invoke.recent_calls import Follower, RecentCalls, SeenCall

LOOK_SECONDS = 0.2
"""Time between two looks at the record for a follower: a call that ends tells nobody, as that would cost each."""
MOST_AT_ONCE = 100
"""Calls that a follower is told of after one look, the failed ones first: nobody reads more, and each takes 50 µs."""
MOST_FOLLOWERS = 32
"""Followers of one gateway at once."""
LOOKS_UNTIL_SIGN = 75
"""Looks without a call after which a follower gets a sign of life, so that proxies keep its connection."""

router = APIRouter(tags=["calls"])


MOST_LIKE_IT = 64
"""Calls that are looked for of which the id begins alike: to know that there are several."""


async def ids_of_record(parts: ApiParts, prefix: str) -> list[str]:
    """Return ids of calls in the record that the caller may see."""
    sees = cache(CURRENT.get().may_name)
    found = (call.facts for call in parts.outcomes.recent.calls(prefix))
    return list(islice((facts.id for facts in found if sees(facts.function)), MOST_LIKE_IT))


CallId = Annotated[str, short_id("`X-Invocation-Id` of an answer", ids_of_record)]


@dataclass(frozen=True)
class CallFilter:
    """The calls that a request asks for, of those that its caller may see."""

    admission: Admission
    sees: Callable[[str], bool]
    """Its `may_name`, which remembers its answers."""
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
        **problem_responses("invalid-input", "busy"),
        200: {"content": {EVENTS: {"schema": {}}}},
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
        admission=admission,
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
    matching.sort(key=attrgetter("facts.arrived"), reverse=True)
    latest = matching[:limit]
    if follow:
        if record.followers >= MOST_FOLLOWERS:
            raise Problem("busy", "too many follow the calls already; try again later", retry_after=5.0)
        ended = [call for call in reversed(latest) if not call.running]
        return StreamingResponse(
            _events(parts, follower, ended, wanted), media_type=EVENTS, headers=NOT_HELD_BACK
        )
    return await page_response("calls", latest, CallViews(admission, record.wall_times, now).view)


async def _events(
    parts: ApiParts, follower: Follower, first: list[SeenCall], wanted: CallFilter
) -> AsyncIterator[bytes]:
    """Yield an event for each of the first calls, and then for each wanted call that ends."""
    record, clock = parts.outcomes.recent, parts.clock

    def event(call: SeenCall) -> bytes:
        shown = CallViews(wanted.admission, record.wall_times, clock.now()).view(call)
        return b"event: call\ndata: %b\n\n" % shown.model_dump_json().encode()

    with follower:
        yield EVENTS_OPENING
        async for call in unhurried(first):
            yield event(call)
        looks, known = 0, {(call.facts.id, call.facts.arrived) for call in first}
        while not parts.dispatcher.draining:
            await clock.sleep(LOOK_SECONDS)
            if not parts.access.still_admits(wanted.admission):
                return  # the key was revoked or has expired
            wanted = replace(wanted, sees=cache(wanted.admission.may_name))  # its scopes may have changed
            now = clock.now()
            ended = [
                call
                for call in follower.take()
                if wanted.matches(call, record, now) and (call.facts.id, call.facts.arrived) not in known
            ]
            known = set()  # only what ended while the first ones were looked for is told already
            told = fewer(ended, MOST_AT_ONCE)
            async for call in unhurried(told):
                yield event(call)
            if len(told) < len(ended):
                yield b'event: dropped\ndata: {"dropped":%d}\n\n' % (len(ended) - len(told))
            looks = 0 if ended else looks + 1
            if looks == LOOKS_UNTIL_SIGN:
                looks = 0
                yield EVENTS_SIGN_OF_LIFE


def fewer(calls: list[SeenCall], most: int) -> list[SeenCall]:
    """Return the calls, or of too many those that failed and the latest others, as far as they are few enough."""
    if len(calls) <= most:
        return calls
    failed = [call for call in calls if call.failure is not None][-most:]
    others = [call for call in calls if call.failure is None]
    kept = failed + others[len(others) - (most - len(failed)) :]
    return sorted(kept, key=lambda call: call.facts.arrived)


@router.get(
    "/calls/times",
    summary="Sum up the times of the latest calls",
    response_model=dict[str, CallTimesView],
    responses=problem_responses("invalid-input"),
)
async def sum_up_times(
    record: RecentCallsPart,
    clock: ClockPart,
    since: Annotated[
        str, Query(description="Only calls that arrived from then on: `10s`, or a time (RFC 3339)")
    ] = "10s",
) -> Response:
    """Tell for each function how long its latest calls took. Functions without a call are left out."""
    sees = cache(CURRENT.get().may_name)
    now, begin = clock.now(), moment_of(since, "since", clock.wall())
    took: dict[str, list[float]] = {}
    turn = Turn()
    for call in record.calls():
        name = call.facts.function
        if name and not call.running and record.wall_times.wall(call.facts.arrived) >= begin and sees(name):
            took.setdefault(name, []).append(total_of(call, now))
        await turn.rest()
    return json_response(await mapping_of(took.items(), times_view))


@router.get("/calls/{id}", summary="Show a call", responses=problem_responses("not-found", "ambiguous-id"))
async def show_call(id: CallId, record: RecentCallsPart) -> CallView:
    """Show one call: of an accepted one its latest run here."""
    admission, call = CURRENT.get(), record.find(id)
    if call is None or not admission.may_name(call.facts.function):
        raise Problem("not-found", f"no call {id!r} is remembered; GET /calls lists the latest")
    return CallViews(admission, record.wall_times, record.clock.now()).view(call)
