"""Turns the errors of the HTTP API into problems (RFC 9457)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.http.problems import Problem, problem_of
from scheduler.calls.store import StoreError


def respond(problem: Problem) -> Response:
    """Return a problem as a response."""
    body = problem.body()
    response = Response(body, status_code=problem.status)
    response.raw_headers = problem.response_headers(body)
    return response


async def answer_error(_: Request, error: Exception) -> Response:
    """Answer a problem as it is, and any other error as the problem that it is to the caller.

    FastAPI raises an unexpected error again after this, and the server logs it.
    """
    return respond(problem_of(error))


async def answer_invalid_input(_: Request, error: Exception) -> Response:
    """Answer a parameter or a body that does not fit its type."""
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return respond(Problem("invalid-input", faults))


async def answer_unrouted(request: Request, error: Exception) -> Response:
    """Answer a request for which there is no route, or no route with its method."""
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


ERROR_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Problem: answer_error,
    StoreError: answer_error,
    RequestValidationError: answer_invalid_input,
    HTTPException: answer_unrouted,
    Exception: answer_error,
}
"""By the class of the error: the most specific one is taken."""
