"""The routes of the pool: its instances, and how many there are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from gateway.api.dependencies import AllParts, PoolPart
from gateway.api.functions.views import (
    FunctionPoolView,
    InstanceView,
    PoolView,
    PrewarmView,
    SparesView,
    function_pool_view,
    instance_view,
)
from gateway.api.openapi import problem_responses
from gateway.api.parts import ApiParts
from gateway.api.short_ids import short_id
from gateway.http.pieces import json_response, list_response, mapping_of
from gateway.http.problems import Problem
from gateway.invoke.outcome import EndedCounts
from pool.instance import Instance
from pool.observe.metrics import label_of
from pool.pool import Pool
from pool.states import Reason
from scheduler.dispatch.function import Function

NOT_FOUND = problem_responses("not-found", "ambiguous-id")

router = APIRouter(tags=["pool"])


async def ids_of_instances(parts: ApiParts, prefix: str) -> list[str]:
    """Return ids of instances. A caller who may see one may see all."""
    return [id for id in parts.pool.ledger.instances if id.startswith(prefix)]


InstanceId = Annotated[str, short_id("`id` of an instance in `GET /pool/instances`", ids_of_instances)]


def find_instance(pool: Pool, id: str) -> Instance:
    """Return an instance. Raises `Problem`."""
    instance = pool.ledger.instances.get(id)
    if instance is None:
        raise Problem("not-found", f"there is no instance {id!r}; GET /pool/instances lists them")
    return instance


@router.get("/pool", summary="Show the pool", response_model=PoolView)
async def show_pool(parts: AllParts) -> Response:
    """Show each function's instances, queue, starts and ended calls; each prewarm pool; the memory."""
    ledger, outcomes, dispatcher = parts.pool.ledger, parts.outcomes, parts.dispatcher

    counts = outcomes.counts()

    def view(function: Function) -> FunctionPoolView:
        ended = counts.get(label_of(function.name, function.private), EndedCounts())
        return function_pool_view(function, dispatcher, outcomes.starts_of(function), ended)

    functions = await mapping_of(dispatcher.functions.items(), view)
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
        spares=SparesView(**dispatcher.spares.now()._asdict()),
        memory_declared=ledger.memory_declared,
        memory_budget=ledger.memory_budget,
        removals=dict(ledger.removals),
    )
    others = rest.model_dump_json(exclude={"functions"}).encode()
    return json_response(b'{"functions":%b,%b' % (functions, others.removeprefix(b"{")))


@router.get("/pool/instances", summary="List the instances", response_model=list[InstanceView])
async def list_instances(
    pool: PoolPart,
    function: Annotated[str | None, Query(description="Only the instances of this function")] = None,
) -> Response:
    """List every instance, prewarmed ones and those being removed included."""
    ledger, now = pool.ledger, pool.clock.now
    wanted = ledger.instances.values() if function is None else ledger.of(function)
    return await list_response(wanted, lambda instance: instance_view(instance, now()))


@router.get("/pool/instances/{id}", summary="Show an instance", responses=NOT_FOUND)
async def show_instance(id: InstanceId, pool: PoolPart) -> InstanceView:
    """Show one instance: its function, its state, and what it has done."""
    return instance_view(find_instance(pool, id), pool.clock.now())


@router.delete(
    "/pool/instances/{id}",
    status_code=202,
    summary="Remove an instance",
    response_description="It is being removed",
    responses=NOT_FOUND,
)
async def remove_instance(id: InstanceId, pool: PoolPart) -> InstanceView:
    """Give an instance no more calls, and remove it when its calls have ended. The answer does not wait."""
    instance = find_instance(pool, id)
    pool.drain(instance, Reason.REQUESTED)
    return instance_view(instance, pool.clock.now())
