"""The routes beside /invoke: what is deployed, what the pool holds, logs, health and metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.problems import Problem
from gateway.runtime import Runtime
from gateway.views import (
    FunctionPoolView,
    FunctionView,
    HealthView,
    InstanceView,
    PoolView,
    PrewarmView,
    ProblemView,
)
from pool.engine.base import EngineError
from pool.instance import Instance
from pool.states import Reason
from scheduler.registry import Declared

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ProblemView, "description": "No such thing"}}
UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {"model": HealthView, "description": "Not ready; `why` says why"}
}


def build_routes(runtime: Runtime) -> APIRouter:
    """The routes of one gateway."""
    router = APIRouter()
    dispatcher, pool = runtime.dispatcher, runtime.pool

    def function_view(declared: Declared) -> FunctionView:
        name = declared.definition.name
        function = dispatcher.functions.get(name)
        return FunctionView(
            name=name,
            kind=declared.definition.kind.value,
            state=declared.state,  # type: ignore[arg-type]
            fault=declared.fault or (function.last_fault if function else None),
            version=declared.version,
            image=function.workload.container.image if function else None,
            labels=declared.definition.labels,
            url=f"/invoke/{name}",
        )

    def instance_view(instance: Instance) -> InstanceView:
        now = runtime.clock.now()
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

    @router.get("/functions", tags=["functions"], summary="What is deployed")
    async def list_functions() -> list[FunctionView]:
        return [function_view(declared) for declared in runtime.registry.declared.values()]

    @router.get("/functions/{name}", tags=["functions"], summary="One function", responses=NOT_FOUND)
    async def show_function(name: str) -> FunctionView:
        declared = runtime.registry.declared.get(name)
        if declared is None:
            raise Problem("no-such-function", f"there is no function {name!r}; GET /functions lists them")
        return function_view(declared)

    @router.get("/pool", tags=["pool"], summary="Prewarm pools and functions: instances, queues, starts")
    async def show_pool() -> PoolView:
        ledger = pool.ledger
        return PoolView(
            functions={
                name: FunctionPoolView(
                    instances=ledger.states(name),
                    queue_depth=function.waiting,
                    starts=runtime.outcomes.starts_of(name),
                    max_instances=function.workload.max_instances,
                    exec_ms=None if function.exec_seconds is None else function.exec_seconds * 1000,
                )
                for name, function in dispatcher.functions.items()
            },
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

    @router.get("/pool/instances", tags=["pool"], summary="Every instance")
    async def list_instances(function: str | None = None) -> list[InstanceView]:
        everything = pool.ledger.instances.values()
        return [instance_view(i) for i in everything if function is None or i.function == function]

    @router.get("/pool/instances/{id}", tags=["pool"], summary="One instance", responses=NOT_FOUND)
    async def show_instance(id: str) -> InstanceView:
        return instance_view(find_instance(id))

    @router.delete(
        "/pool/instances/{id}",
        tags=["pool"],
        status_code=202,
        summary="Remove an instance; what runs on it finishes first",
        responses=NOT_FOUND,
    )
    async def remove_instance(id: str) -> InstanceView:
        instance = find_instance(id)
        pool.drain(instance, Reason.REQUESTED)
        return instance_view(instance)

    @router.get(
        "/pool/instances/{id}/logs",
        tags=["logs"],
        summary="What an instance printed that belongs to no single invocation",
        response_class=PlainTextResponse,
        responses=NOT_FOUND,
    )
    async def instance_logs(id: str) -> Response:
        instance = find_instance(id)
        try:
            kept = await runtime.launcher.logs(instance, 64 * 1024)
        except EngineError:
            kept = b""  # its container is going away; what we have read ourselves is still there
        return Response(kept + pool.instance_log(instance), media_type="text/plain; charset=utf-8")

    @router.get(
        "/invocations/{id}/logs",
        tags=["logs"],
        summary="What an invocation printed, also after its instance is gone",
        response_class=PlainTextResponse,
        responses=NOT_FOUND,
    )
    async def invocation_logs(id: str) -> Response:
        log = runtime.logs.read(id)
        if log is None:
            raise Problem("not-found", f"no invocation {id!r} is remembered; the latest 10,000 are")
        return Response(log, media_type="text/plain; charset=utf-8")

    @router.get("/healthz", tags=["health"], summary="Whether the gateway is alive")
    async def alive() -> HealthView:
        return HealthView(status="ok")

    @router.get(
        "/readyz", tags=["health"], summary="Whether it is able to run functions", responses=UNAVAILABLE
    )
    async def ready() -> Response:
        why = await runtime.why_not_ready()
        view = HealthView(status="not-ready" if why else "ok", why=why)
        return JSONResponse(view.model_dump(exclude_none=True), status_code=503 if why else 200)

    @router.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        pool.ledger.export(runtime.metrics)
        for name, function in dispatcher.functions.items():
            runtime.metrics.queue_depth.labels(name).set(function.waiting)
        return Response(generate_latest(runtime.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router
