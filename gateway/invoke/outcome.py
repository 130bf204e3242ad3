"""Notes what came of invocations: in the metrics, and in the record of the latest calls."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.access.access import Admission
from gateway.invoke.invocation import Invocation
from gateway.invoke.recent_calls import CallFacts, Failure, RecentCalls, facts_of
from pool.observe.metrics import Metrics, label_of
from scheduler.dispatch.function import Function, Revision

UNKNOWN = "(unknown)"
"""The function's label where there is no such function: callers must not be able to make up metrics."""

KINDS = ("warm", "prewarmed", "cold")


FUNCTION_ERROR = Failure("function-error", "function")
"""The end of a call whose own answer has a status from 400, as for accepted calls."""
CLIENT_GONE = Failure("client-gone", "caller")


def interruption(draining: bool) -> Failure:
    """Return the end of an accepted call that was interrupted: cancelled, or ended with the gateway."""
    return Failure("draining", "platform") if draining else Failure("cancelled", "none")


class EndedCounts(NamedTuple):
    """The number of invocations of a function that have ended, and of those among them that failed."""

    ended: int = 0
    failed: int = 0


class Served(Protocol):
    """An invocation that was answered by its function. Times in seconds."""

    id: str
    name: str
    private: bool
    revision: Revision
    arrived: float
    kind: str
    queue_seconds: float
    start_seconds: float
    exec_seconds: float
    admission: Admission


class Outcomes:
    """Counts and keeps what came of invocations. A function's metrics are looked up once, since a warm call is
    short."""

    def __init__(self, metrics: Metrics, recent: RecentCalls) -> None:
        self.recent = recent
        self._metrics = metrics
        self._of: dict[str, _Measured] = {}
        self._keep_served = recent.keep_served

    def served(self, invocation: Served, status: int, total_seconds: float | None = None) -> None:
        """Note a call whose own answer has been sent. `total_seconds`: None if the phases are all of its time."""
        name, kind = invocation.name, invocation.kind
        queue, start, exec = invocation.queue_seconds, invocation.start_seconds, invocation.exec_seconds
        measured = self._of.get(name)
        if measured is None:
            measured = self._of[name] = _Measured(self._metrics, label_of(name, invocation.private))
        (measured.ok if status < 500 else measured.function_error).value += 1
        measured.starts[kind].value += 1
        measured.queue.observe(queue)
        measured.start.observe(start)
        measured.exec.observe(exec)
        facts = (
            invocation.id,
            name,
            invocation.revision.version,
            invocation.arrived,
            kind,
            queue,
            start,
            exec,
            invocation.admission,
            status,
            total_seconds,
        )
        if status < 400:
            self._keep_served(facts)
        else:
            self.recent.keep_failed(CallFacts._make(facts), FUNCTION_ERROR)

    def ended(self, invocation: Invocation, end: Failure, status: int = 0) -> None:
        """Note an invocation that ended without an answer of its function. `status`: 0 if it got no answer."""
        label = label_of(invocation.name, invocation.private) or UNKNOWN
        self._metrics.invocations.labels(label, end.outcome, end.blame).value += 1
        total = self.recent.clock.now() - invocation.arrived
        self.recent.keep_failed(facts_of(invocation, status, total), end)

    def counts(self) -> dict[str, EndedCounts]:
        """Return how many invocations of each label of functions have ended, and how many of them failed."""
        found: dict[str, EndedCounts] = {}
        for (label, outcome, _), count in self._metrics.invocations.values():
            before = found.get(label, EndedCounts())
            failed = 0 if outcome == "ok" else count
            found[label] = EndedCounts(before.ended + count, before.failed + failed)
        return found

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
