"""What the API shows: the shapes of its JSON answers, for people and for the OpenAPI page."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ProblemView(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:hearth:problem:no-such-function"])
    title: str
    status: int
    detail: str
    blame: Literal["caller", "function", "platform"]
    invocation_id: str | None = None


class FunctionView(BaseModel):
    """A declared function."""

    name: str
    kind: Literal["handler", "http", "command"]
    state: Literal["building", "ready", "failed"]
    fault: str | None = Field(
        None, description="Why it is not in service, or did not change to its newest version"
    )
    version: str | None = Field(None, description="Digest of what shapes it")
    image: str | None = Field(None, description="Digest of the image its containers are made from")
    labels: dict[str, str] = {}
    url: str = Field(examples=["/invoke/hello"])


class InstanceView(BaseModel):
    """One instance."""

    id: str
    function: str | None = Field(None, description="None: generic, prewarmed")
    version: str | None = None
    state: str
    in_use: int = Field(description="Invocations that run on it")
    served: int = Field(description="Invocations that it has finished")
    memory: int = Field(description="Declared, bytes")
    age: float = Field(description="Seconds")
    idle: float = Field(description="Seconds since it was last used")
    container: str | None = None
    reason: str | None = Field(None, description="Why it is being removed")


class FunctionPoolView(BaseModel):
    """The instances of one function."""

    instances: dict[str, int] = Field(description="By state")
    queue_depth: int
    starts: dict[str, int] = Field(description="Invocations by the kind of their start")
    max_instances: int
    exec_ms: float | None = Field(None, description="Measured time of an invocation, smoothed")


class PrewarmView(BaseModel):
    """One prewarm pool."""

    image: str
    wanted: int
    ready: int
    starting: int


class PoolView(BaseModel):
    """Everything that the pool holds."""

    functions: dict[str, FunctionPoolView]
    prewarm: list[PrewarmView]
    memory_declared: int
    memory_budget: int
    removals: dict[str, int] = Field(description="Instances removed since the start, by reason")


class HealthView(BaseModel):
    """Whether the gateway is alive, or ready."""

    status: Literal["ok", "not-ready"]
    why: str | None = None
