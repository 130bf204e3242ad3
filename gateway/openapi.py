"""The OpenAPI document: FastAPI's, and /invoke, which is served ahead of it, with the functions' names."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.problems import TYPES
from gateway.runtime import Runtime
from gateway.views import ProblemView

DESCRIPTION = """Runs functions in containers and keeps them warm.

Call a function with `POST /invoke/{function}`; every answer says in `X-Hearth-Start` whether it came from a warm,
a prewarmed or a cold start. Errors are `application/problem+json` and say in `blame` who has to act.
"""
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
INVOKE_STATUSES = (400, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504)


def document(app: FastAPI, runtime: Runtime) -> dict[str, Any]:
    """The document as of now; made afresh each time, since functions come and go."""
    shown = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    schemas = shown.setdefault("components", {}).setdefault("schemas", {})
    schemas.setdefault("ProblemView", ProblemView.model_json_schema())
    names = sorted(runtime.registry.declared)
    shown["paths"] = {
        "/invoke/{function}": {"post": operation("post", names, sub_path=False)},
        "/invoke/{function}/{path}": {method: operation(method, names, sub_path=True) for method in METHODS},
        **shown["paths"],
    }
    return shown


def operation(method: str, names: list[str], sub_path: bool) -> dict[str, Any]:
    """One operation of /invoke."""
    function: dict[str, Any] = {"type": "string"}
    if names:
        function["enum"] = names
    parameters = [{"name": "function", "in": "path", "required": True, "schema": function}]
    if sub_path:
        parameters.append({"name": "path", "in": "path", "required": True, "schema": {"type": "string"}})
    shown: dict[str, Any] = {
        "tags": ["invoke"],
        "operationId": f"invoke_{method}{'_path' if sub_path else ''}",
        "summary": "Call a path of a function that serves HTTP" if sub_path else "Call a function",
        "parameters": parameters,
        "responses": {"200": answer(), **{str(status): problem(status) for status in INVOKE_STATUSES}},
    }
    if method in ("post", "put", "patch"):
        shown["requestBody"] = {
            "description": "Goes to the function as it is",
            "content": {
                "application/json": {"schema": {}, "example": {"name": "Ada"}},
                "text/plain": {"schema": {"type": "string"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    return shown


def answer() -> dict[str, Any]:
    """The function's own answer; its status may be any."""
    kinds = {"type": "string", "enum": ["warm", "prewarmed", "cold"]}
    return {
        "description": "The function's own answer; its status, headers and body are the function's",
        "headers": {
            "X-Invocation-Id": {
                "schema": {"type": "string"},
                "description": "For GET /invocations/{id}/logs",
            },
            "X-Hearth-Start": {"schema": kinds},
            "Server-Timing": {"schema": {"type": "string"}, "description": "queue, start and exec, in ms"},
        },
        "content": {"*/*": {"schema": {}}},
    }


def problem(status: int) -> dict[str, Any]:
    """Every problem that has this status."""
    titles = [
        f"`{slug}`: {title} (blame: {blame})" for slug, (s, title, blame) in TYPES.items() if s == status
    ]
    return {
        "description": "; ".join(titles),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemView"}}},
    }
