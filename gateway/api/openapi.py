"""The OpenAPI document: FastAPI's, and /invoke, which is served ahead of it, with the functions' names."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.access.scopes import right_for
from gateway.api.views import ProblemView
from gateway.calls import idempotency
from gateway.http.problems import TYPES, Problem

SUMMARY = "Runs functions in containers and keeps them warm."
DESCRIPTION = """\
Call a function with `POST /invoke/{function}`: open it below, press **Try it out**, choose a function, press
**Execute**. Every answer says in `X-Hearth-Start` whether it came from a `warm`, a `prewarmed` or a `cold` start.

Errors are `application/problem+json` (RFC 9457). `type` names the kind of error, `detail` says what happened, and
`blame` says who has to act: the `caller`, the `function` or the `platform`. What is no HTTP, or has a head of over
64 KiB or one that does not come in time, gets a 400, 431 or 408 before any route sees it.

A gateway that has keys needs one: press **Authorize** and paste yours. On a loopback address the gateway answers
programs of this machine and its own pages. Pages of other sites get a 403.
"""
TAGS = [
    {"name": "invoke", "description": "Call functions"},
    {"name": "calls", "description": "The record of calls: what runs, what went well, and what failed"},
    {"name": "async", "description": "Calls that were accepted to be run later: `Prefer: respond-async`"},
    {"name": "workflows", "description": "Pipelines and DAGs of functions, and their runs"},
    {"name": "jobs", "description": "Batch runs: an image or a function run many times"},
    {
        "name": "triggers",
        "description": "What starts functions beside a call: schedules, events, webhooks, queues",
    },
    {"name": "functions", "description": "What is deployed, and what is wrong with what is not in service"},
    {"name": "pool", "description": "The instances that run functions, and the ones kept ready"},
    {"name": "logs", "description": "What functions and instances printed"},
    {"name": "health", "description": "For probes, load balancers and Prometheus"},
]

METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
WITH_BODY = frozenset({"post", "put", "patch"})

BEFORE_ANY_ROUTE = frozenset({"head-timeout", "head-too-large"})
NOT_FROM_INVOKE = BEFORE_ANY_ROUTE | {
    "not-found",
    "ambiguous-id",
    "conflict",
    "invalid-input",
    "read-timeout",
}
"""A read-timeout ends an answer whose head was sent already: the connection is cut, and it is only counted."""
NOT_FROM_SUB_PATHS = frozenset({"handler-raised", "import-failed", "command-failed"})
"""Only handlers and commands fail so, and they have no sub-paths."""
ONLY_FROM_SUB_PATHS = frozenset({"method-not-allowed"})
ONLY_WITH_BODY = frozenset({"body-timeout", "body-too-large"})

KEY = "A key that `hearth keys create` has made, `hth_…`. Not needed while the gateway has none"

EXAMPLE_ID = "6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4"
EXAMPLE_DETAILS = {
    "bad-request": "JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    "unauthorized": "a key is needed: send Authorization: Bearer hth_..., or X-Hearth-Key: hth_...",
    "forbidden": "a page of https://example.org may not call this gateway",
    "not-found": "there is no instance '4f2a'; GET /pool/instances lists them",
    "no-such-function": "there is no function 'helo'; GET /functions lists them",
    "method-not-allowed": "hello takes no sub-path: POST /invoke/hello",
    "ambiguous-id": f"several ids begin with '6f1d'; give more of it: {EXAMPLE_ID}, 6f1d80b2…",
    "conflict": "the invocation is running; it has no result yet",
    "head-timeout": "the request's head did not come within 20 s",
    "body-timeout": "the rest of the request's body did not come in time",
    "read-timeout": "the answer was not read in time",
    "body-too-large": "the body is over 6291456 bytes (max_body of the function)",
    "invalid-input": "query.limit: Input should be a valid integer",
    "input-mismatch": 'the input of hello does not fit its schema at /name: 3 is not of type "string"',
    "key-reused": "this Idempotency-Key came with another request within 24 hours; use a new key",
    "queue-full": "1000 calls of hello are waiting already (queue_size); try again later",
    "quota-exceeded": "the key shop has used up its rate, 100/s; try again later",
    "head-too-large": "the request's head is over 65536 bytes",
    "handler-raised": "KeyError: 'name'",
    "import-failed": "ModuleNotFoundError: No module named 'numpy'",
    "internal-error": "the gateway has a fault; its log has the traceback",
    "instance-died": "the instance died: its memory limit was reached",
    "contract-broken": "the answer is over 67108864 bytes (max_response)",
    "command-failed": "the command ended with exit status 1",
    "function-failed": "api is not in service: the engine has no image hearth-example/api:latest; run `hearth setup`",
    "busy": "the memory for requests is used up (HEARTH_BODY_MEMORY); send the request again later",
    "no-capacity": "no instance of hello became free within 10 s (queue_timeout)",
    "engine-down": "the container engine does not answer; no instance of hello can be started",
    "store-failed": "the store of accepted calls has failed: database or disk is full",
    "draining": "the gateway is shutting down",
    "not-kept": "the answer was not kept: the store holds 1073741824 of its 1073741824 bytes, and too little of it "
    "has ended and can be forgotten; wait until calls have ended, or raise HEARTH_ASYNC_SIZE",
    "timeout": "hello ran past its timeout of 30 s",
}
"""Examples of `detail`, one for each slug."""

INVOCATION_ID = {
    "description": "Id of the invocation; `GET /invocations/{id}/logs` shows what it printed",
    "schema": {"type": "string", "example": EXAMPLE_ID},
}
START_HEADERS = {
    "X-Hearth-Start": {
        "description": "How the instance came to be: `warm` had served before, `prewarmed` was started ahead, "
        "`cold` was created for this call. Absent if the call ended before an instance was given to it",
        "schema": {"type": "string", "enum": ["warm", "prewarmed", "cold"]},
    },
    "Server-Timing": {
        "description": "Milliseconds of waiting for an instance, of starting it, and of executing until the "
        "answer's head. Absent together with `X-Hearth-Start`",
        "schema": {"type": "string", "example": "queue;dur=0.03, start;dur=0.00, exec;dur=0.41"},
    },
}
ACCEPTED_HEADERS = {
    "Location": {
        "description": "Where the accepted call is: `/invocations/{id}`",
        "schema": {"type": "string", "example": f"/invocations/{EXAMPLE_ID}"},
    },
    "Preference-Applied": {
        "description": "What was done of the Prefer header (RFC 7240)",
        "schema": {"type": "string", "example": "respond-async, wait=5"},
    },
}
ASYNC_PARAMETERS = [
    {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async`: keep the call on disk, answer 202, run it later. With `wait=5` too, answer "
        "like a direct call if it ends within 5 seconds",
        "schema": {"type": "string"},  # no example: the page would send it with each call
    },
    idempotency.parameter("With `respond-async`: the same key and request give the same call"),
    {
        "name": "X-Hearth-Callback",
        "in": "header",
        "description": "With `respond-async`: a URL that is told when the call has ended. Its host must be in "
        "`HEARTH_CALLBACK_ALLOW`",
        "schema": {"type": "string", "maxLength": 2000},
    },
]
RETRY_AFTER = {
    "description": "Seconds after which a new attempt makes sense",
    "schema": {"type": "integer", "minimum": 1},
}
WWW_AUTHENTICATE = {
    "description": "How to send a key, and what was wrong with the one that was sent (RFC 6750)",
    "schema": {"type": "string", "example": 'Bearer realm="hearth"'},
}
ALLOW = {"description": "The methods that are taken", "schema": {"type": "string", "example": "POST"}}


ALL_FUNCTIONS = "hearth:all-functions"
SERVERS = "hearth:servers"
"""Stand in the document where a parameter with functions' names comes: all of them, and those that serve HTTP."""


class Shown(NamedTuple):
    """One function, as the document shows it."""

    name: str
    kind: str
    state: str


def static_document(app: FastAPI, needs_key: bool) -> dict[str, Any]:
    """Return the document without functions, which takes a tenth of a second. `needs_key`: the gateway has keys."""
    shown = get_openapi(
        title=app.title,
        version=app.version,
        summary=SUMMARY,
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
        servers=[{"url": "/", "description": "This gateway"}],
    )
    for path in shown["paths"].values():
        for route in path.values():
            set_invalid_input(route)
    schemas = shown.setdefault("components", {}).setdefault("schemas", {})
    for default in ("HTTPValidationError", "ValidationError"):
        schemas.pop(default, None)
    schemas["Problem"] = ProblemView.model_json_schema() | {"title": "Problem"}
    shown["paths"] = {
        "/invoke/{function}": {"post": invoke_operation()},
        "/invoke/{function}/{path}": {m: sub_path_operation(m) for m in METHODS},
        **shown["paths"],
    }
    set_security(shown, needs_key)
    return shown


def set_security(shown: dict[str, Any], needed: bool) -> None:
    """Say of each route which scope its key must have, and what is answered to others. Not `needed`: it may lack."""
    shown["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": KEY}}
    for path, methods in shown["paths"].items():
        for method, operation in methods.items():
            scope = "invoke" if path.startswith("/invoke/") else right_for(method.upper(), path)
            if scope is None:
                operation["security"] = []
                continue
            operation["security"] = [{"key": [scope]}] if needed else [{}, {"key": [scope]}]
            says = f"Scope: `{scope}{':NAME' if scope == 'invoke' else ''}`"
            operation["description"] = f"{operation.get('description', '')}\n\n{says}".strip()
            for status, response in problem_responses("unauthorized", "quota-exceeded").items():
                operation["responses"].setdefault(str(status), response)


def set_invalid_input(route: dict[str, Any]) -> None:
    """Say of a 422 what it is with us, and only where it can be: plain text is always right."""
    if "422" not in route["responses"]:
        return
    del route["responses"]["422"]
    plain = ({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]})
    schemas = [
        {key: value for key, value in parameter["schema"].items() if key in ("type", "anyOf", "enum")}
        for parameter in route.get("parameters", [])
    ]
    if "requestBody" in route or any(schema not in plain for schema in schemas):
        route["responses"]["422"] = problem_responses("invalid-input")[422]


def invoke_operation() -> dict[str, Any]:
    """Return the operation POST /invoke/{function}."""
    return {
        "tags": ["invoke"],
        "operationId": "invoke",
        "summary": "Call a function",
        "description": "Body and headers go to the function. Its status, headers and body come back.\n\n"
        "A **handler** is given a JSON body as an object. A **command** is given the body on its standard input. "
        "An **http** function is given the request with the path `/`, and takes any method here.",
        "parameters": [ALL_FUNCTIONS, *ASYNC_PARAMETERS],
        "requestBody": request_body(),
        "responses": invoke_responses(
            slug for slug in TYPES if slug not in NOT_FROM_INVOKE | ONLY_FROM_SUB_PATHS
        ),
    }


def sub_path_operation(method: str) -> dict[str, Any]:
    """Return the operation of one method of /invoke/{function}/{path}."""
    unlikely = NOT_FROM_INVOKE | NOT_FROM_SUB_PATHS
    if method not in WITH_BODY:
        unlikely |= ONLY_WITH_BODY
    path = {
        "name": "path",
        "in": "path",
        "required": True,
        "description": "The path that the function's server sees, without its first `/`. It may hold further `/`, "
        "which this page sends as `%2F`",
        "schema": {"type": "string"},
    }
    shown = {
        "tags": ["invoke"],
        "operationId": f"invoke_{method}",
        "summary": f"{method.upper()} a path of a function that serves HTTP",
        "description": "For **http** functions, which take any method and any path. Others answer 405.",
        "parameters": [SERVERS, path, *ASYNC_PARAMETERS],
        "responses": invoke_responses(slug for slug in TYPES if slug not in unlikely),
    }
    return shown | ({"requestBody": request_body()} if method in WITH_BODY else {})


def function_parameter(declared: Sequence[Shown]) -> dict[str, Any]:
    """Return the parameter {function}: a choice of these, or any name where there is none."""
    lines = ["Name of the function"]
    lines += [f"- `{shown.name}`: {shown.kind}, {shown.state}" for shown in declared]
    schema: dict[str, Any] = {"type": "string"}
    if declared:
        schema["enum"] = [shown.name for shown in declared]
    return {
        "name": "function",
        "in": "path",
        "required": True,
        "description": "\n".join(lines),
        "schema": schema,
    }


def request_body() -> dict[str, Any]:
    """Return the description of any body; JSON is offered first."""
    return {
        "description": "Goes to the function as it is. Its `max_body` is the limit, 6 MiB unless set",
        "content": {
            "application/json": {"schema": {}, "example": {"name": "Ada"}},
            "text/plain": {"schema": {"type": "string"}, "example": "three words here"},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }


def invoke_responses(slugs: Iterable[str]) -> dict[str, Any]:
    """Return every answer of /invoke: the function's own, and these problems."""
    responses: dict[str, Any] = {
        "200": {
            "description": "The function's own answer. Its status may be any other too",
            "headers": {"X-Invocation-Id": INVOCATION_ID, **START_HEADERS},
            "content": {"*/*": {"schema": {}}},
        },
        "202": {
            "description": "The call is on disk and will be run (`Prefer: respond-async`). A function's own answer "
            "may have this status too",
            "headers": {"X-Invocation-Id": INVOCATION_ID, **ACCEPTED_HEADERS},
            "content": {"*/*": {"schema": {}}},
        },
    }
    for status, shown in problem_responses(*slugs, invocation_id=EXAMPLE_ID).items():
        shown["headers"] = {"X-Invocation-Id": INVOCATION_ID, **START_HEADERS, **shown.get("headers", {})}
        responses[str(status)] = shown
    return responses


def problem_responses(*slugs: str, invocation_id: str | None = None) -> dict[int | str, dict[str, Any]]:
    """Return responses by status that say everything about these problems, each with an example.

    `invocation_id` is what the examples show as that; None leaves it out.
    """
    by_status: dict[int, list[str]] = defaultdict(list)
    for slug in slugs:
        by_status[TYPES[slug][0]].append(slug)
    return {
        status: problem_response(status, by_status[status], invocation_id) for status in sorted(by_status)
    }


def problem_response(status: int, slugs: list[str], invocation_id: str | None) -> dict[str, Any]:
    """Return the response with all problems of one status."""
    examples = {
        slug: {
            "summary": TYPES[slug][1],
            "value": json.loads(Problem(slug, EXAMPLE_DETAILS.get(slug, TYPES[slug][1])).body(invocation_id)),
        }
        for slug in slugs
    }
    response: dict[str, Any] = {
        "description": "; ".join(f"`{slug}`: {TYPES[slug][1]}" for slug in slugs),
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": examples,
            }
        },
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": RETRY_AFTER}
    elif status == 401:
        response["headers"] = {"WWW-Authenticate": WWW_AUTHENTICATE}
    elif status == 405:
        response["headers"] = {"Allow": ALLOW}
    return response
