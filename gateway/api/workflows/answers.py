"""Answers that are no JSON: the output of a run, and the picture of a workflow."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from gateway.api.openapi import problem_responses
from gateway.http.answer_headers import response_headers
from scheduler.work import Body

NOT_DRAWN = problem_responses("not-found", "store-failed", "busy")
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture", "content": {"image/svg+xml": {"schema": {"type": "string"}}}}
}


def picture_of(svg: bytes) -> Response:
    """Return a drawing as an answer."""
    return answer_of(Body(svg, "image/svg+xml"), {})


def answer_of(output: Body, headers: dict[str, str]) -> Response:
    """Return a run's output as an answer.

    It may be any function's page, so browsers are told to give it no rights on our origin.
    """
    kept = [(b"content-type", output.content_type.encode("latin-1"))] if output.content_type else []
    safe = {name.decode(): value.decode("latin-1") for name, value in response_headers(kept, web=False)}
    return Response(output.data, 200, {**headers, **safe, "cache-control": "no-store"})
