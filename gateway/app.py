"""The HTTP edge: the outermost ASGI app, and the FastAPI app behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from gateway.body import Receive, Send
from gateway.guard import Guard
from gateway.invoke import PREFIX, InvokeEndpoint
from gateway.openapi import document
from gateway.problems import Problem
from gateway.routes import build_routes
from gateway.runtime import Runtime


class Edge:
    """Every request comes here: /invoke/ goes straight on, everything else to FastAPI."""

    def __init__(self, runtime: Runtime, guard: Guard) -> None:
        self._guard = guard
        self._invoke = InvokeEndpoint(
            runtime.dispatcher,
            runtime.registry,
            runtime.outcomes,
            runtime.logs,
            runtime.clock,
            runtime.launcher.obituary,
        )
        self._app = build_app(runtime)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return  # no websockets, no lifespan: the server refuses or goes on
        fault = self._guard.fault(scope)
        if fault is not None:
            body = fault.body()
            headers = fault.response_headers(body)
            await send({"type": "http.response.start", "status": fault.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        elif scope["raw_path"].startswith(PREFIX):
            await self._invoke(scope, receive, send)
        else:
            await self._app(scope, receive, send)  # type: ignore[arg-type]


def build_app(runtime: Runtime) -> FastAPI:
    """The FastAPI app: every route but /invoke, the OpenAPI document and its page."""
    app = FastAPIOffline(redoc_url=None, title="Hearth", version="0.1.0")
    app.include_router(build_routes(runtime))
    app.openapi = lambda: document(app, runtime)  # type: ignore[method-assign]

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return respond(Problem("invalid-input", faults))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            return respond(
                Problem(
                    "method-not-allowed",
                    f"{request.url.path} does not take {request.method}",
                    headers=((b"allow", allow.encode()),),
                )
            )
        return respond(Problem("not-found", f"there is nothing at {request.url.path}; see /docs"))

    return app


def respond(problem: Problem) -> Response:
    """A problem as a response of FastAPI."""
    body = problem.body()
    response = Response(body, status_code=problem.status)
    response.raw_headers = problem.response_headers(body)
    return response
