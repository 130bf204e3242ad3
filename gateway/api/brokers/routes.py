"""The routes of message brokers: whether each is connected, and what came."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from gateway.api.brokers.views import SourceView, source_view
from gateway.api.dependencies import BrokersPart
from gateway.api.openapi import problem_responses
from gateway.http.pieces import list_response
from gateway.http.problems import Problem

BrokerName = Annotated[str, Path(description="Name of the source", examples=["orders"])]

router = APIRouter(tags=["triggers"])


@router.get("/sources", summary="List the sources", response_model=list[SourceView])
async def list_sources(brokers: BrokersPart) -> Response:
    """List the queues of functions.yaml whose messages are events: their connections, and what came."""
    return await list_response(brokers.running.values(), source_view)


@router.get("/sources/{name}", summary="Show a source", responses=problem_responses("not-found"))
async def show_source(name: BrokerName, brokers: BrokersPart) -> SourceView:
    """Show one queue."""
    consumer = brokers.running.get(name)
    if consumer is None:
        raise Problem("not-found", f"there is no source {name!r}; GET /sources lists them")
    return source_view(consumer)
