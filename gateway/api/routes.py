"""Every route of the HTTP API, in the order of the OpenAPI document."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from gateway.api.brokers import routes as brokers
from gateway.api.calls import routes as calls
from gateway.api.functions import health, instances, logs, output
from gateway.api.functions import routes as functions
from gateway.api.jobs import routes as jobs
from gateway.api.openapi import problem_responses
from gateway.api.record import routes as record
from gateway.api.triggers import deliveries, events
from gateway.api.triggers import routes as triggers
from gateway.api.workflows import routes as workflows
from gateway.api.workflows import runs

ROUTERS = tuple(
    module.router
    for module in (
        record,
        calls,
        workflows,
        runs,
        jobs,
        events,
        deliveries,
        triggers,
        brokers,
        functions,
        instances,
        logs,
        output,
        health,
    )
)
ANYWHERE = problem_responses("forbidden", "internal-error")
"""Problems that every route may answer. The document adds those of a key where one is needed."""


def include_routes(app: FastAPI) -> None:
    """Have an app serve every route of the HTTP API."""
    for router in ROUTERS:
        app.include_router(router, responses=ANYWHERE, generate_unique_id_function=lambda route: route.name)


def api_routes() -> list[APIRoute]:
    """Return every route of the HTTP API."""
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
