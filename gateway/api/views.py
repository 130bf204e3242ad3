"""What the API shows: the shapes of its JSON answers, for people and for the OpenAPI page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from pool.states import State

NEXT_PAGE = (
    "For the next page; null: there is none. A page with a cursor may be short or empty: a bounded number of records "
    "is looked at for each"
)
"""Description of the cursor of a list."""


class ProblemView(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(
        description="The kind of error, `urn:hearth:problem:` and its slug",
        examples=["urn:hearth:problem:no-such-function"],
    )
    title: str = Field(description="The same for every error of this kind")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="What happened this time")
    blame: Literal["caller", "function", "platform"] = Field(description="Who has to act")
    invocation_id: str | None = Field(None, description="Only in answers of `/invoke`")


class FunctionView(BaseModel):
    """A declared function."""

    name: str = Field(examples=["hello"])
    kind: Literal["handler", "http", "command"]
    state: Literal["loading", "building", "ready", "failed"] = Field(
        description="Only a ready one is in service"
    )
    fault: str | None = Field(
        None, description="Why it is not in service, or did not change to its newest version"
    )
    version: str | None = Field(None, description="Digest of what shapes it")
    image: str | None = Field(None, description="Digest of the image its containers are made from")
    labels: dict[str, str] = Field({}, examples=[{"team": "demo"}])
    url: str = Field(description="Where it is called", examples=["/invoke/hello"])


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
    reason: str | None = Field(None, description="Why it is being removed", examples=[None])


class FunctionPoolView(BaseModel):
    """The instances of one function."""

    instances: dict[str, int] = Field(description="How many, by state", examples=[{"idle": 1, "busy": 2}])
    queue_depth: int = Field(description="Invocations that wait for an instance")
    starts: dict[str, int] = Field(
        description="Answered invocations by the kind of their start",
        examples=[{"warm": 41, "prewarmed": 1, "cold": 0}],
    )
    max_instances: int
    exec_ms: float | None = Field(
        None, description="Measured time of an invocation, smoothed, milliseconds", examples=[0.4]
    )


class PrewarmView(BaseModel):
    """One prewarm pool."""

    image: str = Field(description="Digest of the runtime's image")
    wanted: int = Field(description="How many `prewarm` of functions.yaml asks for")
    ready: int
    starting: int


class PoolView(BaseModel):
    """Everything that the pool holds."""

    functions: dict[str, FunctionPoolView]
    prewarm: list[PrewarmView]
    memory_declared: int = Field(description="Memory that all instances have declared, bytes")
    memory_budget: int = Field(description="What they may declare together, bytes")
    removals: dict[str, int] = Field(
        description="Instances removed since the gateway's start, by reason",
        examples=[{"idle": 3, "timeout": 1}],
    )


class HealthView(BaseModel):
    """Whether the gateway is alive, or ready."""

    status: Literal["ok", "not-ready"]
    why: str | None = Field(
        default=None, description="What it waits for, when it is not ready", examples=[None]
    )


def moment(seconds: float) -> datetime:
    """Wall time in seconds as the API shows it."""
    return datetime.fromtimestamp(seconds, UTC)
