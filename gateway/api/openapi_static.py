"""The OpenAPI document without functions: FastAPI's, and /invoke, which is served ahead of it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.access.scopes import right_for
from gateway.api.openapi import PROBLEM_TYPE, problem_responses, share_problems
from gateway.api.openapi_examples import add_examples
from gateway.api.openapi_invoke import METHODS, call_responses, invoke_operation, sub_path_operation
from gateway.api.views import ProblemView

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
OWN_PATHS, OWN_SCHEMAS = "hearth:paths", "hearth:schemas"
"""Keys in the place of the operations and the schemas of functions."""
KEY = "A key that `hearth keys create` has made, `hth_…`. Not needed while the gateway has none"


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
    share_problems(shown)
    shown["components"]["responses"] |= call_responses()
    add_examples(shown)
    shown["paths"] = {OWN_PATHS: 0, **shown["paths"]}
    schemas = shown["components"]["schemas"]
    shown["components"]["schemas"] = {OWN_SCHEMAS: 0, **schemas}
    return shown


def call_security(needed: bool) -> list[dict[str, list[str]]]:
    """Return the security of a call. Not `needed`: a key may be missing."""
    return [{"key": ["invoke"]}] if needed else [{}, {"key": ["invoke"]}]


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
            if path.startswith("/invoke/"):
                continue
            for status, response in problem_responses("unauthorized", "quota-exceeded").items():
                operation["responses"].setdefault(str(status), response)


def set_invalid_input(route: dict[str, Any]) -> None:
    """Replace FastAPI's default 422 by ours, and drop it where it cannot be: plain text is always right."""
    if "422" not in route["responses"] or PROBLEM_TYPE in route["responses"]["422"].get("content", {}):
        return
    del route["responses"]["422"]
    plain = ({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]})
    schemas = [
        {key: value for key, value in parameter["schema"].items() if key in ("type", "anyOf", "enum")}
        for parameter in route.get("parameters", [])
    ]
    if "requestBody" in route or any(schema not in plain for schema in schemas):
        route["responses"]["422"] = problem_responses("invalid-input")[422]
