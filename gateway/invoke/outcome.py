"""Counts what came of invocations."""

from __future__ import annotations

from typing import Protocol

from pool.observe.metrics import Metrics, label_of
from scheduler.dispatch.function import Function

UNKNOWN = "(unknown)"
"""The function's label where there is no such function: callers must not be able to make up metrics."""

KINDS = ("warm", "prewarmed", "cold")


def interruption(draining: bool) -> tuple[str, str]:
    """Return outcome and blame of an accepted call that was interrupted: cancelled, or ended with the gateway."""
    return ("draining", "platform") if draining else ("cancelled", "none")


class Served(Protocol):
    """An invocation that was answered by its function. Times in seconds."""

    name: str
    private: bool
    kind: str
    queue_seconds: float
    start_seconds: float
    exec_seconds: float


class Outcomes:
    """Counts what came of invocations. A function's metrics are looked up once, since a warm call is short."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._of: dict[str, _Measured] = {}

    def served(self, invocation: Served, status: int) -> None:
        """Count a call whose own answer has been sent."""
        measured = self._of.get(invocation.name)
        if measured is None:
            measured = self._of[invocation.name] = _Measured(
                self._metrics, label_of(invocation.name, invocation.private)
            )
        (measured.ok if status < 500 else measured.function_error).value += 1
        measured.starts[invocation.kind].value += 1
        measured.queue.observe(invocation.queue_seconds)
        measured.start.observe(invocation.start_seconds)
        measured.exec.observe(invocation.exec_seconds)

    def ended(self, function: str, outcome: str, blame: str, private: bool = False) -> None:
        """Count an invocation that ended without an answer of its function. `private`: as in `label_of`."""
        self._metrics.invocations.labels(label_of(function, private) or UNKNOWN, outcome, blame).value += 1

    def starts_of(self, function: Function) -> dict[str, int]:
        """Return how many answered invocations of a function had which kind of start."""
        label = label_of(function.name, function.private)
        return {kind: self._metrics.starts.value_of(label, kind) for kind in KINDS}


class _Measured:
    """The metrics that an answered invocation of one function moves."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.ok = metrics.invocations.labels(name, "ok", "none")
        self.function_error = metrics.invocations.labels(name, "function-error", "function")
        self.starts = {kind: metrics.starts.labels(name, kind) for kind in KINDS}
        self.queue = metrics.invocation_seconds.labels(name, "queue")
        self.start = metrics.invocation_seconds.labels(name, "start")
        self.exec = metrics.invocation_seconds.labels(name, "exec")
