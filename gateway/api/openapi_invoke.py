"""Calls of functions in the OpenAPI document: of any function, and of each that describes its input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.api.openapi import EXAMPLE_ID, RESPONSES, problem_range
from gateway.calls import idempotency
from gateway.http.problems import TYPES
from scheduler.definitions.json_schema import JsonSchema, map_subschemas

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
        "description": "`respond-async`: keep the call, answer 202, run it later. With `wait=5`: answer like a "
        "direct call if it ends within 5 s",
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
CALL_REFUSED, CALL_FAILED = "CallRefused", "CallFailed"
"""Names of the shared responses: problems that the caller, and that the function or the platform, has to act on."""
PROBLEMS = {
    "4XX": {"$ref": RESPONSES + CALL_REFUSED},
    "5XX": {"$ref": RESPONSES + CALL_FAILED},
}
MOST_OWN_OPERATIONS = 100
"""Functions that have an operation of their own. A page with more is slow to open."""
MOST_NAMED = 10
"""Functions out of service that a description names."""
ALL_FUNCTIONS, SERVERS, ALL_BODIES = "hearth:functions", "hearth:servers", "hearth:bodies"
"""Stand in the document without functions for what depends on them: the names of all, the names of those that serve
HTTP, and the bodies of calls."""
EXAMPLE_INPUT = {"name": "Ada"}
"""Input that is offered as long as no function has an example."""


class Shown(NamedTuple):
    """One function, as the document shows it."""

    name: str
    kind: str
    state: str
    schema: str = ""
    """Its schema as JSON, or empty if it has none."""

    @property
    def described(self) -> dict[str, Any]:
        """Return its schema, with the keys that it has."""
        found: dict[str, Any] = json.loads(self.schema) if self.schema else {}
        return found


def invoke_operation() -> dict[str, Any]:
    """Return the operation POST /invoke/{function}."""
    return {
        "tags": ["invoke"],
        "operationId": "invoke",
        "summary": "Call a function",
        "description": "Body and headers go to the function. Its status, headers and body come back.",
        "parameters": [ALL_FUNCTIONS, *ASYNC_PARAMETERS],
        "requestBody": ALL_BODIES,
        "responses": {**answers(), **PROBLEMS},
    }


def sub_path_operation(method: str) -> dict[str, Any]:
    """Return the operation of one method of /invoke/{function}/{path}."""
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
        "responses": {**answers(), **PROBLEMS},
    }
    return shown | ({"requestBody": request_body([])} if method in WITH_BODY else {})


def function_operation(function: Shown, security: list[Any]) -> dict[str, Any]:
    """Return the operation that calls one function, with the schemas and the example that it declares."""
    described = function.described
    schema = described.get("input")
    own = schema if isinstance(schema, dict) else {}
    content: dict[str, Any] = {"schema": {} if schema is None else reference(function.name, "input")}
    if "example" in described:
        content["example"] = described["example"]
    output = {} if described.get("output") is None else reference(function.name, "output")
    checked = (
        "Input that does not fit the schema gets a 422 `input-mismatch`. " if described.get("check") else ""
    )
    explained = f"{own['description']}\n\n" if isinstance(own.get("description"), str) else ""
    return {
        "tags": ["invoke"],
        "operationId": f"call_{function.name}",
        "summary": own["title"] if isinstance(own.get("title"), str) else f"Call {function.name}",
        "description": f"{explained}{checked}A {function.kind}, {function.state}. Scope: `invoke:{function.name}`",
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "200": {
                "description": "The function's own answer",
                "headers": {"X-Invocation-Id": INVOCATION_ID, **START_HEADERS},
                "content": {"application/json" if output else "*/*": {"schema": output}},
            },
            **PROBLEMS,
        },
        "security": security,
    }


def function_schemas(function: Shown) -> dict[str, JsonSchema]:
    """Return the schemas of a function by their names in the document. Their references lead to these names."""
    found: dict[str, JsonSchema] = {}
    for part in ("input", "output"):
        schema = function.described.get(part)
        if schema is None:
            continue
        place = reference(function.name, part)["$ref"]

        def moved(one: dict[str, Any], place: str = place) -> dict[str, Any]:
            target = one.get("$ref")
            if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
                return one
            return {**one, "$ref": place + target.removeprefix("#")}

        found[f"{function.name}.{part}"] = map_subschemas(schema, moved)
    return found


def reference(function: str, part: str) -> dict[str, str]:
    """Return a reference to a schema of a function."""
    return {"$ref": f"#/components/schemas/{function}.{part}"}


def function_parameter(declared: Sequence[Shown]) -> dict[str, Any]:
    """Return the parameter {function}: a choice of these, or any name where there is none."""
    schema: dict[str, Any] = {"type": "string"}
    description = "Name of the function"
    if declared:
        schema["enum"] = [shown.name for shown in declared]
        schema["default"] = first_choice(declared).name
        missing = [f"`{shown.name}` ({shown.state})" for shown in declared if shown.state != "ready"]
        if missing:
            more = ", …" if len(missing) > MOST_NAMED else ""
            description += f". Not in service: {', '.join(missing[:MOST_NAMED])}{more}"
    return {
        "name": "function",
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
    }


def first_choice(declared: Sequence[Shown]) -> Shown:
    """Return the function that the page offers first: one in service that has an example, if there is one."""
    return min(declared, key=lambda shown: (shown.state != "ready", "example" not in shown.described))


def request_body(declared: Sequence[Shown]) -> dict[str, Any]:
    """Return the description of any body, with the functions' examples. JSON is offered first."""
    first = first_choice(declared).name if declared else ""
    examples = {
        shown.name: {"summary": f"for {shown.name}", "value": shown.described["example"]}
        for shown in sorted(declared, key=lambda shown: shown.name != first)[:MOST_OWN_OPERATIONS]
        if "example" in shown.described
    }
    return {
        "description": "Goes to the function as it is. Its `max_body` is the limit, 6 MiB unless set",
        "content": {
            "application/json": {
                "schema": {},
                **({"examples": examples} if examples else {"example": EXAMPLE_INPUT}),
            },
            "text/plain": {"schema": {"type": "string"}, "example": "three words here"},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }


def answers() -> dict[str, Any]:
    """Return the answers of /invoke that are no problems."""
    return {
        "200": {
            "description": "The function's own answer. Its status may be any other too",
            "headers": {"X-Invocation-Id": INVOCATION_ID, **START_HEADERS},
            "content": {"*/*": {"schema": {}}},
        },
        "202": {
            "description": "The call is on disk and will be run (`Prefer: respond-async`)",
            "headers": {"X-Invocation-Id": INVOCATION_ID, **ACCEPTED_HEADERS},
        },
    }


def call_responses() -> dict[str, Any]:
    """Return the responses that all calls share."""
    headers = {"X-Invocation-Id": INVOCATION_ID, **START_HEADERS}
    slugs = [slug for slug in TYPES if slug not in NOT_FROM_INVOKE]
    return {
        CALL_REFUSED: problem_range([slug for slug in slugs if TYPES[slug][0] < 500], headers),
        CALL_FAILED: problem_range([slug for slug in slugs if TYPES[slug][0] >= 500], headers),
    }
