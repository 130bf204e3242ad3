"""The routes of logs: what invocations and instances printed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from gateway.api.calls.routes import ids_of_calls
from gateway.api.dependencies import AllParts, CallsPart, LogsPart, OutputPart, RecentCallsPart
from gateway.api.functions.instances import InstanceId, find_instance
from gateway.api.functions.output_forms import bounded_reader
from gateway.api.openapi import problem_responses
from gateway.api.parts import ApiParts
from gateway.api.short_ids import short_id
from gateway.http.problems import Problem
from pool.engine.base import EngineError
from scheduler.calls.store import CallStore

INSTANCE_LOG_BYTES = 64 * 1024
"""Bound of an instance's log in an answer: the latest are what somebody looks for."""

NOT_FOUND = problem_responses("not-found", "ambiguous-id", "store-failed")

router = APIRouter(tags=["logs"], default_response_class=PlainTextResponse)


async def ids_of_invocations(parts: ApiParts, prefix: str) -> list[str]:
    """Return ids of invocations that are remembered or accepted, else of those whose output is on disk.

    A caller who may read one log may read all.
    """
    known = (*parts.logs.known, *parts.outcomes.recent.ids())
    found = [*(id for id in known if id.startswith(prefix)), *await ids_of_calls(parts, prefix)]
    if found:
        return found
    with bounded_reader(parts.output):
        return await parts.output.invocations(prefix)


InvocationId = Annotated[str, short_id("`X-Invocation-Id` of an answer", ids_of_invocations)]


@router.get("/pool/instances/{id}/logs", summary="Read an instance's log", responses=NOT_FOUND)
async def read_instance_log(id: InstanceId, parts: AllParts) -> Response:
    """Read output that belongs to no single invocation: at start, by subprocesses, of an HTTP server.

    The latest 64 KiB.
    """
    instance = find_instance(parts.pool, id)
    try:
        kept = await parts.launcher.logs(instance, INSTANCE_LOG_BYTES)
    except EngineError:
        kept = b""  # its container is going away; what we have read ourselves is still there
    return Response(kept + parts.pool.printed.of_instance(instance), media_type="text/plain; charset=utf-8")


@router.get("/invocations/{id}/logs", summary="Read an invocation's log", responses=NOT_FOUND)
async def read_invocation_log(
    id: InvocationId, logs: LogsPart, recent: RecentCallsPart, calls: CallsPart, output: OutputPart
) -> Response:
    """Read the output of one invocation, also after its instance is gone. Empty if it printed nothing.

    The latest 10,000 invocations are remembered, and the first 256 KiB of each (`HEARTH_LOG_LIMIT`). What an earlier
    one printed is read from the disk, for as long as it is kept there (`HEARTH_LOG_DISK`, `HEARTH_LOG_AGE`).
    """
    log = logs.read(id)
    if log is None:
        log = await kept_log(calls, id) if calls.exists else None
        if log is None and recent.knows(id):
            log = b""
        if not log:
            with bounded_reader(output):
                log = await output.of_invocation(id) or log
    if log is None:
        raise Problem(
            "not-found",
            f"no invocation {id!r} is remembered, and no output of it is kept; the latest 10,000 are remembered",
        )
    return Response(log, media_type="text/plain; charset=utf-8")


async def kept_log(calls: CallStore, id: str) -> bytes | None:
    """Return what an accepted call had printed when it was recorded last, or None if it was not accepted."""
    if await calls.show(id) is None:
        return None
    result = await calls.result(id)
    return result.log if result is not None else b""
