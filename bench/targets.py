"""What the gateway shall reach, and what it has reached. All of it on two cores, by one gateway process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """One figure's limit. `unit` is empty for a ratio."""

    name: str
    scenario: str
    title: str
    limit: float
    unit: str = ""
    at_least: bool = False
    stretch: float | None = None

    def met_by(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure beside its target; `low` and `high` are its quartiles, or the figure itself if there are none."""

    target: Target
    value: float
    low: float
    high: float

    @property
    def met(self) -> bool:
        """Whether it is good enough."""
        return self.target.met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        """What the result file holds of it."""
        return {
            "scenario": self.target.scenario,
            "title": self.target.title,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "unit": self.target.unit,
            "limit": self.target.limit,
            "at_least": self.target.at_least,
            "stretch": self.target.stretch,
            "met": self.met,
        }


_ALL = (
    Target("warm_to_nginx", "warm-nginx", "warm req/s / nginx, 16 clients", 0.45, "", True, 0.6),
    Target("added", "warm", "warm p50, added to a direct call", 0.30, "ms", stretch=0.2),
    Target("open_loop", "open-loop", "open loop at half the maximum: p99 / p50", 5, stretch=3),
    Target("prewarmed", "prewarmed", "first call, prewarmed, p50", 12, "ms", stretch=5),
    Target("prewarmed_to_cold", "prewarmed", "prewarmed / cold", 1 / 12),
    Target("cold_to_raw", "cold", "cold / raw start", 1.15, stretch=1.05),
    Target("http_to_handler", "http-image", "HTTP image req/s / handler", 0.8, "", True),
    Target(
        "connect_to_namespace",
        "http-connect",
        "HTTP image, over init / in its namespace",
        0.85,
        "",
        True,
        0.95,
    ),
    Target("accept", "async", "calls accepted on disk, 64 clients", 3000, "/s", True),
    Target("drain_to_direct", "async", "accepted calls run / direct calls, a second", 0.7, "", True),
    Target("fresh_start", "fresh", "reuse: false, paced: start p50", 5, "ms", stretch=2),
    Target("fresh_to_raw", "fresh-max", "reuse: false, calls/s / raw workers", 0.85, "", True, 0.95),
    Target("command", "command", "command, fresh container, paced: p50", 8, "ms", stretch=5),
    Target("command_to_raw", "command", "command / create, start, wait, remove", 1 / 12, stretch=1 / 20),
    Target("command_to_exec", "command-kept", "command, reuse: true, calls/s / exec API", 15, "", True, 30),
    Target("ready", "ready", "first call that needs pandas, kept ready, p50", 15, "ms", stretch=8),
    Target("burst_to_raw", "burst", "burst / raw starts", 1.2),
    Target("download_to_nginx", "stream", "download MiB/s / nginx", 0.5, "", True),
    Target("upload_to_nginx", "stream", "upload MiB/s / nginx", 0.5, "", True),
    Target("stream_memory", "stream", "gateway memory grows while streaming", 8, "MiB"),
    Target("many_latency", "many-functions", "warm p50, many functions / 1", 1.1),
    Target("many_growth", "many-functions", "memory, many functions / 1", 1.1),
    Target("many_memory", "many-functions", "memory with many functions", 150, "MiB"),
    Target("idle_clients", "idle-clients", "req/s beside idle clients / alone", 0.8, "", True),
    Target("neighbours", "neighbours", "a neighbour's p99 beside the worst attack / alone", 2),
    Target("idle_cpu", "idle-gateway", "idle with warm instances, of a core", 1, "%"),
)
TARGETS = {target.name: target for target in _ALL}
"""By name, in the order of the reports."""


def judge(name: str, value: float, low: float | None = None, high: float | None = None) -> Finding:
    """A figure beside its target."""
    return Finding(TARGETS[name], value, value if low is None else low, value if high is None else high)
