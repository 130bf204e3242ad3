"""The routes of sources: how they stand."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from fastapi import APIRouter, Path, Response

from gateway.api.brokers.views import SourceView, source_view
from gateway.api.openapi import problem_responses
from gateway.brokers.manager import Sources
from gateway.http.pieces import list_response
from gateway.http.problems import Problem

TAGS: list[str | Enum] = ["triggers"]
BrokerName = Annotated[str, Path(description="Name of the source", examples=["orders"])]


def add_source_routes(router: APIRouter, sources: Sources) -> None:
    """Add the routes of one gateway."""

    @router.get("/sources", tags=TAGS, summary="List the sources", response_model=list[SourceView])
    async def list_sources() -> Response:
        """The queues of functions.yaml whose messages are events: whether they are connected, and what came."""
        return await list_response(sources.running.values(), source_view)

    @router.get(
        "/sources/{name}", tags=TAGS, summary="Show a source", responses=problem_responses("not-found")
    )
    async def show_source(name: BrokerName) -> SourceView:
        """One queue."""
        source = sources.running.get(name)
        if source is None:
            raise Problem("not-found", f"there is no source {name!r}; GET /sources lists them")
        return source_view(source)
