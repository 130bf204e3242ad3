"""What came of an invocation: reading it off the shim's answer, and counting it."""

from __future__ import annotations

import json
from typing import Protocol

from gateway.problems import Problem
from pool.metrics import Metrics
from pool.transport.message import Answer
from pool.workload import Kind

PROBLEM_OF_OUTCOME = {
    b"raised": "handler-raised",
    b"bad-json": "bad-request",
    b"bad-result": "contract-broken",
}
UNKNOWN = "(unknown)"
"""The function's label where there is no such function: callers must not be able to make up metrics."""


async def check_outcome(kind: Kind, answer: Answer) -> None:
    """Raise the `Problem` that a handler's shim reports instead of the handler's own answer."""
    if kind is not Kind.HANDLER or answer.status not in (400, 500):
        return
    outcome = next((value for name, value in answer.headers if name == b"x-hearth-outcome"), None)
    if outcome is None:
        return
    body = b""
    while piece := await answer.read():
        body += piece
    try:
        fault = json.loads(body)
        text = f"{fault['type']}: {fault['message']}"
    except (ValueError, KeyError, TypeError):
        text = "the handler failed, and what it said of it is not readable"
    raise Problem(PROBLEM_OF_OUTCOME.get(outcome, "contract-broken"), text)


class Served(Protocol):
    """An invocation that was answered by its function. Times in seconds."""

    name: str
    kind: str | None
    queue_seconds: float
    start_seconds: float
    exec_seconds: float


class Outcomes:
    """Counts what came of invocations."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def served(self, invocation: Served, status: int) -> None:
        """The function's own answer has been sent."""
        m, name = self._metrics, invocation.name
        if status < 500:
            m.invocations.labels(name, "ok", "none").inc()
        else:
            m.invocations.labels(name, "function-error", "function").inc()
        m.starts.labels(name, invocation.kind).inc()
        seconds = m.invocation_seconds
        seconds.labels(name, "queue").observe(invocation.queue_seconds)
        seconds.labels(name, "start").observe(invocation.start_seconds)
        seconds.labels(name, "exec").observe(invocation.exec_seconds)

    def ended(self, function: str, outcome: str, blame: str) -> None:
        """The invocation ended without an answer of its function."""
        self._metrics.invocations.labels(function or UNKNOWN, outcome, blame).inc()

    def starts_of(self, function: str) -> dict[str, int]:
        """How many invocations of a function had which kind of start."""
        return {
            kind: int(self._metrics.starts.labels(function, kind)._value.get())
            for kind in ("warm", "prewarmed", "cold")
        }
