"""Conversations of a client with a gateway: accepted calls, runs, jobs and events. No I/O."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hearth.errors import CallEnded, Conflict, NotFinished, NotFound
from hearth.response import Response
from hearth.values import JSON_LINES
from hearth.wire import (
    API_TIMEOUT_SECONDS,
    ApiRequest,
    Call,
    Conversation,
    Pause,
    ask,
    document,
    exchange,
    get,
    part,
    start,
    with_query,
)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 1.0
"""Between looks at work that has not ended: each pause is half as long again as the one before."""
TASKS_A_PAGE = 500
UNFINISHED = frozenset({"queued", "held", "running", "cancelling"})
LOOKAHEAD = 4
"""Items that `map` takes ahead of the one whose result is due, as a multiple of `concurrency`."""
SOURCE = "/hearth-client"
"""Source of an event, if none is given."""


def call(wanted: Call) -> Conversation[Response]:
    """Call a function and return its answer, whatever its status. Raises the `HearthError` of a problem."""
    response = yield from exchange(wanted.request())
    response.raise_for_problem()
    return response


def submit(wanted: Call, key: str | None) -> Conversation[str]:
    """Have a call accepted, and return its id."""
    request = wanted.request()
    headers = {**request.headers, "prefer": "respond-async"}
    record = yield from start(request.path, request.body, headers, key)
    return str(record["id"])


def ended(path: str, timeout: float | None) -> Conversation[dict[str, Any]]:
    """Wait until work has ended, and return its record. Raises `NotFinished` after `timeout` seconds."""
    until = None if timeout is None else time.monotonic() + timeout
    pause = FIRST_PAUSE_SECONDS
    while True:
        record: dict[str, Any] = yield from get(path)
        if record["status"] not in UNFINISHED:
            return record
        left = pause if until is None else until - time.monotonic()
        if left <= 0:
            raise NotFinished(f"{path} is {record['status']} after {timeout:g} s; it goes on")
        yield Pause(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def answer_of(invocation: str, timeout: float | None) -> Conversation[Response]:
    """Wait for an accepted call, and return its answer. Raises `NotFinished`, `CallEnded`, and the call's problem."""
    path = call_path(invocation)
    record = yield from ended(path, timeout)
    response = yield from exchange(ApiRequest("GET", f"{path}/result", repeatable=True))
    if "x-invocation-id" not in response.headers and response.status == 404:
        raise CallEnded(f"call {invocation} is {record['status']} and has no answer: {record.get('detail')}")
    response.raise_for_problem()
    return response


def output_of(run: str, timeout: float | None) -> Conversation[Any]:
    """Wait for a run of a workflow, and return its output. Raises `NotFinished` and `CallEnded`."""
    record = yield from ended(f"/runs/{part(run)}", timeout)
    if record["status"] != "succeeded":
        raise CallEnded(f"run {run} is {record['status']}: {record.get('detail') or record.get('error')}")
    return (yield from get(f"/runs/{part(run)}/output"))


def stop(request: ApiRequest) -> Conversation[bool]:
    """Cancel work. Return False if it had ended already."""
    try:
        yield from ask(request)
    except Conflict:
        return False
    return True


def again(path: str) -> Conversation[None]:
    """Have work that has ended done again. Raises `Conflict` if it has not ended."""
    yield from ask(ApiRequest("POST", path))


def output_lines(wanted: Mapping[str, Any], follow: bool) -> ApiRequest:
    """Return the request for lines of output. `follow` goes on with lines that are printed later."""
    given = {**wanted, **({"follow": "true"} if follow else {})}
    path = with_query("/logs", {name: value for name, value in given.items() if value is not None})
    return ApiRequest(
        "GET", path, headers={"accept": JSON_LINES}, timeout=None if follow else API_TIMEOUT_SECONDS
    )


def log_of(invocation: str) -> Conversation[str]:
    """Return what a call printed; an empty text if nothing is kept."""
    try:
        return str((yield from get(f"{call_path(invocation)}/logs")) or "")
    except NotFound:
        yield from get(call_path(invocation))  # raises `NotFound` if there is no such call either
        return ""


def start_run(workflow: str, data: Any, key: str | None) -> Conversation[str]:
    """Start a run of a workflow, and return its id."""
    request = Call(workflow, data).request()
    record = yield from start(f"/workflows/{part(workflow)}", request.body, request.headers, key)
    return str(record["id"])


def start_job(definition: Mapping[str, Any], key: str | None) -> Conversation[str]:
    """Start a job, and return its id."""
    body, headers = document(definition)
    record = yield from start("/jobs", body, headers, key)
    return str(record["id"])


def all_tasks(job: str, status: str | None) -> Conversation[list[dict[str, Any]]]:
    """Return the tasks of a job, in the order of their indices."""
    tasks: list[dict[str, Any]] = []
    cursor = None
    while True:
        parameters = {"status": status, "cursor": cursor, "limit": TASKS_A_PAGE}
        page = yield from get(f"/jobs/{part(job)}/tasks", parameters)
        tasks += page["tasks"]
        if (cursor := page.get("cursor")) is None:
            return tasks


def publish(event: Mapping[str, Any]) -> Conversation[dict[str, Any]]:
    """Publish a CloudEvent. Its `source` and `id` make a repeated request start nothing twice."""
    body, _ = document(event)
    headers = {"content-type": "application/cloudevents+json"}
    answer: dict[str, Any] = yield from ask(ApiRequest("POST", "/events", body, headers, repeatable=True))
    return answer


def event_of(
    event: str | Mapping[str, Any], data: Any, source: str | None, subject: str | None
) -> dict[str, Any]:
    """Return a CloudEvent of a type with data, or a given event completed."""
    made: dict[str, Any] = {"specversion": "1.0", "id": secrets.token_hex(16), "source": source or SOURCE}
    if subject is not None:
        made["subject"] = subject
    if isinstance(data, (bytes, bytearray, memoryview)):
        made["data_base64"] = base64.b64encode(data).decode()
    elif data is not None:
        made["data"] = data
    return {**made, **({"type": event} if isinstance(event, str) else event)}


def job_definition(job: str | Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what starts a job: a declared one by its name, or the one that a mapping defines."""
    given = {
        name: list(value) if name == "inputs" else value
        for name, value in changes.items()
        if value is not None
    }
    return {**({"job": job} if isinstance(job, str) else job), **given}


def call_path(invocation: str) -> str:
    """Return the path of an accepted call."""
    return f"/invocations/{part(invocation)}"


def calls_of(function: str, items: Iterable[Any], headers: Mapping[str, str] | None) -> Iterator[Call]:
    """Yield one call for each item."""
    return (Call(function, item, headers or {}) for item in items)
