"""The routes for probes and for Prometheus: is the gateway alive, is it ready, and its metrics."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.api.dependencies import AllParts
from gateway.api.functions.views import HealthView
from pool.observe.metrics import Metrics, label_of
from pool.workload import is_private
from scheduler.calls.store import CallStore, StoreError

NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {
        "model": HealthView,
        "description": "Not ready; `why` says why",
        "content": {
            "application/json": {"example": {"status": "not-ready", "why": "the functions are being loaded"}}
        },
    }
}

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the gateway alive?")
async def is_alive() -> HealthView:
    """Answer as long as the process runs. For liveness probes."""
    return HealthView(status="ok")


@router.get("/readyz", summary="Is it able to run functions?", response_model=HealthView, responses=NOT_READY)
async def is_ready(parts: AllParts) -> Response:
    """Say whether the engine answers, functions.yaml is loaded, and all `min_instances` are up.

    For readiness probes.
    """
    why = await parts.why_not_ready()
    view = HealthView(status="not-ready" if why else "ok", why=why)
    return JSONResponse(view.model_dump(exclude_none=True), status_code=503 if why else 200)


@router.get("/metrics", summary="Read the metrics", response_class=PlainTextResponse)
async def read_metrics(parts: AllParts) -> Response:
    """Read every metric, in the text format of Prometheus."""
    parts.pool.ledger.export(parts.metrics)
    await export_backlog(parts.calls, parts.metrics)
    text = [part async for part in parts.metrics.registry.parts()]
    return Response(b"".join(text), media_type=CONTENT_TYPE_LATEST)


async def export_backlog(calls: CallStore, metrics: Metrics) -> None:
    """Set the metrics of accepted calls that wait or run: they are counted when somebody looks."""
    for reason, refused in calls.refusals.items():
        metrics.store_reads_refused.labels(reason).value = refused
    if not calls.exists:
        return
    with suppress(StoreError):
        counts = await calls.counts()
        metrics.async_backlog.clear()
        for (function, status), count in counts.items():
            metrics.async_backlog.labels(label_of(function, is_private(function)), status.value).inc(count)
        kept = await calls.usage()
        for what in ("used", "unfinished", "largest", "size"):
            metrics.async_bytes.labels(what).set(getattr(kept, what))
