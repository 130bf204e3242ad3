"""The load of a gateway as a table: two samples in, lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.cli.client import GatewayClient
from gateway.cli.human import human_size
from gateway.cli.watch.call_lines import took

HEADINGS = ("FUNCTION", "CALLS/S", "ERR/S", "P50", "P99", "WARM", "BUSY", "START", "QUEUE", "MEMORY")
WARM = ("idle", "frozen")
BUSY = ("busy", "draining")
STARTING = ("starting", "specialising", "adopting")
WINDOW_SECONDS = 10
"""Age of the calls whose times are summed up. Shorter, and a quiet function has none; longer, and news come late."""


@dataclass(frozen=True)
class LoadSample:
    """Answers of a gateway at one moment. `at` is in seconds of any clock."""

    at: float
    pool: Mapping[str, Any]
    times: Mapping[str, Any]


@dataclass(frozen=True)
class FunctionLoad:
    """The load of one function. Rates are per second; times are in seconds, or None without a call."""

    name: str
    calls: float
    errors: float
    p50: float | None
    p99: float | None
    warm: int
    busy: int
    starting: int
    queue: int
    memory: int

    @property
    def row(self) -> tuple[str, ...]:
        """Return the row of the table."""
        times = ("-" if seconds is None else took(seconds) for seconds in (self.p50, self.p99))
        counts = (str(n or "-") for n in (self.warm, self.busy, self.starting, self.queue))
        memory = human_size(self.memory).replace(" ", "") if self.memory else "-"
        return (self.name, rate(self.calls), rate(self.errors), *times, *counts, memory)


SORT_KEYS = {
    "calls": lambda load: (-load.calls, load.name),
    "errors": lambda load: (-load.errors, load.name),
    "p99": lambda load: (-(load.p99 or 0.0), load.name),
    "busy": lambda load: (-load.busy - load.starting, load.name),
    "queue": lambda load: (-load.queue, load.name),
    "memory": lambda load: (-load.memory, load.name),
    "name": lambda load: load.name,
}


def sample(gateway: GatewayClient, at: float) -> LoadSample:
    """Ask a gateway for its load. Raises as the client does."""
    times = gateway.ask("GET", "/calls/times", params={"since": f"{WINDOW_SECONDS}s"})
    return LoadSample(at, gateway.pool(), times)


def loads(before: LoadSample, now: LoadSample, sort: str = "calls") -> list[FunctionLoad]:
    """Return the load of each function between two samples, in this order."""
    seconds = max(now.at - before.at, 1e-3)
    found = []
    for name, shown in now.pool["functions"].items():
        earlier = before.pool["functions"].get(name, shown)
        # The counts of a gateway that was restarted begin anew.
        calls, errors = (max(0, shown[key] - earlier[key]) / seconds for key in ("ended", "failed"))
        states, times = shown["instances"], now.times.get(name, {})
        warm, busy, starting = (sum(states.get(s, 0) for s in group) for group in (WARM, BUSY, STARTING))
        found.append(
            FunctionLoad(
                name, calls, errors, times.get("p50"), times.get("p99"),
                warm, busy, starting, shown["queue_depth"], shown["memory"],
            )
        )  # fmt: skip
    return sorted(found, key=SORT_KEYS[sort])


def summary(found: Sequence[FunctionLoad], now: LoadSample) -> tuple[str, str]:
    """Return the sums of all functions, and the memory of the pool."""
    ready = sum(target["ready"] for target in now.pool["prewarm"])
    calls, errors = sum(load.calls for load in found), sum(load.errors for load in found)
    declared, budget = (human_size(now.pool[key]) for key in ("memory_declared", "memory_budget"))
    waiting = sum(load.queue for load in found)
    return (
        f"{rate(calls, none='0')} calls/s, {rate(errors, none='0')} errors/s, {waiting} waiting",
        f"memory {declared} of {budget}, {ready} prewarmed",
    )


def rate(per_second: float, none: str = "-") -> str:
    """Return a rate for people: `0.3`, `12` or `4100`, or `none` for 0."""
    if per_second == 0:
        return none
    return f"{per_second:.1f}" if per_second < 10 else f"{per_second:.0f}"
