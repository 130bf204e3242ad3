"""The routes beside /invoke: what is deployed, what the pool holds, logs, health and metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.api.brokers.routes import add_source_routes
from gateway.api.calls.routes import add_routes, export_backlog, kept_log
from gateway.api.jobs.routes import add_job_routes
from gateway.api.openapi import problem_responses
from gateway.api.parts import ApiParts
from gateway.api.triggers.events import add_event_routes
from gateway.api.triggers.hooks import add_hook_routes
from gateway.api.triggers.routes import add_trigger_routes
from gateway.api.views import (
    FunctionPoolView,
    FunctionView,
    HealthView,
    InstanceView,
    PoolView,
    PrewarmView,
)
from gateway.api.workflows.routes import add_routes as add_workflow_routes
from gateway.http.pieces import json_response, list_response, mapping_of
from gateway.http.problems import Problem
from pool.engine.base import EngineError
from pool.instance import Instance
from pool.states import Reason
from scheduler.deploy.registry import Declared
from scheduler.dispatch.function import Function

NO_FUNCTION = problem_responses("no-such-function")
NOT_FOUND = problem_responses("not-found")
ANYWHERE = problem_responses("forbidden", "internal-error")
"""What every route may answer; where a key is needed, what is wrong with it comes to that."""
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {
        "model": HealthView,
        "description": "Not ready; `why` says why",
        "content": {
            "application/json": {"example": {"status": "not-ready", "why": "the functions are being loaded"}}
        },
    }
}


FunctionName = Annotated[str, Path(description="Name of the function", examples=["hello"])]
InstanceId = Annotated[str, Path(description="`id` of an instance in `GET /pool/instances`")]
InvocationId = Annotated[str, Path(description="`X-Invocation-Id` of an answer")]


def build_routes(parts: ApiParts) -> APIRouter:
    """The routes of one gateway."""
    router = APIRouter(responses=ANYWHERE, generate_unique_id_function=lambda route: route.name)
    dispatcher, pool = parts.dispatcher, parts.pool

    add_routes(router, parts.calls, parts.callbacks, parts.worker, parts.clock)
    add_workflow_routes(router, parts.runs, parts.calls, lambda: dispatcher.draining)
    add_job_routes(router, parts.jobs, parts.job_starts, parts.kept_containers)
    add_event_routes(router, parts.triggers, parts.access, dispatcher)
    add_hook_routes(router, parts.triggers, parts.clock, dispatcher)
    add_trigger_routes(router, parts.triggers, parts.schedules, dispatcher)
    add_source_routes(router, parts.sources)

    def function_view(declared: Declared) -> FunctionView:
        name = declared.definition.name
        revision = dispatcher.revision_for(name)
        return FunctionView(
            name=name,
            kind=declared.definition.kind.value,
            state=declared.state,  # type: ignore[arg-type]
            fault=declared.fault or (revision.last_fault if revision else None),
            version=declared.version,
            image=revision.workload.container.image if revision else None,
            labels=declared.definition.labels,
            url=f"/invoke/{name}",
        )

    def instance_view(instance: Instance) -> InstanceView:
        now = parts.clock.now()
        return InstanceView(
            id=instance.id,
            function=instance.function,
            version=instance.workload.version if instance.workload else None,
            state=instance.state.value,
            in_use=instance.in_use,
            served=instance.served,
            memory=instance.memory,
            age=now - instance.created_at,
            idle=0.0 if instance.in_use else now - instance.last_used,
            container=instance.container,
            reason=instance.reason,
        )

    def find_instance(id: str) -> Instance:
        instance = pool.ledger.instances.get(id)
        if instance is None:
            raise Problem("not-found", f"there is no instance {id!r}; GET /pool/instances lists them")
        return instance

    @router.get(
        "/functions", tags=["functions"], summary="List the functions", response_model=list[FunctionView]
    )
    async def list_functions() -> Response:
        """Every function of functions.yaml, those that could not be set up included: `fault` says why."""
        return await list_response(parts.registry.declared.values(), function_view)

    @router.get("/functions/{name}", tags=["functions"], summary="Show a function", responses=NO_FUNCTION)
    async def show_function(name: FunctionName) -> FunctionView:
        """One function: its kind, its state, its version, and its fault if it has one."""
        declared = parts.registry.declared.get(name)
        if declared is None:
            raise Problem("no-such-function", f"there is no function {name!r}; GET /functions lists them")
        return function_view(declared)

    def function_pool_view(function: Function) -> FunctionPoolView:
        revision = function.first_in_need()
        return FunctionPoolView(
            instances=pool.ledger.states(function.name),
            queue_depth=function.waiting,
            starts=parts.outcomes.starts_of(function),
            max_instances=function.max_instances,
            exec_ms=None if revision.exec_seconds is None else revision.exec_seconds * 1000,
        )

    @router.get("/pool", tags=["pool"], summary="Show the pool", response_model=PoolView)
    async def show_pool() -> Response:
        """Each function's instances by state, its queue and its starts by kind; each prewarm pool; the memory."""
        ledger = pool.ledger
        functions = await mapping_of(dispatcher.functions.items(), function_pool_view)
        rest = PoolView(
            functions={},
            prewarm=[
                PrewarmView(
                    image=image,
                    wanted=target.count,
                    ready=len(ledger.prewarmed(image)),
                    starting=ledger.refilling(image),
                )
                for image, target in dispatcher.prewarm.items()
            ],
            memory_declared=ledger.memory_declared,
            memory_budget=ledger.memory_budget,
            removals=dict(ledger.removals),
        )
        others = rest.model_dump_json(exclude={"functions"}).encode()
        return json_response(b'{"functions":%b,%b' % (functions, others.removeprefix(b"{")))

    @router.get(
        "/pool/instances", tags=["pool"], summary="List the instances", response_model=list[InstanceView]
    )
    async def list_instances(
        function: Annotated[str | None, Query(description="Only the instances of this function")] = None,
    ) -> Response:
        """Every instance, prewarmed ones and those being removed included."""
        ledger = pool.ledger
        wanted = ledger.instances.values() if function is None else ledger.of(function)
        return await list_response(wanted, instance_view)

    @router.get("/pool/instances/{id}", tags=["pool"], summary="Show an instance", responses=NOT_FOUND)
    async def show_instance(id: InstanceId) -> InstanceView:
        """One instance: whose it is, its state, and what it has done."""
        return instance_view(find_instance(id))

    @router.delete(
        "/pool/instances/{id}",
        tags=["pool"],
        status_code=202,
        summary="Remove an instance",
        response_description="It is being removed",
        responses=NOT_FOUND,
    )
    async def remove_instance(id: InstanceId) -> InstanceView:
        """It is given no more calls, and goes when what runs on it has finished. The answer does not wait."""
        instance = find_instance(id)
        pool.drain(instance, Reason.REQUESTED)
        return instance_view(instance)

    @router.get(
        "/pool/instances/{id}/logs",
        tags=["logs"],
        summary="Read an instance's log",
        response_class=PlainTextResponse,
        responses=NOT_FOUND,
    )
    async def read_instance_log(id: InstanceId) -> Response:
        """What it printed that belongs to no single invocation: at start, by subprocesses, of an HTTP server.

        The latest 64 KiB.
        """
        instance = find_instance(id)
        try:
            kept = await parts.launcher.logs(instance, 64 * 1024)
        except EngineError:
            kept = b""  # its container is going away; what we have read ourselves is still there
        return Response(kept + pool.instance_log(instance), media_type="text/plain; charset=utf-8")

    @router.get(
        "/invocations/{id}/logs",
        tags=["logs"],
        summary="Read an invocation's log",
        response_class=PlainTextResponse,
        responses=NOT_FOUND,
    )
    async def read_invocation_log(id: InvocationId) -> Response:
        """What one invocation printed, also after its instance is gone. Empty if it printed nothing.

        The latest 10,000 invocations are remembered, and the first 256 KiB of each (`HEARTH_LOG_LIMIT`).
        """
        log = parts.logs.read(id)
        if log is None and parts.calls.exists:
            log = await kept_log(parts.calls, id)
        if log is None:
            raise Problem("not-found", f"no invocation {id!r} is remembered; the latest 10,000 are")
        return Response(log, media_type="text/plain; charset=utf-8")

    @router.get("/healthz", tags=["health"], summary="Is the gateway alive?")
    async def is_alive() -> HealthView:
        """Answers as long as the process runs. For liveness probes."""
        return HealthView(status="ok")

    @router.get(
        "/readyz",
        tags=["health"],
        summary="Is it able to run functions?",
        response_model=HealthView,
        responses=NOT_READY,
    )
    async def is_ready() -> Response:
        """The engine answers, functions.yaml is loaded, and every `min_instances` is up. For readiness probes."""
        why = await parts.why_not_ready()
        view = HealthView(status="not-ready" if why else "ok", why=why)
        return JSONResponse(view.model_dump(exclude_none=True), status_code=503 if why else 200)

    @router.get("/metrics", tags=["health"], summary="Read the metrics", response_class=PlainTextResponse)
    async def read_metrics() -> Response:
        """Every metric, in the text format of Prometheus."""
        pool.ledger.export(parts.metrics)
        await export_backlog(parts.calls, parts.metrics)
        text = [part async for part in parts.metrics.registry.parts()]
        return Response(b"".join(text), media_type=CONTENT_TYPE_LATEST)

    return router
