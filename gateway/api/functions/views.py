"""Answers about functions, their instances, and the gateway's health."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway.invoke.outcome import EndedCounts
from pool.instance import Instance, StartedFor
from pool.states import State
from scheduler.definitions.file import FunctionDefinition, Kind
from scheduler.deploy.declared import Declared
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.function import Function, Revision


class FunctionView(BaseModel):
    """A declared function."""

    name: str = Field(examples=["hello"])
    kind: str = Field(json_schema_extra={"enum": [kind.value for kind in Kind]})
    state: Literal["loading", "building", "ready", "failed"] = Field(
        description="Only a ready one is in service"
    )
    fault: str | None = Field(
        None, description="Why it is not in service, or did not change to its newest version"
    )
    printed: str | None = Field(
        None,
        description="The last lines that its instance printed before the fault, such as a traceback",
        examples=[None],
    )
    version: str | None = Field(None, description="Digest of what shapes it")
    image: str | None = Field(None, description="Digest of the image its containers are made from")
    labels: dict[str, str] = Field({}, examples=[{"team": "demo"}])
    url: str = Field(description="Where it is called", examples=["/invoke/hello"])
    input: Literal["any", "described", "checked"] = Field(
        "any",
        description="Whether its `schema` describes its input, and whether input is checked against that",
    )


class FunctionWithSchemaView(FunctionView):
    """A declared function, with its schemas."""

    schemas: dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="Its key `schema`: `input`, `output`, `example` and `check`, as far as it has them",
        examples=[{"input": {"type": "object"}, "example": {"name": "Ada"}, "check": False}],
    )


class InstanceView(BaseModel):
    """One instance."""

    id: str
    function: str | None = Field(
        None, description="Whose it is; null: nobody's yet, it is generic", examples=["hello"]
    )
    version: str | None = Field(None, description="The function's version")
    state: str = Field(
        description=f"One of {', '.join(str(s) for s in State if s is not State.GONE)}", examples=["idle"]
    )
    in_use: int = Field(description="Invocations that run on it")
    served: int = Field(description="Invocations that it has finished")
    memory: int = Field(description="Declared, bytes")
    age: float = Field(description="Seconds since its start began")
    idle: float = Field(description="Seconds since it was last used")
    container: str | None = Field(None, description="Its container's id on the engine")
    started_because: str | None = Field(
        None, description="Why it was started, or became its function's; null: it is generic or was adopted"
    )
    started_for: str | None = Field(
        None,
        description="The purpose of that start, in a word",
        json_schema_extra={"enum": [*(purpose.value for purpose in StartedFor), None]},
        examples=["call"],
    )
    reason: str | None = Field(None, description="Why it is being removed", examples=[None])


class FunctionPoolView(BaseModel):
    """The instances of one function."""

    instances: dict[str, int] = Field(description="How many, by state", examples=[{"idle": 1, "busy": 2}])
    queue_depth: int = Field(description="Invocations that wait for an instance")
    starts: dict[str, int] = Field(
        description="Answered invocations by the kind of their start",
        examples=[{"warm": 41, "prewarmed": 1, "cold": 0}],
    )
    ended: int = Field(description="Invocations that have ended since the gateway's start", examples=[42])
    failed: int = Field(description="Those of them whose outcome in the metrics is not `ok`", examples=[0])
    memory: int = Field(
        description="Memory that its instances have declared, bytes, without those being removed",
        examples=[268435456],
    )
    max_instances: int
    kept_ready: int = Field(
        description="Instances that stay ready although nobody calls: `min_instances` and spares",
        examples=[1],
    )
    exec_ms: float | None = Field(
        None, description="Measured time of an invocation, smoothed, milliseconds", examples=[0.4]
    )


class PrewarmView(BaseModel):
    """One prewarm pool."""

    image: str = Field(description="Digest of the runtime's image")
    wanted: int = Field(description="How many `prewarm` of functions.yaml asks for")
    ready: int
    starting: int


class SparesView(BaseModel):
    """All instances that are kept ready ahead of calls, and that go first when memory is needed."""

    ready: int
    starting: int
    memory: int = Field(description="Memory that they have declared, bytes", examples=[2**28])
    memory_share: int = Field(description="Memory that they may declare, bytes", examples=[2**30])


class PoolView(BaseModel):
    """Everything that the pool holds."""

    functions: dict[str, FunctionPoolView]
    prewarm: list[PrewarmView]
    spares: SparesView
    memory_declared: int = Field(description="Memory that all instances have declared, bytes")
    memory_budget: int = Field(description="What they may declare together, bytes")
    removals: dict[str, int] = Field(
        description="Instances removed since the gateway's start, by reason",
        examples=[{"idle": 3, "timeout": 1}],
    )


class HealthView(BaseModel):
    """The health of the gateway: alive, or ready."""

    status: Literal["ok", "not-ready"]
    why: str | None = Field(
        default=None, description="What it waits for, when it is not ready", examples=[None]
    )


def function_view(declared: Declared, revision: Revision | None) -> FunctionView:
    """Return a declared function as the API shows it. `revision` serves it, or is None if nothing does."""
    definition = declared.definition
    return FunctionView(
        name=definition.name,
        kind=definition.kind.value,
        state=declared.state,  # type: ignore[arg-type]
        fault=declared.fault or (revision.last_fault if revision else None),
        printed=(declared.printed if declared.fault or revision is None else revision.printed) or None,
        version=declared.version,
        image=revision.workload.container.image if revision else None,
        labels=definition.labels,
        url=f"/invoke/{definition.name}",
        input=input_of(definition),
    )


def input_of(definition: FunctionDefinition) -> Literal["any", "described", "checked"]:
    """Return what is known of a function's input."""
    if definition.checks_input:
        return "checked"
    return "described" if definition.schemas is not None else "any"


def function_with_schema_view(declared: Declared, revision: Revision | None) -> FunctionWithSchemaView:
    """Return a declared function as the API shows it alone."""
    schemas = declared.definition.schemas
    view = FunctionWithSchemaView(**function_view(declared, revision).model_dump())
    view.schemas = None if schemas is None else schemas.model_dump(exclude_unset=True)
    return view


def function_pool_view(
    function: Function, dispatcher: Dispatcher, starts: dict[str, int], counts: EndedCounts
) -> FunctionPoolView:
    """Return the instances of a function as the API shows them, with its starts by kind and its ended invocations."""
    revision, ledger = function.first_in_need(), dispatcher.pool.ledger
    return FunctionPoolView(
        instances=ledger.states(function.name),
        queue_depth=function.waiting,
        starts=starts,
        ended=counts.ended,
        failed=counts.failed,
        memory=ledger.memory_of(function.name),
        max_instances=function.max_instances,
        kept_ready=max(revision.workload.min_instances, dispatcher.spares.keeps(revision)),
        exec_ms=None if revision.exec_seconds is None else revision.exec_seconds * 1000,
    )


def instance_view(instance: Instance, now: float) -> InstanceView:
    """Return an instance as the API shows it at `now`, in seconds of the gateway's clock."""
    why = instance.start_reason
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
        started_because=None if why is None else why.told(why.other),
        started_for=None if instance.adopted else instance.started_for,
        reason=instance.reason,
    )
