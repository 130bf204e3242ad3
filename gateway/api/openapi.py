"""Problems in the OpenAPI document: an example of each, and the responses that routes share."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from gateway.http.problems import TYPES, Problem

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
    "connection-lost": "the connection to the instance over the engine broke: the engine closed the connection",
    "not-ready": "no instance of hello was ready within 10 s (queue_timeout): its handler is still being imported "
    "after 9.8 s. The start goes on; call again, or raise queue_timeout",
    "engine-down": "the container engine does not answer; no instance of hello can be started",
    "store-failed": "the store of accepted calls has failed: database or disk is full",
    "draining": "the gateway is shutting down",
    "not-kept": "the answer was not kept: the store holds 1073741824 of its 1073741824 bytes, and too little of it "
    "has ended and can be forgotten; wait until calls have ended, or raise HEARTH_ASYNC_SIZE",
    "timeout": "hello ran past its timeout of 30 s",
}
"""Examples of `detail`, one for each slug."""

RETRY_AFTER = {
    "description": "Seconds after which a new attempt makes sense",
    "schema": {"type": "integer", "minimum": 1},
}
WWW_AUTHENTICATE = {
    "description": "How to send a key, and what was wrong with the one that was sent (RFC 6750)",
    "schema": {"type": "string", "example": 'Bearer realm="hearth"'},
}
ALLOW = {"description": "The methods that are taken", "schema": {"type": "string", "example": "POST"}}
PROBLEM_TYPE = "application/problem+json"
RESPONSES = "#/components/responses/"
PROBLEM = {"$ref": "#/components/schemas/Problem"}


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
            PROBLEM_TYPE: {
                "schema": PROBLEM,
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


def share_problems(shown: dict[str, Any]) -> None:
    """Replace the problems in all operations by references to one response for each status."""
    met: dict[int, set[str]] = defaultdict(set)
    for methods in shown["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                slugs = response.get("content", {}).get(PROBLEM_TYPE, {}).get("examples", ())
                if slugs:
                    met[int(status)].update(slugs)
                    operation["responses"][status] = {"$ref": f"{RESPONSES}Problem{status}"}
    shared = shown["components"].setdefault("responses", {})
    for status, slugs in sorted(met.items()):
        shared[f"Problem{status}"] = problem_response(status, [slug for slug in TYPES if slug in slugs], None)


def problem_range(slugs: Iterable[str], headers: dict[str, Any]) -> dict[str, Any]:
    """Return the response of a call with any of these problems, whatever their statuses."""
    responses = [
        problem_response(status, [slug], EXAMPLE_ID) for slug in slugs for status in (TYPES[slug][0],)
    ]
    examples = {slug: example for each in responses for slug, example in examples_of(each).items()}
    named = ", ".join(f"{TYPES[slug][0]} `{slug}`" for slug in examples)
    content = {"schema": PROBLEM, "examples": examples}
    own = {name: header for each in responses for name, header in each.get("headers", {}).items()}
    return {
        "description": f"A problem: {named}. Or the function's own answer",
        "headers": {**headers, **own},
        "content": {PROBLEM_TYPE: content},
    }


def examples_of(response: dict[str, Any]) -> dict[str, Any]:
    """Return the examples of a response with problems, by slug."""
    found: dict[str, Any] = response["content"][PROBLEM_TYPE]["examples"]
    return found
