"""Answers about calls in the record."""

from __future__ import annotations

from datetime import datetime
from math import ceil
from typing import Literal

from pydantic import BaseModel, Field

from gateway.access.access import Admission, KeyHolder
from gateway.api.views import moment
from gateway.http.problems import TYPES
from gateway.invoke.background import Behalf
from gateway.invoke.recent_calls import CallFacts, Failure, SeenCall, WallTimes
from pool.lease import StartKind

CallKind = Literal["sync", "async", "task", "step"]
KINDS_BY_OWNER: dict[str, CallKind] = {"": "async", "job": "task", "run": "step"}
TITLES = {
    "function-error": "The function answered with an error",
    "client-gone": "The caller left before the end",
    "cancelled": "The call was cancelled",
}
"""Titles of failures that are no problems."""
HIDDEN = "another function"
"""Name of a function that the caller may not see, in a sentence."""


class CallErrorView(BaseModel):
    """The failure of a call."""

    slug: str = Field(description="As `outcome`", examples=["handler-raised"])
    title: str = Field(examples=["The handler raised an exception"])
    detail: str = Field(description="At most 1,000 characters", examples=["KeyError: 'name'"])


class CallView(BaseModel):
    """One call, or one run of an accepted call. Times in seconds."""

    id: str = Field(examples=["6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4"])
    kind: CallKind = Field(
        description="`sync`: its caller waited. `async`: accepted. `task`: of a job. `step`: of a workflow"
    )
    function: str | None = Field(description="null: there is no such function", examples=["hello"])
    revision: str | None = Field(description="`version` of the function then; null: it reached none")
    running: bool = Field(description="It waits or runs; its times are those so far")
    status: int | None = Field(description="HTTP status; null: it runs, or nobody got an answer")
    outcome: str | None = Field(
        description="`ok`, `function-error` for an answer of the function's own with a status from 400, "
        "`client-gone`, `cancelled`, or the slug of a problem; null: it runs",
        examples=["ok"],
    )
    blame: Literal["caller", "function", "platform", "none"]
    start: Literal["warm", "prewarmed", "cold"] | None = Field(description="null: it got no instance")
    cold_reason: str | None = Field(
        description="Why the instance was started that served a cold or prewarmed call",
        examples=["no instance of this revision was ready; it is its first call since the gateway started"],
    )
    at: datetime = Field(description="When it arrived")
    queue: float = Field(description="Waiting for an instance")
    start_seconds: float = Field(description="Starting one")
    exec: float = Field(description="In the function, until the head of its answer")
    total: float = Field(description="All of its time, that of a streamed body included")
    key: str | None = Field(
        description="Name of the caller's key; null: there was none, or the key that asks may not `read`"
    )
    owner: str | None = Field(description="What an accepted call is a part of, as `kind:id`")
    attempt: int | None = Field(description="Which run of an accepted call, from 1")
    error: CallErrorView | None = Field(description="null: it went well, or runs")


class CallsView(BaseModel):
    """The latest calls, newest first."""

    calls: list[CallView]


class CallTimesView(BaseModel):
    """The times of the latest calls of one function, in seconds."""

    calls: int = Field(description="Calls that ended and are remembered")
    p50: float = Field(description="Half of them took no longer")
    p99: float = Field(description="99 % of them took no longer")


class CallViews:
    """Shows calls to one caller."""

    def __init__(self, admission: Admission, times: WallTimes, now: float) -> None:
        self._admission = admission
        self._times = times
        self._now = now

    def view(self, call: SeenCall) -> CallView:
        """Return a call as the API shows it."""
        facts, failure = call.facts, call.failure
        behalf = facts.admission if isinstance(facts.admission, Behalf) else None
        owner = behalf.owner if behalf is not None else ""
        return CallView(
            id=facts.id,
            kind=KINDS_BY_OWNER.get(owner.partition(":")[0], "async") if behalf is not None else "sync",
            function=facts.function or None,
            revision=facts.revision or None,
            running=call.running,
            status=facts.status or None,
            outcome=outcome_of(call),
            blame=failure.blame if failure is not None else "none",  # type: ignore[arg-type]
            start=str(facts.start) or None,  # type: ignore[arg-type]
            cold_reason=self._reason(facts.start),
            at=moment(self._times.wall(facts.arrived)),
            queue=rounded(facts.queue_seconds),
            start_seconds=rounded(facts.start_seconds),
            exec=rounded(facts.exec_seconds),
            total=rounded(total_of(call, self._now)),
            key=self._key(facts),
            owner=owner or None,
            attempt=behalf.attempt if behalf is not None else None,
            error=None if failure is None else error_view(failure, facts),
        )

    def _reason(self, start: str) -> str | None:
        """Return why the start was needed, without names that the caller may not know."""
        reason = start.reason if isinstance(start, StartKind) else None
        if reason is None:
            return None
        other = reason.other
        shown = other if other and self._admission.may_name(other) else HIDDEN
        return reason.told(shown)

    def _key(self, facts: CallFacts) -> str | None:
        """Return the name of the key that made a call: one's own, or any for a key with `read`."""
        asks = self._admission
        hidden = (
            isinstance(asks, KeyHolder) and facts.admission is not asks and not asks.key.scopes.has("read")
        )
        return None if hidden else facts.admission.key_name


def outcome_of(call: SeenCall) -> str | None:
    """Return the outcome of a call, or None while it runs."""
    if call.running:
        return None
    return call.failure.outcome if call.failure is not None else "ok"


def total_of(call: SeenCall, now: float) -> float:
    """Return the seconds that a call has taken, until now if it runs."""
    facts = call.facts
    if call.running:
        return now - facts.arrived
    phases = facts.queue_seconds + facts.start_seconds + facts.exec_seconds
    return phases if facts.total_seconds is None else facts.total_seconds


def error_view(failure: Failure, facts: CallFacts) -> CallErrorView:
    """Return a failure as the API shows it."""
    title = TITLES[failure.outcome] if failure.outcome in TITLES else TYPES[failure.outcome][1]
    detail = failure.detail
    if not detail and failure.outcome == "function-error":
        detail = f"its answer has status {facts.status}"
    return CallErrorView(slug=failure.outcome, title=title, detail=detail)


def times_view(seconds: list[float]) -> CallTimesView:
    """Return the times of calls, of which there is at least one."""
    ordered = sorted(seconds)
    p50, p99 = (ordered[ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
    return CallTimesView(calls=len(ordered), p50=rounded(p50), p99=rounded(p99))


def rounded(seconds: float) -> float:
    """Return seconds to the microsecond: finer is noise."""
    return round(seconds, 6)
